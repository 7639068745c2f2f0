"""The progress bar of a training without epochs."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Steps done, time, time left, speed, and the values logged for the bar: ``train/loss``, ``train/psnr``, ``val/psnr``."""

    def __init__(self):
        super().__init__(leave=True)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Without the logger's version, of which a run folder has none."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        # Lightning would write "Epoch 0/-2" for a stream that never ends.
        return "Training  "
