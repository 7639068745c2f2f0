"""Distances between two sets of images, by the features that a network has for them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Of KID: as many images, or all of the smaller set where it has fewer, in as many draws.
SUBSET, SUBSETS, SEED = 1000, 100, 0


def fid(first: Tensor, second: Tensor) -> float:
    """Frechet Inception Distance of features (n, d) and (m, d); n and m at least 2."""
    first, second = first.double(), second.double()
    a, b = first.T.cov(), second.T.cov()
    apart = (first.mean(0) - second.mean(0)).square().sum()
    # The product of two covariances is similar to a positive matrix: its eigenvalues are real, but for rounding.
    root = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    return float(apart + a.trace() + b.trace() - 2 * root)


def kid(first: Tensor, second: Tensor, subset: int = SUBSET, subsets: int = SUBSETS) -> float:
    """Kernel Inception Distance of features (n, d) and (m, d); n and m at least 2. Below 0 as often as above where both
    are drawn from one set.
    """
    size = min(subset, len(first), len(second))
    generator = torch.Generator().manual_seed(SEED)
    values = []
    for _ in range(subsets):
        x, y = (one[torch.randperm(len(one), generator=generator)[:size]].double() for one in (first, second))
        pairs = _kernel(x, x) + _kernel(y, y)
        values.append((pairs.sum() - pairs.trace()) / (size * (size - 1)) - 2 * _kernel(x, y).mean())
    return float(torch.stack(values).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


class Distance(NamedTuple):
    """A distance of two sets. function: of their features; network: whose, see :data:`vcgen.metrics.features.NETWORKS`;
    decimals: printed digits after the point.
    """

    title: str
    function: Callable[[Tensor, Tensor], float]
    network: str
    definition: str
    decimals: int


_FID = "Frechet distance (Heusel et al. 2017) of two Gaussians, sample covariances, float64"
_KID = (
    "unbiased squared MMD (Binkowski et al. 2018), kernel (x.y / d + 1)^3, mean over"
    f" {SUBSETS} random subsets of {SUBSET} images, or of all of the smaller set, seed {SEED}"
)
DISTANCES = {
    f"{name}_{network}": Distance(f"{name.upper()}-{network}", function, network, definition, decimals)
    for network in ("inception", "squeeze")
    for name, function, definition, decimals in (("fid", fid, _FID, 2), ("kid", kid, _KID, 5))
}
