"""Exponential moving average of the trained weights (Polyak averaging, with the warm-up of the diffusion codes)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vcgen.errors import UserError
from vcgen.optim.optimizer import local
from vcgen.optim.sharding import placed_like, whole
from vcgen.schema import BelowOne


class EMA(pl.Callback):
    """Averages the weights; validation uses the averages, and ``vcgen export`` takes them.

    Only parameters that are trained (``requires_grad``) are averaged: frozen networks cost no memory.

    Args:
        decay: Upper bound of the decay, in [0, 1); after n steps min(decay, (1 + n) / (10 + n)) is used: early weights
            are forgotten fast.
    """

    def __init__(self, decay: BelowOne = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"ema.decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self.step = 0
        self.weights: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] | None = None

    @property
    def state_key(self) -> str:
        """Its name in the checkpoint."""
        return "EMA"

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start from the initial weights, or put restored ones where the module's are: only now is everything
        restored.
        """
        self.step = trainer.global_step
        current = self._parameters(module)
        self.weights = {name: placed_like(self.weights.get(name, p).detach().clone(), p) for name, p in current.items()}

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average once per optimizer step (not per accumulated batch)."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        current = self._parameters(module)
        averages, weights = (
            [local(values[name].detach()) for name in self.weights] for values in (self.weights, current)
        )
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Validate the averaged weights."""
        if self.weights:
            self._swap_in(module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Go on with the trained weights."""
        self._swap_out(module)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """An error in validation must not leave averaged weights in place of trained ones."""
        self._swap_out(module)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"weights": {name: whole(value) for name, value in self.weights.items()}, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.weights, self.updates = dict(state["weights"]), state["updates"]

    def _parameters(self, module: pl.LightningModule) -> dict[str, Tensor]:
        """The parameters that are trained. Raises UserError where averages from a checkpoint are of others."""
        trained: dict[str, Tensor] = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if self.weights and self.weights.keys() != trained.keys():
            raise UserError(
                "the checkpoint's averages are of other weights than are trained here; take the config.yaml of its run"
            )
        return trained

    @torch.no_grad()
    def _swap_in(self, module: pl.LightningModule) -> None:
        current = self._parameters(module)
        self._trained = {name: p.detach().clone() for name, p in current.items()}
        for name, p in current.items():
            p.copy_(placed_like(self.weights[name], p))

    @torch.no_grad()
    def _swap_out(self, module: pl.LightningModule) -> None:
        if self._trained is None:
            return
        for name, p in self._parameters(module).items():
            p.copy_(self._trained[name])
        self._trained = None


@contextmanager
def averaged_weights(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[None]:
    """The averaged weights in place of the trained ones, where the trainer averages, as in validation."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]
    try:
        for average in averages:
            average.on_validation_start(trainer, module)
        yield
    finally:
        for average in averages:
            average.on_validation_end(trainer, module)
