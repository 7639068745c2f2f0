"""Means over a validation set that do not depend on how it was dealt out to the ranks."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Mean(Metric):
    """The mean of all values of all ranks since the last reset: one sum over one count, in float64 where the device has
    it.

    Two traps that this avoids: ``log(sync_dist=True)`` divides the count of values by the number of ranks and drops the
    remainder; torchmetrics' MeanMetric drops NaNs, or with ``nan_strategy="disable"`` the weights."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        precise = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("total", torch.zeros((), dtype=precise), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=precise), dist_reduce_fx="sum")

    def update(self, values: Tensor, weight: float = 1.0) -> None:
        """Add values of any shape, each counted ``weight`` times; 0 leaves them out, whatever they are."""
        if weight:
            self.total += values.detach().to(self.total.dtype).sum() * weight
            self.count += values.numel() * weight

    def compute(self) -> Tensor:
        """The mean; NaN where nothing counted."""
        return self.total / self.count
