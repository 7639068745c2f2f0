"""Light fields (LFN: Sitzmann, Rezchikov, Freeman, Tenenbaum, Durand, NeurIPS 2021, arXiv 2106.02634): a ray's color in
one evaluation of a network, without density and without samples along it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vcgen.fields.coded import CodedScene, linear, normalized_layers, premultiplied
from vcgen.rays import Rays
from vcgen.types import RayRendering

#: Half the shift of a ray's end points, relative to the chord, by which :func:`crossing` differentiates.
SHIFT = 1e-3


def pluecker(origins: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 6"]:
    """(d, o x d): the same for every point o of the ray (LFN, section 3.1). directions: unit."""
    return torch.cat([directions, torch.linalg.cross(origins, directions)], -1)


def crossing(
    color: Callable[[Tensor, Tensor], Float[Tensor, "*batch channels"]],
    start: Float[Tensor, "*batch 3"],
    end: Float[Tensor, "*batch 3"],
) -> Float[Tensor, "*batch"]:
    """Where a ray from ``start`` to ``end`` meets the surface of a Lambertian light field, as a fraction of the way
    (LFN, section 3.4): the rays through one point of a surface have one color, so that moving the start by s and the
    end by t changes it by nothing where s (1 - z) + t z = 0; z = c_t / (c_s + c_t), in least squares over channels and
    two directions across. One half where the color does not change at all.

    color: of rays given by origins and unit directions (..., 3).
    """
    along = end - start
    length = along.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    axis = F.one_hot(along.abs().argmin(-1), 3).to(along)
    first = F.normalize(torch.linalg.cross(along, axis), dim=-1)
    over = above = torch.zeros_like(length[..., 0])
    for across in (first, torch.linalg.cross(along / length, first)):
        step = SHIFT * length * across

        def slope(a: Tensor, b: Tensor) -> Tensor:
            ends = [(start + sign * a, end + sign * b) for sign in (1, -1)]
            high, low = (color(p, F.normalize(q - p, dim=-1)) for p, q in ends)
            return (high - low) / (2 * SHIFT)

        at_start, at_end = slope(step, torch.zeros_like(step)), slope(torch.zeros_like(step), step)
        both = at_start + at_end
        over, above = over + (at_end * both).sum(-1), above + both.square().sum(-1)
    return ((over + 0.5e-6) / (above + 1e-6)).clamp(0, 1)


@dataclass(frozen=True)
class LightField(CodedScene):
    """A :class:`vcgen.types.RayScene`: per scene one network from a ray's Pluecker coordinates to color and opacity.

    All of its layers but the last end in normalization and ReLU, the last has four outputs."""

    #: One evaluation for the color, eight for the depth.
    queries = 9

    def shoot(self, rays: Rays, generator: torch.Generator | None = None) -> RayRendering:
        """See :class:`vcgen.types.RayScene`. The depth is that of :func:`crossing` between entry and exit; where
        gradients flow (training) it is the exit's, since nothing learns from it.
        """
        with torch.autocast(rays.origins.device.type, enabled=False):  # eight bits do not tell neighboring rays apart
            color, alpha = premultiplied(self.outputs(rays.origins, rays.directions))
            depth = rays.far
            if not torch.is_grad_enabled():
                start, end = rays.at(torch.stack([rays.near, rays.far], -1)).unbind(-2)
                depth = rays.near + (rays.far - rays.near) * crossing(self.shown, start, end)
        return RayRendering(color, alpha, alpha * depth, penalties={"latent": self.size})

    def outputs(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Rays (batch, n, 3) in the world -> the network's outputs (batch, n, 4)."""
        *hidden, last = self.weights
        return linear(normalized_layers(pluecker(*self.local(origins, directions)), hidden), last)

    def shown(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Rays (batch, n, 3) in the world -> premultiplied color and opacity, (batch, n, 4)."""
        color, alpha = premultiplied(self.outputs(origins, directions))
        return torch.cat([color, alpha[..., None]], -1)
