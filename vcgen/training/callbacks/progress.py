"""The progress bar of a training without epochs."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_info


class Progress(RichProgressBar):
    """Steps done, time, time left, speed, and the values logged for the bar: ``train/loss``, ``train/psnr``,
    ``val/psnr``.

    Where there is no terminal to draw on (a SLURM log), one line per validation instead.
    """

    def __init__(self) -> None:
        super().__init__(leave=True)
        self.started, self.first_step = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self.started, self.first_step = time.monotonic(), trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The line for logs."""
        super().on_validation_end(trainer, pl_module)
        if sys.stdout.isatty() or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        seconds = time.monotonic() - self.started
        values = ", ".join(f"{name} {float(value):.4g}" for name, value in self.get_metrics(trainer, pl_module).items())
        speed = seconds / max(1, trainer.global_step - self.first_step)
        rank_zero_info(f"step {trainer.global_step}, {seconds / 60:.1f} min, {speed:.2f} s/step: {values}")

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Without the logger's version, of which a run folder has none."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        # Lightning would write "Epoch 0/-2" for a stream that never ends.
        return "Training  "
