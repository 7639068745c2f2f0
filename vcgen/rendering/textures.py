"""Textures: bilinear look-ups with gradients, and mipmaps for surfaces whose texels are smaller than the pixels.

Convention: u runs right and v down, (0, 0) is the upper left corner of a texture and (1, 1) its lower right (as in
glTF; files that count v upward, such as .obj, need v -> 1 - v), and texel centers lie at +0.5."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: What lies beyond the border of a texture: itself again, its border texels, or its mirror image. The names are glTF's,
#: shortened.
Wrap = Literal["repeat", "clamp", "mirror"]


@dataclass(frozen=True, eq=False)
class Mipmaps:
    """Textures, each with ever coarser copies. table: (rows, C) all texels, level after level, in each texture after
    texture, row by row.

    sizes: (height, width) of each level, the finest first. count: textures.
    """

    table: Float[Tensor, "rows C"]
    sizes: tuple[tuple[int, int], ...]
    count: int

    @classmethod
    def of(cls, textures: Float[Tensor, "B C H W"], levels: int | None = None) -> "Mipmaps":
        """The mipmaps of textures (B, C, H, W); differentiable. Each level has half the texels along both sides,
        rounded down, as means by area.

        levels: how many at most; 1 keeps the textures alone. Default: down to a single texel.
        """
        found = [textures]
        while max(found[-1].shape[-2:]) > 1 and len(found) != levels:
            size = [max(1, side // 2) for side in found[-1].shape[-2:]]
            found.append(torch.nn.functional.interpolate(found[-1], size, mode="area"))
        table = torch.cat([level.movedim(1, -1).reshape(-1, textures.shape[1]) for level in found])
        return cls(table, tuple((level.shape[-2], level.shape[-1]) for level in found), len(textures))


def sample(
    mipmaps: Mipmaps,
    uv: Float[Tensor, "m 2"],
    slopes: Float[Tensor, "m 2 2"] | None = None,
    texture: Int[Tensor, " m"] | None = None,
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat"),
) -> Float[Tensor, "m C"]:
    """(m, C) of textures at image points uv (m, 2); differentiable in the texels and uv.

    slopes: (m, 2, 2) change of uv per pixel right and down (:meth:`Raster.slopes`). They choose the level on which the
    larger of both changes is one texel, and a mean where that lies between two (trilinear; the choice has no gradient).
    Without, the finest level is read. texture: (m,) which texture each point is on; left out where there is one. wrap:
    what lies beyond the borders, along u and v."""
    if texture is None and mipmaps.count != 1:
        raise ValueError(f"there are {mipmaps.count} textures: say which one each point is on")
    texture = torch.zeros(len(uv), dtype=torch.int64, device=uv.device) if texture is None else texture
    if slopes is None:
        return bilinear(mipmaps, torch.zeros_like(texture), uv, texture, wrap)
    level = mip_level(slopes, mipmaps.sizes[0]).clamp(max=len(mipmaps.sizes) - 1).to(uv.dtype)
    lower = level.floor()
    fraction = (level - lower)[:, None].to(mipmaps.table.dtype)
    fine = bilinear(mipmaps, lower.long(), uv, texture, wrap)
    coarse = bilinear(mipmaps, level.ceil().long(), uv, texture, wrap)
    return fine + fraction * (coarse - fine)


def mip_level(slopes: Float[Tensor, "m 2 2"], size: tuple[int, int]) -> Float[Tensor, " m"]:
    """(m,) base-2 logarithm, at least 0, of the texels that a texture of (height, width) passes per pixel, the larger
    of right and down.
    """
    u, v = slopes.detach().unbind(2)
    right, down = ((u * size[1]).square() + (v * size[0]).square()).unbind(1)
    return torch.maximum(right, down).clamp(min=1).log2() / 2


def bilinear(
    mipmaps: Mipmaps,
    level: Int[Tensor, " m"],
    uv: Float[Tensor, "m 2"],
    texture: Int[Tensor, " m"],
    wrap: Sequence[Wrap],
) -> Float[Tensor, "m C"]:
    """(m, C) of one level (m,) of one texture (m,) for each image point uv (m, 2); differentiable in the texels and
    uv.
    """
    starts = accumulate((mipmaps.count * height * width for height, width in mipmaps.sizes), initial=0)
    sizes = [(height, width, start) for (height, width), start in zip(mipmaps.sizes, starts, strict=False)]
    height, width, start = (
        torch.tensor(sizes, device="cpu").to(uv.device, non_blocking=True).index_select(0, level).unbind(1)
    )
    (left, right, x), (upper, lower, y) = (
        _texels(*axis) for axis in zip(uv.unbind(1), (width, height), wrap, strict=True)
    )
    first = start + texture * (height * width)
    corners = [
        mipmaps.table.index_select(0, first + row * width + column)
        for row in (upper, lower)
        for column in (left, right)
    ]
    x, y = x[:, None].to(corners[0].dtype), y[:, None].to(corners[0].dtype)
    top, bottom = (a + x * (b - a) for a, b in (corners[:2], corners[2:]))
    return top + y * (bottom - top)


def _texels(coordinate: Tensor, size: Tensor, wrap: Wrap) -> tuple[Tensor, Tensor, Tensor]:
    """The texels before and after a coordinate, and how far it is from the first to the second; the latter is
    differentiable.
    """
    place = coordinate * size - 0.5
    before = place.detach().floor()
    both = [before.long(), before.long() + 1]
    if wrap == "repeat":
        both = [texel % size for texel in both]
    elif wrap == "mirror":
        both = [torch.minimum(texel % (2 * size), 2 * size - 1 - texel % (2 * size)) for texel in both]
    elif wrap == "clamp":
        both = [torch.minimum(texel.clamp(min=0), size - 1) for texel in both]
    else:
        raise ValueError(f"wrap is repeat, clamp or mirror, not {wrap!r}")
    return both[0], both[1], place - before
