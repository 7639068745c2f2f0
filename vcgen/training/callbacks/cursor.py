"""Ties the data stream to the optimizer: the stream's position advances when a batch has been trained on, not when it
was fetched.
"""

from typing import Any

import lightning.pytorch as pl

from vcgen.errors import UserError
from vcgen.training.callbacks.training_state import ADVICE, check_state
from vcgen.types import Example, Position


class Cursor(pl.Callback):
    """Commits the position of each finished batch to the DataModule. A callback, because those run before
    ModelCheckpoint saves.

    Where gradients are accumulated, a batch is finished by the optimizer step that it contributes to: what a stopped
    run had accumulated is lost, so those batches come again. With ``trainer.overfit_batches`` every epoch has the
    batches of the first."""

    def __init__(self) -> None:
        self.step = 0

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning, too, must count the batches of an accumulation from its first: go back to the last optimizer
        step.
        """
        if trainer.state.fn != "fit":
            return
        check_state(checkpoint, trainer.fit_loop.state_dict())
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        lost = progress["current"]["ready"] % trainer.accumulate_grad_batches
        if lost and not progress["is_last_batch"]:  # an epoch's last step may take fewer batches
            for count in (progress["current"], progress["total"]):
                count.update(dict.fromkeys(count, count["ready"] - lost))

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Only now does a resumed trainer know its step, and have its optimizers what was restored."""
        self.step = trainer.global_step
        for parameter, state in (item for optimizer in trainer.optimizers for item in optimizer.state.items()):
            if odd := [
                name for name, value in state.items() if getattr(value, "ndim", 0) and value.shape != parameter.shape
            ]:
                raise UserError(
                    f"the checkpoint's {odd[0]} of the optimizer is of other shapes than the weights; {ADVICE}"
                )

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Example, batch_idx: int
    ) -> None:
        """The batch has been trained on, and those accumulated before it."""
        if trainer.global_step != self.step:
            self.step = trainer.global_step
            again = trainer.overfit_batches and trainer.is_last_batch
            trainer.datamodule.commit(Position() if again else batch.cursor)
