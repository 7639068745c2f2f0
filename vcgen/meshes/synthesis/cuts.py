"""Parts cut out of a surface exactly: what lies inside a convex polyhedron is taken away, and the inside shows."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vcgen.meshes.surface import Surface
from vcgen.meshes.synthesis.draws import Draws

#: What corners have.
AT_CORNERS = ("triangles", "normals", "uv", "rgba")
#: Slivers with less than half this area are left out.
LEAST_AREA = 1e-12


def cutter(draws: Draws, center: Tensor, size: float) -> Tensor:
    """(k, 4) planes of a cube, a prism, a cone or a ball of flat sides, turned at random: inside, n . x < d for all."""
    kind = draws.pick("cube", "prism", "cone", "ball")
    if kind == "ball":
        normals = np.array([direction(draws.random) for _ in range(24)])
    else:
        sides = 4 if kind == "cube" else 10
        angle, slope = 2 * np.pi * np.arange(sides) / sides, 0.5 if kind == "cone" else 0.0
        normals = np.stack([np.cos(angle), np.sin(angle), np.full(sides, slope)], 1) / np.hypot(1, slope)
        ends = [[0.0, 0, -1]] if kind == "cone" else [[0.0, 0, 1], [0, 0, -1]]
        normals = np.concatenate([normals, ends])
    n = torch.tensor(normals) @ rotation(draws).T
    return torch.cat([n, (n @ center + size)[:, None]], 1)


def without(surface: Surface, planes: Tensor) -> Surface:
    """The part of a surface that does not lie inside all of ``planes``: faces are split along them."""
    parts = [getattr(surface, name).double() for name in AT_CORNERS]
    widths = [part.shape[-1] for part in parts]
    inside, owner = torch.cat(parts, -1), torch.arange(len(surface))
    kept, owners = [], []
    for plane in planes:
        outside, of_outside, inside, owner = _split(inside, owner, inside[..., :3] @ plane[:3] - plane[3])
        kept.append(outside)
        owners.append(of_outside)
    values, owner = torch.cat(kept), torch.cat(owners)
    a, b, c = values[..., :3].unbind(1)
    owner = torch.where(torch.linalg.cross(b - a, c - a).norm(dim=1) > LEAST_AREA, owner, len(surface))
    order = owner.argsort(stable=True)[: int((owner < len(surface)).sum())]
    values, owner = values[order], owner[order]
    each = {name: value[owner] for name, value in vars(surface).items() if name not in (*AT_CORNERS, "textures")}
    corners = {
        name: value.to(getattr(surface, name).dtype)
        for name, value in zip(AT_CORNERS, values.split(widths, -1), strict=True)
    }
    corners["normals"] = torch.nn.functional.normalize(corners["normals"], dim=-1)
    return replace(surface, **each, **corners)


def rotation(draws: Draws) -> Tensor:
    """(3, 3) evenly among all rotations."""
    w, x, y, z = draws.random.normal(size=4).tolist()
    length = (w * w + x * x + y * y + z * z) ** 0.5
    w, x, y, z = w / length, x / length, y / length, z / length
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor(rows, dtype=torch.float64)


def direction(random: np.random.Generator) -> np.ndarray:
    """A unit vector (3,), evenly all round."""
    vector = random.normal(size=3)
    return vector / np.linalg.norm(vector)


def _split(values: Tensor, owner: Tensor, distance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Faces (F, 3, C) by a plane, signed distances (F, 3): those in front and their owners, and those behind."""
    front = distance > 0
    count = front.sum(1)
    crossing = (count == 1) | (count == 2)
    lone = torch.where(count == 1, front.int().argmax(1), (~front).int().argmax(1))  # the corner alone on its side
    order = (lone[crossing, None] + torch.arange(3)) % 3
    rows = torch.arange(len(order))[:, None]
    (a, b, c), d = values[crossing][rows, order].unbind(1), distance[crossing][rows, order]
    p, q = (a + (d[:, :1] / (d[:, :1] - d[:, k : k + 1])) * (other - a) for k, other in ((1, b), (2, c)))
    tip = torch.stack([a, p, q], 1)
    rest = torch.cat([torch.stack([p, b, c], 1), torch.stack([p, c, q], 1)])
    first, own = (count == 1)[crossing], owner[crossing]
    twice, own_twice = first.repeat(2), own.repeat(2)
    in_front = [values[count == 3], tip[first], rest[~twice]], [owner[count == 3], own[first], own_twice[~twice]]
    behind = [values[count == 0], tip[~first], rest[twice]], [owner[count == 0], own[~first], own_twice[twice]]
    return torch.cat(in_front[0]), torch.cat(in_front[1]), torch.cat(behind[0]), torch.cat(behind[1])
