"""Rays: where they start, where they point, and between which distances they are looked at."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Rays:
    """Rays in any batch shape ``...``, usually (batch, rays); made by :meth:`vcgen.cameras.Cameras.rays`.

    origins, directions: (..., 3) in the world; directions have unit length.
    near, far: (...) Euclidean distances from the origin between which a ray is rendered, in world units.
    """

    origins: Float[Tensor, "*batch 3"]
    directions: Float[Tensor, "*batch 3"]
    near: Float[Tensor, "*batch"]
    far: Float[Tensor, "*batch"]

    @property
    def shape(self) -> torch.Size:
        """The batch shape."""
        return self.near.shape

    def __getitem__(self, index: Any) -> "Rays":
        return Rays(*(tensor[index] for tensor in vars(self).values()))

    def reshape(self, *shape: int) -> "Rays":
        """The same rays in another batch shape."""
        origins, directions = (tensor.reshape(*shape, 3) for tensor in (self.origins, self.directions))
        return Rays(origins, directions, self.near.reshape(shape), self.far.reshape(shape))

    def gather(self, index: Int[Tensor, "*batch n"]) -> "Rays":
        """The rays of each batch entry whose numbers along the last batch dimension are ``index`` (..., n)."""
        dim, pick = index.ndim - 1, index[..., None].expand(*index.shape, 3)
        origins, directions = (tensor.gather(dim, pick) for tensor in (self.origins, self.directions))
        return Rays(origins, directions, self.near.gather(dim, index), self.far.gather(dim, index))

    def at(self, distances: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n 3"]:
        """World points (..., n, 3) at distances (..., n) along the rays."""
        return self.origins[..., None, :] + distances[..., None] * self.directions[..., None, :]
