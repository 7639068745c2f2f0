"""Objects without meaning: primitives put together at random, textured, some with dents and bumps, cuts and wires.

After Zeroverse (LRM-Zero, arXiv 2406.09371): 1 to 9 of five primitives, each scaled, turned and moved at random and
textured, and then height fields, boolean differences and wire frames, with sizes as its program has them. Ours are: the
textures, which are computed; that every part touches another one; exact cuts by convex shapes into thin shells, whose
inside shows; and all probabilities.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vcgen.meshes.surface import Surface, joined, to_linear
from vcgen.meshes.synthesis.cuts import cutter, rotation, without
from vcgen.meshes.synthesis.draws import Draws
from vcgen.meshes.synthesis.paint import Paint, paint
from vcgen.meshes.synthesis.patterns import texture, waves
from vcgen.meshes.synthesis.polygons import Polygons
from vcgen.meshes.synthesis.primitives import Patch, Primitive, edges, patch_surface, primitive, raised

#: Of primitives in an object, at most.
MOST_PARTS = 9
PRIMITIVES: tuple[Primitive, ...] = ("cube", "sphere", "cylinder", "cone", "torus")
#: How often: a patch has a height field, an object a cut, and a wire frame; a patch one color instead of a texture.
BUMPY, CUT, WIRED, PLAIN = 0.35, 0.4, 0.2, 0.15
#: Half the size of cuts and wire frames, and the thickness of wires, where an object's radius is 0.5.
SIZES, WIRES = (0.15, 0.3), (0.005, 0.015)
#: Less than this part of an object is cut away at once.
MOST_CUT = 0.5


def make_object(random: np.random.Generator, kind: Paint = "vivid", most_parts: int = MOST_PARTS) -> Surface:
    """An object of 1 to ``most_parts`` primitives, its radius about 0.5."""
    draws = Draws(random)
    looks = [texture(draws, kind) for _ in range(draws.whole(2, 5))]
    surface = joined([_part(draws, kind, looks)])
    for _ in range(draws.whole(1, most_parts) - 1):
        surface = joined([surface, _at(_part(draws, kind, looks), _somewhere(draws, surface))])
    surface, _ = surface.fitted("sphere")
    if draws.chance(CUT):
        rest = without(surface, cutter(draws, _somewhere(draws, surface), draws.between(*SIZES)))
        surface = rest if _area(rest) > (1 - MOST_CUT) * _area(surface) else surface
    if draws.chance(WIRED):
        surface = joined([surface, _at(_wires(draws, kind), _somewhere(draws, surface))])
    return surface


def _part(draws: Draws, kind: Paint, looks: list[Tensor]) -> Surface:
    """One primitive, stretched and turned, each of its patches with a look of its own, or all with one."""
    shared = draws.pick(*looks) if draws.chance(0.5) else None
    surfaces = []
    for patch in primitive(draws.pick(*PRIMITIVES)):
        if draws.chance(BUMPY):
            patch = _bumpy(draws, patch)
        if draws.chance(PLAIN):
            rgb, look = to_linear(torch.tensor(paint(draws, kind), dtype=torch.float32)), None
        else:
            rgb, look = torch.ones(3), draws.pick(*looks) if shared is None else shared
        surfaces.append(patch_surface(patch, rgb, look, (draws.whole(1, 3), draws.whole(1, 2))))
    stretch = torch.tensor([draws.between(0.15, 0.6) for _ in range(3)], dtype=torch.float64)
    return joined(surfaces).moved(rotation(draws) @ torch.diag(stretch))


def _bumpy(draws: Draws, patch: Patch) -> Patch:
    return raised(patch, lambda u, v: draws.between(0.08, 0.3) * waves(draws, u, v, draws.whole(1, 3)))


def _wires(draws: Draws, kind: Paint) -> Surface:
    """The edges of a primitive as thin bars."""
    out, color, radius, size = Polygons(), paint(draws, kind), draws.between(*WIRES), draws.between(*SIZES)
    for start, end in size * edges(draws.pick(*PRIMITIVES)):
        out.bar(start, end, radius, 4, color)
    return out.surface().moved(rotation(draws))


def _somewhere(draws: Draws, surface: Surface) -> Tensor:
    """(3,) the middle of a face, evenly among them."""
    return surface.triangles[draws.whole(0, len(surface) - 1)].mean(0)


def _at(surface: Surface, place: Tensor) -> Surface:
    return replace(surface, triangles=surface.triangles + place)


def _area(surface: Surface) -> float:
    a, b, c = surface.triangles.unbind(1)
    return float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum()) / 2
