"""Ties the data stream to the optimiser: the stream's position advances when a batch has been trained on, not when it was fetched."""

import lightning.pytorch as pl

from vcgen.types import Example


class Cursor(pl.Callback):
    """Commits the position of each finished batch to the DataModule. A callback, because those run before ModelCheckpoint saves."""

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch: Example, batch_idx: int) -> None:
        """The batch has been trained on."""
        trainer.datamodule.commit(batch)
