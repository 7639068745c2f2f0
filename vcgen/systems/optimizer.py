"""The optimisers and the learning rate's course: AdamW for everything, or Muon for the weight matrices and AdamW for the rest."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OptimizerOptions:
    """Optimiser and schedule.

    lr: peak learning rate of AdamW. betas, weight_decay: AdamW's. muon_lr: peak learning rate of Muon for all weights of two and
        more dimensions (about 0.02, it does not depend on their size); None trains them by AdamW, too.
    warmup_steps: linear rise from 0.
    schedule: "cosine" falls to the share ``final`` of the peak over the run (``trainer.max_steps``, else ``trainer.max_time``);
        "constant" stays.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    muon_lr: float | None = None
    warmup_steps: int = 100
    schedule: Literal["cosine", "constant"] = "cosine"
    final: float = 0.02

    def factor(self, step: int, progress: float) -> float:
        """Multiplier of the learning rates at a step, where ``progress`` in [0, 1] is the share of the run that is over."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "constant":
            return warm
        return warm * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of the parameters that require gradients."""
        trainable = [p for p in parameters if p.requires_grad]
        if self.muon_lr is None:
            return torch.optim.AdamW(trainable, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        matrices, others = [p for p in trainable if p.ndim >= 2], [p for p in trainable if p.ndim < 2]
        return MuonAdamW(matrices, others, self.muon_lr, self.lr, self.betas, self.weight_decay)


class MuonAdamW(torch.optim.AdamW):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for weights of two and more dimensions, AdamW for the others.

    Muon takes the momentum's nearest orthogonal matrix as its step, so that all directions of a layer learn at one rate.
    torch.optim.Muon, with which this agrees, takes matrices only; here a convolution's kernel is a matrix (out, in * height * width).
    """

    def __init__(
        self, matrices: list[nn.Parameter], others: list[nn.Parameter], muon_lr: float, lr: float,
        betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, momentum: float = 0.95,
    ):
        super().__init__([{"params": others}, {"params": matrices, "lr": muon_lr}], lr=lr, betas=betas, weight_decay=weight_decay)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure=None):
        """One step of both; returns the closure's value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices = self.param_groups.pop()
        try:
            super().step()
        finally:
            self.param_groups.append(matrices)
        for parameter in matrices["params"]:
            if parameter.grad is not None:
                self.step_matrix(parameter, matrices["lr"], matrices["weight_decay"])
        return loss

    def step_matrix(self, parameter: nn.Parameter, lr: float, weight_decay: float) -> None:
        """Nesterov momentum, orthogonalised; the step's size grows with the height of tall matrices, which keeps its effect per output."""
        state = self.state[parameter]
        if not state:
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))  # AdamW's loading asks for the step
        state["step"] += 1
        state["momentum"].lerp_(parameter.grad, 1 - self.momentum)
        update = parameter.grad.lerp(state["momentum"], self.momentum).flatten(1)
        rows, columns = update.shape
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(orthogonalise(update).reshape(parameter.shape), alpha=-lr * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest (semi-)orthogonal matrix of (rows, columns): singular values become 0.7 to 1.2.

    Newton-Schulz iteration of fifth order in bfloat16, coefficients of the Muon post.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = (x / x.norm().clamp(min=1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return (x.mT if tall else x).to(matrix.dtype)
