"""Rays: where they start, where they point, between which distances they are looked at, and how these are divided."""

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


def uniform_edges(
    near: Float[Tensor, "*rays"], far: Float[Tensor, "*rays"], count: int, generator: torch.Generator | None
) -> Float[Tensor, "*rays {count+1}"]:
    """Edges (..., count + 1) of ``count`` intervals tiling [near, far]; with a generator the inner ones move by up to
    half an interval.
    """
    steps = torch.linspace(0, 1, count + 1, device=near.device, dtype=near.dtype).expand(*near.shape, -1)
    if generator is not None:
        jitter = torch.rand(*near.shape, count + 1, device=near.device, dtype=near.dtype, generator=generator) - 0.5
        jitter[..., 0] = jitter[..., -1] = 0
        steps = steps + jitter / count
    return near[..., None] + (far - near)[..., None] * steps


def importance_edges(
    edges: Float[Tensor, "*rays n"],
    weights: Float[Tensor, "*rays n-1"],
    count: int,
    generator: torch.Generator | None,
    padding: float = 0.01,
) -> Float[Tensor, "*rays {count+1}"]:
    """Edges (..., count + 1) that cut the weights into equal fractions, by inverting their piecewise linear
    distribution function.

    edges: (..., n + 1); weights: (..., n) >= 0. ``padding`` is the fraction of the probability spread uniformly, so
    that what the first pass missed can be found. Jittered with a generator, else deterministic. First and last edge
    stay, so the ray remains tiled.
    """
    weights = weights + padding * weights.sum(-1, keepdim=True) / weights.shape[-1] + 1e-6
    cdf = torch.cat([torch.zeros_like(weights[..., :1]), weights.cumsum(-1)], -1)
    cdf = cdf / cdf[..., -1:]
    u = torch.linspace(0, 1, count + 1, device=edges.device, dtype=edges.dtype).expand(*edges.shape[:-1], -1).clone()
    if generator is not None:
        jitter = (
            torch.rand(*edges.shape[:-1], count - 1, device=edges.device, dtype=edges.dtype, generator=generator) - 0.5
        )
        u[..., 1:-1] += jitter / count
    above = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, edges.shape[-1] - 1)
    low, high = cdf.gather(-1, above - 1), cdf.gather(-1, above)
    left, right = edges.gather(-1, above - 1), edges.gather(-1, above)
    fraction = ((u - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return left + fraction * (right - left)
