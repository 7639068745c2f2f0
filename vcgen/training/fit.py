"""``vcgen fit`` and ``vcgen validate``: LightningCLI with OmegaConf interpolation, strict parsing and vcgen's standing
callbacks.
"""

import logging
import os
import sys
import warnings
from argparse import ArgumentError
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

import vcgen.data.datamodules.photo
import vcgen.data.datamodules.prompt
import vcgen.data.datamodules.shards
import vcgen.data.datamodules.single
import vcgen.personalization.dreambooth
import vcgen.personalization.lora
import vcgen.personalization.textual_inversion
import vcgen.systems.distillation.data  # noqa: F401  (imported so that their classes are known by short names)
from vcgen import redaction
from vcgen.checkpoints.build import CLASSES, WITHOUT_FIELD
from vcgen.checkpoints.files import CheckpointFiles
from vcgen.data.datamodules.base import SceneDataModule
from vcgen.errors import UserError
from vcgen.io import remove_leftovers
from vcgen.optim.ema import EMA
from vcgen.systems.base import System
from vcgen.training.callbacks.checkpoints import Checkpoints
from vcgen.training.callbacks.cursor import Cursor
from vcgen.training.callbacks.progress import Progress
from vcgen.training.callbacks.provenance import ConfigOfRun, Provenance
from vcgen.training.callbacks.rates import Rates
from vcgen.training.callbacks.requeue import Requeue
from vcgen.training.callbacks.samples import Samples
from vcgen.training.callbacks.skipped import Skipped
from vcgen.training.callbacks.speed import Speed
from vcgen.training.callbacks.together import Together
from vcgen.training.environment import DiscreetCLI, refuse_unstorable
from vcgen.training.lightning_private import end_again, leave_signals_alone, set_patience, started_by, validate_together
from vcgen.training.loggers import put_into, unwanted_callbacks
from vcgen.training.parsing import import_beside, mend
from vcgen.training.ranges import check_pair, check_value
from vcgen.training.refusals import explain, parse_refusal, user_errors
from vcgen.training.run_folder import alone_in
from vcgen.training.slurm import slurm_layout
from vcgen.training.stopping import StopSignals
from vcgen.training.trainer_options import check_seed, check_trainer

for path in (*CLASSES, *WITHOUT_FIELD):  # those that files may name are known by short names, too
    import_module(path.rpartition(".")[0])

DEFAULT_ROOT = "outputs/run"
#: The callbacks that every run has, by their part of a configuration.
STANDING = {"ema": EMA, "samples": Samples, "checkpoint": Checkpoints}
#: How long processes wait for one another before they end: longer than one draws images or writes a checkpoint while
#: the others wait.
PATIENCE = timedelta(minutes=10)
#: Warnings that users cannot act on, or that are wrong for an endless stream.
IRRELEVANT = (
    ".*does not have many workers.*",
    ".*Checkpoint directory.*exists and is not empty.*",
    ".*You have overridden `transfer_batch.*",
    ".*not supported by the model summary.*",
    ".*treespec, LeafSpec.*",
    ".*Total length of `list` across ranks is zero.*",
    ".*could not find the monitored key.*",
    ".*in eval mode at the start of training.*",
    ".*ended before the epoch ended.*",
    ".*`srun` command is available.*",
    ".*enabled train dataloader shuffling.*",
)


class VcgenCLI(DiscreetCLI):
    """LightningCLI's native form; ``--ema``, ``--samples`` and ``--checkpoint`` configure the callbacks that every run
    has.

    signals: those that may tell the training to stop.
    """

    def __init__(self, *arguments: Any, signals: StopSignals, **options: Any):
        self.signals = signals
        super().__init__(*arguments, **options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Standing callbacks live in code, their knobs in the config: a second config file replaces lists, and would
        drop them.
        """
        for name, kind in STANDING.items():
            parser.add_lightning_class_args(kind, name)
        parser.link_arguments("trainer.default_root_dir", "checkpoint.dirpath", compute_fn=checkpoint_folder)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Lightning's own; then values that cannot work are refused."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand].clone().as_dict()
        model, data = config["model"]["class_path"], config["data"]["class_path"]
        check_pair(model, data)
        check_trainer(config["trainer"], endless=data.startswith("vcgen."))
        for place, kind in {"model": Any, "data": Any, **STANDING}.items():
            check_value(kind, config[place], place)
        check_seed(config["seed_everything"])

    def before_instantiate_classes(self) -> None:
        """Callbacks and checkpoint path that need the config as a whole. The run's folder is
        ``trainer.default_root_dir``.
        """
        config = self.config[self.subcommand]
        config.trainer.default_root_dir = run_root(config.trainer.default_root_dir)
        self.layout = slurm_layout(
            os.environ, config.trainer.accelerator, config.trainer.devices, config.trainer.num_nodes
        )
        requeue = Requeue(self.signals, resumes=config.ckpt_path == "last")
        built = plain(config.model.clone().as_dict())
        self.model_config = self.interpolations.put_back(built, ("model",))
        refuse_unstorable(built, self.model_config)
        own = [
            Provenance(self.model_config),
            Cursor(),
            Rates(),
            Skipped(),
            requeue,
            Speed(),
            Progress(),
            LearningRateMonitor("step"),
        ]
        saved = ConfigOfRun(self.parser_of(self.subcommand).dump(config, skip_none=False))
        config.ckpt_path = resolve_checkpoint(
            config.ckpt_path, config.trainer.default_root_dir, self.subcommand == "fit"
        )
        nodes = self.layout.nodes if self.layout else config.trainer.num_nodes
        self.trainer_defaults["callbacks"] = [Together(partial(explain, nodes=nodes)), *own, saved]
        put_into(config.trainer, config.trainer.default_root_dir)

    def instantiate_classes(self) -> None:
        """A class that refuses its arguments, or a device that is not there, is the user's to mend."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, ImportError, ArgumentError) as error:
            raise UserError(parse_refusal(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """TensorBoard straight into the run's folder, unless the config names another logger; checkpoints by our own
        reader and writer; in SLURM, nodes and processes as SLURM has them. Lightning's own requeueing is off: see
        :mod:`vcgen.training.callbacks.requeue`."""
        trainer = self.config_init[self.subcommand].trainer
        kwargs["min_epochs"] = trainer.min_epochs or 0  # beside min_steps Lightning makes it 1, and no epoch ends here
        if trainer.barebones:
            kwargs |= {
                "logger": None,
                "log_every_n_steps": None,
                "num_sanity_val_steps": None,
                "enable_model_summary": None,
            }
        elif trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(trainer.default_root_dir, name="", version="")
        plugins = trainer.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if self.layout:
            kwargs |= {"num_nodes": self.layout.nodes, "devices": self.layout.per_node}
            plugins = [SLURMEnvironment(auto_requeue=False), *plugins]
        elif "SLURM_JOB_ID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
            # Lightning would take this process for one that srun has started
            plugins = [LightningEnvironment(), *plugins]
        kwargs["plugins"] = [CheckpointFiles(self.model, self.model_config), *plugins]
        trainer = super().instantiate_trainer(**kwargs)
        leave_signals_alone(trainer)
        validate_together(trainer)
        end_again(trainer)
        self.signals.started = lambda: started_by(trainer)
        set_patience(trainer, PATIENCE)
        return trainer

    def build_trainer(self, config: dict[str, Any], callbacks: list[pl.Callback]) -> pl.Trainer:
        """Lightning's own, without those of vcgen's callbacks that the Trainer is told to do without."""
        unwanted = unwanted_callbacks(config)
        self.trainer_defaults["callbacks"] = [
            c for c in self.trainer_defaults["callbacks"] if not isinstance(c, unwanted)
        ]
        return super().build_trainer(config, [c for c in callbacks if not isinstance(c, unwanted)])

    def fit(self, **arguments: Any) -> None:
        """Lightning's own, with the run's folder to itself; the process that writes there sees to it."""
        root, self.model.resumes_from = self.trainer.default_root_dir, arguments.get("ckpt_path")
        with alone_in(root) if self.trainer.is_global_zero else nullcontext(False) as alone:
            if alone:
                remove_leftovers(Path(root), "*")
                remove_leftovers(Path(checkpoint_folder(root)), "*.ckpt")
            self.trainer.fit(**arguments)

    def validate(self, **arguments: Any) -> None:
        """Lightning's own, where there is something to validate."""
        self.model.resumes_from = arguments.get("ckpt_path")
        if arguments.get("ckpt_path") is None and not self.model.starts_trained:
            advice = "give --ckpt_path best, last or a file, or --model.pretrained FOLDER where the model has it"
            raise UserError(f"there is nothing to validate: the weights are random; {advice}")
        self.trainer.validate(**arguments)
        if not sum(self.trainer.num_val_batches):
            raise UserError(
                "there is nothing to validate on: give data.val, or data.hold_out, and trainer.limit_val_batches"
                " above 0"
            )


def run_root(given: str | Path | None) -> str:
    """The folder of a run; "~", where no shell has replaced it, is the user's own, as Lightning has it."""
    return os.path.expanduser(given or DEFAULT_ROOT)


def checkpoint_folder(root: str | None) -> str:
    """Where a run's checkpoints lie."""
    return str(Path(run_root(root)) / "checkpoints")


def resolve_checkpoint(name: str | None, root: str, may_start_afresh: bool) -> str | None:
    """The path of a checkpoint: "best" and "last" are files of the run's folder, other names are paths.

    A job that always says ``--ckpt_path last`` must run its first time, too: then there is none yet, and None is
    returned."""
    if name not in ("best", "last"):
        return name
    path = Path(checkpoint_folder(root)) / f"{name}.ckpt"
    if name == "last" and may_start_afresh and not path.exists():
        return None
    return str(path)


def plain(value: Any) -> Any:
    """Config values as JSON can hold them: tuples become lists, paths become strings."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def run(words: list[str], signals: StopSignals | None = None) -> None:
    """Run ``vcgen fit`` or ``vcgen validate``: ``words`` is the command line after ``vcgen``. Raises Stopped after one
    of ``signals``.
    """
    mend()
    import_beside(words)
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    quieten()
    redaction.begin(words)
    # The first word stays what started this process: Lightning starts the other ranks with it.
    sys.argv = [sys.argv[0], *words]
    with user_errors(words[0]):
        VcgenCLI(
            System,
            SceneDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            signals=signals or StopSignals(),
            seed_everything_default=0,
            save_config_callback=None,
            # The data part deals out scenes to ranks by itself.
            trainer_defaults={"use_distributed_sampler": False},
            parser_kwargs={"parser_mode": "omegaconf+", "allow_abbrev": False, "prog": "vcgen", "exit_on_error": False},
        )


def quieten() -> None:
    """Keep what users must act on; drop Lightning's tips and its advice that does not hold for an endless stream."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    for text in IRRELEVANT:
        warnings.filterwarnings("ignore", text)
