"""Stops a training that was told to by SIGUSR1 or SIGTERM: at the end of an optimizer step, in all processes at once,
with a checkpoint.
"""

import signal
from typing import Any

import lightning.pytorch as pl

from vcgen.training.callbacks.checkpoints import Checkpoints, is_last_step, is_stopping
from vcgen.training.stopping import Stopped, StopSignals


class Requeue(pl.Callback):
    """Saves ``last.ckpt`` and raises :class:`vcgen.training.stopping.Stopped` after a step in which any process was
    told to stop.

    signals: those that came so far. resumes: whether the training's own command, given again, goes on from
        ``last.ckpt``.
    """

    def __init__(self, signals: StopSignals, resumes: bool):
        self.signals, self.resumes = signals, resumes
        self.step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Only now does a resumed trainer know its step; from here on there is something to save."""
        self.step, self.signals.training = trainer.global_step, True

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Not between two accumulated batches, whose gradients no checkpoint holds. After the last step there is
        nothing to stop.
        """
        finished = is_stopping(trainer) or is_last_step(trainer)
        if trainer.global_step == self.step or finished or trainer.fast_dev_run:
            return
        self.step = trainer.global_step
        if not self._anywhere(trainer, bool(self.signals.received)):
            return
        saved = [str(c.write_last(trainer)) for c in trainer.checkpoint_callbacks if isinstance(c, Checkpoints)]
        # SIGTERM outweighs SIGUSR1: whoever sends it decides what becomes of the job.
        ending = self._anywhere(trainer, signal.SIGTERM in self.signals.received)
        reason = signal.SIGTERM if ending else signal.SIGUSR1
        raise Stopped(reason, trainer.global_step, saved[0] if saved else "", trainer.is_global_zero, self.resumes)

    @staticmethod
    def _anywhere(trainer: pl.Trainer, here: bool) -> bool:
        return trainer.strategy.reduce_boolean_decision(here, all=False)
