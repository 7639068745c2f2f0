"""The faces of one object as it is drawn: corners with positions, normals and colors; and how it is turned, varied and
fitted.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vcgen.rendering.meshes import Meshes

Up = Literal["x", "y", "z"]
Fit = Literal["sphere", "box", "none"]
#: How a material's alpha is meant, as in glTF; numbers in ``Surface.mode``.
OPAQUE, MASK, BLEND = 0, 1, 2
#: Rows: the axes of the world, z up, in those of a file whose axis of that name points up. Turns by 90 degrees: none
#: mirrors.
UPRIGHT = {
    "x": ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "y": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "z": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}
#: The sphere, in world units, that ``sphere`` fits an object to, and that which holds a box of side 1.
RADIUS, BOX_RADIUS = 0.5, 0.75**0.5
#: Of the red, green and blue channels: the first changes nothing.
PERMUTATIONS = tuple(itertools.permutations(range(3)))


@dataclass(frozen=True, eq=False)
class Surface:
    """F faces. triangles: (F, 3, 3) float64 positions of corners. normals: (F, 3, 3) float32 unit normals at corners,
    of the front. uv: (F, 3, 2) float32 texture coordinates, u right and v down. rgba: (F, 3, 4) float32 base color in
    linear light, a factor on the texture. texture: (F,) number among ``textures``, -1 for none. textures: (height,
    width, 4) uint8 each, sRGB with straight alpha. mode: (F,) OPAQUE, MASK or BLEND. cutoff: (F,) alpha from which MASK
    shows. double: (F,) whether the material is double-sided."""

    triangles: Tensor
    normals: Tensor
    uv: Tensor
    rgba: Tensor
    texture: Tensor
    mode: Tensor
    cutoff: Tensor
    double: Tensor
    textures: tuple[Tensor, ...] = ()

    @classmethod
    def opaque(
        cls, triangles: Tensor, rgb: Tensor, uv: Tensor | None = None, texture: Tensor | None = None
    ) -> "Surface":
        """Double-sided flat faces. rgb: (F, 3, 3) or what broadcasts to it, in linear light; uv and texture: on all, or
        none.
        """
        count = len(triangles)
        flat = cls(
            triangles,
            torch.zeros(count, 3, 3),
            torch.zeros(count, 3, 2) if uv is None else uv,
            torch.cat([rgb.float().expand(count, 3, 3), torch.ones(count, 3, 1)], -1),
            torch.full((count,), -1 if texture is None else 0),
            torch.full((count,), OPAQUE),
            torch.full((count,), 0.5),
            torch.full((count,), True),
            () if texture is None else (texture,),
        )
        return flat.faceted()

    def __len__(self) -> int:
        return len(self.triangles)

    def face_normals(self) -> Tensor:
        """(F, 3) float64 unit normals by the order of corners; zero for a face without area."""
        return Meshes(self.triangles.reshape(-1, 3), torch.arange(3 * len(self)).reshape(-1, 3)).face_normals()

    def faceted(self) -> "Surface":
        """The surface with the normals of its faces at all corners."""
        return replace(self, normals=self.face_normals().float()[:, None].repeat(1, 3, 1))

    def moved(self, matrix: Tensor) -> "Surface":
        """Positions times (3, 3) ``matrix``; normals follow, and one that mirrors leaves fronts in front by turning the
        faces round.
        """
        normals = torch.nn.functional.normalize(self.normals.double() @ torch.linalg.inv(matrix), dim=-1).float()
        moved = replace(self, triangles=self.triangles @ matrix.T, normals=normals)
        if torch.linalg.det(matrix) > 0:
            return moved
        corners = (getattr(moved, name).flip(1) for name in ("triangles", "normals", "uv", "rgba"))
        return replace(moved, **dict(zip(("triangles", "normals", "uv", "rgba"), corners, strict=False)))

    def fitted(self, fit: Fit) -> tuple["Surface", float]:
        """The middle of its bounding box at the origin, and its size as ``fit`` says; and the factor on sizes.

        sphere: the farthest corner RADIUS from the origin. box: the longest side of the bounding box 1. none: as it is
            and where it is.
        """
        if fit == "none":
            return self, 1.0
        corners = self.triangles.reshape(-1, 3)
        low, high = corners.amin(0), corners.amax(0)
        centered = self.triangles - (low + high) / 2
        extent = float((high - low).max()) if fit == "box" else float(centered.norm(dim=-1).max()) / RADIUS
        return replace(self, triangles=centered / extent), 1 / extent

    def varied(self, number: int, random: np.random.Generator) -> "Surface":
        """Variant ``number``, 0 the object itself, of an upright object: channels of its colors permuted, its axes
        stretched by up to 15 % each, and mirrored left to right at even odds. Of what ``random`` gives, the bundled
        cars take the same."""
        if number == 0:
            return self
        order = list(PERMUTATIONS[1 + (number - 1) % 5])
        stretch = torch.tensor(random.uniform(0.85, 1.15, 3))
        if random.uniform() < 0.5:
            stretch[0] = -stretch[0]
        rgba = torch.cat([self.rgba[..., order], self.rgba[..., 3:]], -1)
        textures = tuple(torch.cat([texture[..., order], texture[..., 3:]], -1) for texture in self.textures)
        return replace(self, rgba=rgba, textures=textures).moved(torch.diag(stretch))

    def refined(self, longest: float, most: int) -> "Surface":
        """Faces halved across their longest edge until none is longer, or there would be more than ``most``."""
        surface = self
        for _ in range(12):
            edges = (surface.triangles - surface.triangles.roll(-1, 1)).norm(dim=2)  # from each corner to the next
            long = edges.amax(1) > longest
            count = int(long.sum())
            if not count or len(surface) + count > most:
                break
            order = (edges[long].argmax(1)[:, None] + torch.arange(3)) % 3
            surface = surface._mapped(functools.partial(_halved, long=long, order=order))
        return surface

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> "Surface":
        """``function`` of everything that faces have."""
        changed: dict[str, Any] = {name: function(part) for name, part in vars(self).items() if name != "textures"}
        return replace(self, **changed)


def _halved(value: Tensor, long: Tensor, order: Tensor) -> Tensor:
    """What the short faces have, and then twice that of the halves of ``long`` ones, whose corners ``order`` sorts:
    longest edge first.
    """
    if value.ndim == 1:
        return torch.cat([value[~long], value[long], value[long]])
    p, q, r = (value[long][torch.arange(len(order)), order[:, k]] for k in range(3))
    middle = (p + q) / 2
    return torch.cat([value[~long], torch.stack([p, middle, r], 1), torch.stack([middle, q, r], 1)])


def joined(parts: list[Surface]) -> Surface:
    """One surface of several; textures numbered anew, each once."""
    textures = list({id(texture): texture for part in parts for texture in part.textures}.values())
    place = {id(texture): number for number, texture in enumerate(textures)}
    tensors = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in vars(parts[0])
        if name not in ("texture", "textures")
    }
    numbers = [torch.tensor([place[id(texture)] for texture in part.textures] + [-1])[part.texture] for part in parts]
    return Surface(**tensors, texture=torch.cat(numbers), textures=tuple(textures))


def to_linear(color: Tensor) -> Tensor:
    """sRGB in [0, 1] -> linear light."""
    return torch.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def to_srgb(color: Tensor) -> Tensor:
    """Linear light -> sRGB, cut to [0, 1]."""
    color = color.clamp(0, 1)
    return torch.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1 / 2.4) - 0.055)
