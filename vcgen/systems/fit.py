"""``vcgen fit`` and ``vcgen validate``: LightningCLI with OmegaConf interpolation, strict parsing and vcgen's standing callbacks."""

import logging
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

import vcgen.nerf.encoder
import vcgen.nerf.pixelnerf
import vcgen.nerf.scene
import vcgen.systems.nerfdiff  # noqa: F401  (imported so that their classes are known by short names)
from vcgen.callbacks.cursor import Cursor
from vcgen.callbacks.ema import EMA
from vcgen.callbacks.provenance import Provenance
from vcgen.callbacks.samples import Samples
from vcgen.data.datamodule import ShardData
from vcgen.errors import UserError
from vcgen.systems.base import System

DEFAULT_ROOT = "outputs/run"


class VcgenCLI(LightningCLI):
    """LightningCLI's native form; ``--ema``, ``--samples`` and ``--checkpoint`` configure the callbacks that every run has."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Standing callbacks live in code, their knobs in the config: a second config file replaces lists, and would drop them."""
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Samples, "samples")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults({
            "checkpoint.monitor": "val/psnr", "checkpoint.mode": "max", "checkpoint.save_last": True, "checkpoint.save_top_k": 1,
            "checkpoint.filename": "best", "checkpoint.enable_version_counter": False,
        })
        parser.link_arguments("trainer.default_root_dir", "checkpoint.dirpath", compute_fn=checkpoint_folder)

    def before_instantiate_classes(self) -> None:
        """Callbacks and logger that need the config as a whole. The run's folder is ``trainer.default_root_dir``."""
        config = self.config[self.subcommand]
        config.trainer.default_root_dir = str(config.trainer.default_root_dir or DEFAULT_ROOT)
        model = plain(config.model.clone().as_dict())
        self.trainer_defaults["callbacks"] = [Provenance(model), Cursor(), LearningRateMonitor("step"), RichProgressBar(leave=True)]

    def instantiate_trainer(self, **kwargs) -> pl.Trainer:
        """TensorBoard straight into the run's folder, unless the config names another logger."""
        trainer = self.config_init[self.subcommand].trainer
        if trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(trainer.default_root_dir, name="", version="")
        return super().instantiate_trainer(**kwargs)

    def _parse_ckpt_path(self) -> None:
        """Flags beat the hyperparameters stored in a checkpoint (LightningCLI does it the other way round)."""


def checkpoint_folder(root: str | None) -> str:
    """Where a run's checkpoints lie."""
    return str(Path(root or DEFAULT_ROOT) / "checkpoints")


def plain(value):
    """Config values as JSON can hold them: tuples become lists, paths become strings."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def main(words: list[str]) -> None:
    """Entry point of ``vcgen fit`` and ``vcgen validate``: ``words`` is the command line after ``vcgen``."""
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    quieten()
    sys.argv = ["vcgen", *words]
    try:
        VcgenCLI(
            System, ShardData, subclass_mode_model=True, subclass_mode_data=True, auto_configure_optimizers=False, seed_everything_default=0,
            save_config_kwargs={"overwrite": True}, parser_kwargs={"parser_mode": "omegaconf+", "allow_abbrev": False, "prog": "vcgen"},
        )
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"{error.filename}: {error.strerror}; choose a writable trainer.default_root_dir with free space") from error


def quieten() -> None:
    """Keep what users must act on; drop Lightning's tips and its advice that does not hold for an endless stream."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "tip" not in record.getMessage().lower())
    for text in (".*does not have many workers.*", ".*Checkpoint directory.*exists and is not empty.*", ".*You have overridden `transfer_batch.*", ".*not supported by the model summary.*"):
        warnings.filterwarnings("ignore", text)
