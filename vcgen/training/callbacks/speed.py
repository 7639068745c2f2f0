"""How fast training goes and what it needs: throughput, memory, gradient norms, in TensorBoard."""

import time
from typing import Any, cast

import lightning.pytorch as pl
import torch

from vcgen.memory import peak_memory
from vcgen.optim.optimizer import total_norm
from vcgen.systems.base import System
from vcgen.types import Example


class Speed(pl.Callback):
    """Logs every ``trainer.log_every_n_steps`` steps, since the last time.

    - ``speed/steps_per_s`` and what the system counts (``System.work``), such as ``speed/rays_per_s``, of all ranks;
    - ``memory/peak_gb``: of the GPU's tensors since the start, or of the process on a CPU (10^9 bytes);
    - ``gradient_norm/PART`` for each part (direct child) of the system, before clipping.
    """

    def __init__(self) -> None:
        self.since, self.step, self.steps = 0.0, 0, 0
        self.done: dict[str, int] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.step = trainer.global_step
        self._restart()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Validation's time is not training's."""
        self._restart()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Gradients are complete here, and not yet clipped."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps:
            return
        for name, part in module.named_children():
            gradients = [p.grad for p in part.parameters() if p.grad is not None]
            if gradients:
                module.log(f"gradient_norm/{name}", total_norm(gradients))

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Example, batch_idx: int
    ) -> None:
        """Count; log from time to time."""
        for name, count in cast(System, module).work.items():
            self.done[name] = self.done.get(name, 0) + count * trainer.world_size
        if trainer.global_step == self.step:
            return  # in the midst of an accumulation
        self.step, self.steps = trainer.global_step, self.steps + 1
        if self.steps < trainer.log_every_n_steps:
            return
        seconds = time.monotonic() - self.since
        rates = {"speed/steps_per_s": self.steps / seconds} | {
            f"speed/{name}_per_s": count / seconds for name, count in self.done.items()
        }
        module.log_dict(rates | {"memory/peak_gb": peak_memory(module.device) / 1e9})
        self._restart()

    def _restart(self) -> None:
        self.since, self.steps, self.done = time.monotonic(), 0, {}
