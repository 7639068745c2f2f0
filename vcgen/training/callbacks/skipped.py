"""Scenes that could not be read and were skipped (``data.on_error: skip``): named in the log, counted in
TensorBoard.
"""

from typing import Any

import lightning.pytorch as pl
import torch

from vcgen.types import Example


class Skipped(pl.Callback):
    """Tells the DataModule which scenes were skipped; logs ``data/skipped``: how often another stood in, on all ranks,
    since the start.
    """

    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Example, batch_idx: int
    ) -> None:
        """Loader processes put what they skipped into their batches."""
        if trainer.datamodule.on_error == "stop":
            return
        self.count += len(batch.skipped)
        trainer.datamodule.note_skipped("train", batch.skipped)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            total = torch.tensor(float(self.count), device=module.device)
            module.log("data/skipped", trainer.strategy.reduce(total, reduce_op="sum"))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Example,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same for validation, which is not counted."""
        if batch.skipped:
            trainer.datamodule.note_skipped("val", batch.skipped)
