"""The parts of Lightning that are not its public interface, and that training needs: all of them stand here.

Another version may change them without a word. tests/test_private_parts.py names the version that they were read in and
fails before anything else does; ``lightning`` has an upper bound in pyproject.toml for the same reason. Two more stand
where their base classes are: ``_data_parallel_size`` in :mod:`vcgen.optim.sharding`, and ``_get_train_description`` in
:mod:`vcgen.training.callbacks.progress`.
"""

import subprocess
import threading
import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI


class OpenCLI(LightningCLI):
    """LightningCLI whose inner steps have names, under which they can be called and overridden."""

    def parser_of(self, command: str | None) -> LightningArgumentParser:
        """The parser of "fit" or "validate"."""
        return self._parser(command)

    def build_trainer(self, config: dict[str, Any], callbacks: list[pl.Callback]) -> pl.Trainer:
        """The Trainer from its arguments and the callbacks that have a part of their own in the configuration."""
        return super()._instantiate_trainer(config, callbacks)

    def storable(self, config: Any) -> Any:
        """What Lightning notes of a configuration in a class that saves its arguments."""
        return config

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[pl.Callback]) -> pl.Trainer:
        return self.build_trainer(config, callbacks)

    def _dump_config(self) -> None:
        super()._dump_config()
        self.config_dump = self.storable(self.config_dump)

    def _parse_ckpt_path(self) -> None:
        """Flags beat the hyperparameters stored in a checkpoint (LightningCLI does it the other way round)."""


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Lightning's own handler of SIGTERM calls the other processes from inside the handler, and can wait for ever."""
    trainer._signal_connector.register_signal_handlers = lambda: None


def set_patience(trainer: pl.Trainer, patience: timedelta) -> None:
    """How long processes wait for one another, unless the configuration says so."""
    if getattr(trainer.strategy, "_timeout", None) == default_pg_timeout:
        trainer.strategy._timeout = patience


def validate_together(trainer: pl.Trainer) -> None:
    """Where ``trainer.val_check_interval`` is a time, all processes validate once it has passed in one. Each has a
    clock of its own, and would wait for ever for the others in a validation that they do not come to."""
    loop = trainer.fit_loop.epoch_loop
    due = loop._should_check_val_fx
    if trainer._val_check_time_interval is not None:
        loop._should_check_val_fx = lambda fetcher: trainer.strategy.reduce_boolean_decision(due(fetcher), all=False)


def end_again(trainer: pl.Trainer) -> None:
    """A run that goes on after its last step comes to its end once more, which Lightning leaves out: the process may
    have been killed while it wrote, in ``on_train_end``, what the run has come to."""
    loop, run = trainer.fit_loop, trainer.fit_loop.run

    def run_or_end() -> None:
        loop.setup_data()
        if loop.max_batches and loop.done:
            loop.reset()
            loop.on_run_start()
            loop.on_run_end()
        else:
            run()

    loop.run = run_or_end


def started_by(trainer: pl.Trainer) -> list[subprocess.Popen[bytes]]:
    """The processes of the other ranks that this one has started."""
    return getattr(trainer.strategy.launcher, "procs", [])


def dismiss_watchman() -> None:
    """End Lightning's own thread that watches the processes it has started, and kills all where one has failed."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._run = lambda: True  # type: ignore[attr-defined]  # Lightning's own kind of thread; done


def is_accumulating(trainer: pl.Trainer) -> bool:
    """Whether the batch that ends now has left gradients that no optimizer step has taken yet."""
    return trainer.fit_loop._should_accumulate()


def is_validation_due(trainer: pl.Trainer) -> bool:
    """Whether a validation belongs after this batch, be it one of no batches (``trainer.limit_val_batches`` 0)."""
    loop, limit = trainer.fit_loop, trainer.limit_val_batches
    trainer.limit_val_batches = limit or 1
    try:
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
    finally:
        trainer.limit_val_batches = limit


def count_time_anew(trainer: pl.Trainer) -> None:
    """Where ``trainer.val_check_interval`` is a time, it begins now. Lightning sees to it in a validation alone."""
    trainer._last_val_time = time.monotonic()


def validate(trainer: pl.Trainer) -> None:
    """Validate as the training loop does after a batch, before the first batch of a resumed run."""
    loop, first = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector._first_loop_iter
    loop.restarting = False  # it begins with its first batch
    trainer.validating = True
    loop.run()
    trainer.training = True
    trainer._logger_connector._first_loop_iter = first
