"""The two checkpoints of a run: ``best.ckpt`` by a validation metric, and ``last.ckpt``, which really is the last."""

from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint


class Checkpoints(ModelCheckpoint):
    """Saves ``last.ckpt`` after every validation and after the last step, and ``best.ckpt`` after a validation with a new best ``monitor``.

    Lightning's own ``save_last`` saves only when a new best was found, and not at the end of training: steps would be lost.

    Args:
        dirpath: Folder of both files.
        monitor: The logged metric that decides which weights are best.
        mode: Whether more of it ("max") or less ("min") is better.
    """

    def __init__(self, dirpath: str, monitor: str = "val/psnr", mode: Literal["min", "max"] = "max"):
        super().__init__(dirpath=dirpath, filename="best", monitor=monitor, mode=mode, save_top_k=1, enable_version_counter=False)

    @property
    def state_key(self) -> str:
        """Its name in the checkpoint."""
        return "Checkpoints"

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx: int) -> None:
        """After the last step, before the loops wind up: what they store then is a clean place to resume from."""
        finished = trainer.should_stop or trainer.global_step == trainer.max_steps
        if finished and not trainer.fast_dev_run:
            self.write_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Nothing: the stream has no epochs, and without validation there is no best."""

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The best first: ``last.ckpt`` then knows the new best score."""
        if self._should_skip_saving_checkpoint(trainer):
            return
        super().on_validation_end(trainer, module)
        self.write_last(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Nothing: the last step has been saved."""

    def write_last(self, trainer: pl.Trainer) -> Path:
        """Write ``last.ckpt``; when this returns, in all processes, it is complete on the disk."""
        path = Path(self.dirpath) / "last.ckpt"
        trainer.save_checkpoint(path, self.save_weights_only)
        return path
