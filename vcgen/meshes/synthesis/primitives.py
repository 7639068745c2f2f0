"""Cubes, spheres, cylinders, cones and tori of size 2 around the origin, as patches: grids of points that can be raised
by height fields.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vcgen.meshes.surface import Surface
from vcgen.rendering.meshes import Meshes

Primitive = Literal["cube", "sphere", "cylinder", "cone", "torus"]
Array = NDArray[np.float64]
#: Radius of a torus' tube, of those of its circle and tube together.
TUBE = 0.3


class Patch(NamedTuple):
    """points: (rows, columns, 3); seen from outside, columns run to the right and rows down. normals: of the same
    shape, not of unit length, along which a height field raises points. round: whether the last column is the first.
    joined: whether its first and last rows meet other patches or a point, so that they must stay.
    """

    points: Array
    normals: Array
    round: bool
    joined: bool


def primitive(kind: Primitive, detail: int = 8) -> list[Patch]:
    """The patches of one. detail: quads along the side of a cube."""
    sides = 3 * detail
    if kind == "cube":
        return _cube(detail)
    if kind == "sphere":
        return [_turned(lambda t: (np.sin(np.pi * t), np.cos(np.pi * t)), sides // 2 + 1, sides)]
    if kind == "torus":
        return [_torus(sides, sides // 2)]
    lid = _disc(1.0, sides)
    base = Patch(lid.points * [1, -1, -1], lid.normals * [1, -1, -1], True, True)
    if kind == "cone":
        return [_turned(lambda t: (t, 1 - 2 * t), detail + 1, sides), base]
    return [_turned(lambda t: (np.ones_like(t), 1 - 2 * t), detail + 1, sides), lid, base]


def raised(patch: Patch, height: Callable[[Array, Array], Array]) -> Patch:
    """The patch with points moved along the normals by ``height`` of u and v in [0, 1]; shared borders stay."""
    rows, columns = patch.points.shape[:2]
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    fade = np.ones_like(u)
    if patch.joined:
        fade = fade * np.sin(np.pi * v).round(12) ** 0.5
    if not patch.round:
        fade = fade * np.sin(np.pi * u).round(12) ** 0.5
    unit = patch.normals / np.linalg.norm(patch.normals, axis=-1, keepdims=True).clip(1e-9)
    points = patch.points + (height(u, v) * fade)[..., None] * unit
    if patch.round:
        points[:, -1] = points[:, 0]
    return patch._replace(points=points)


def patch_surface(patch: Patch, rgb: torch.Tensor, texture: torch.Tensor | None, repeats: tuple[int, int]) -> Surface:
    """Smooth inside. rgb: (3,) factor in linear light. repeats: of the texture along columns and rows."""
    rows, columns = patch.points.shape[:2]
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    faces = torch.tensor(np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], -2).reshape(-1, 3))
    mesh = Meshes(torch.tensor(patch.points.reshape(-1, 3)), faces).welded()
    kept = (mesh.faces != mesh.faces.roll(1, 1)).all(1)  # those at poles have two corners in one
    v, u = np.meshgrid(np.linspace(0, repeats[1], rows), np.linspace(0, repeats[0], columns), indexing="ij")
    uv = torch.tensor(np.stack([u, v], -1).reshape(-1, 2), dtype=torch.float32)[faces[kept]]
    flat = Surface.opaque(mesh.vertices[mesh.faces[kept]], rgb, uv, texture)
    normals = mesh.vertex_normals()[mesh.faces[kept]].float()
    usable = normals.norm(dim=-1, keepdim=True) > 0.5
    return replace(flat, normals=torch.where(usable, normals, flat.normals))


def edges(kind: Primitive) -> Array:
    """(n, 2, 3) ends of the lines of a coarse grid on a primitive, each once."""
    pairs = set()
    for patch in primitive(kind, 2):
        points = np.round(patch.points, 6) + 0.0
        for p, q in ((points[1:], points[:-1]), (points[:, 1:], points[:, :-1])):
            ends = np.stack([p, q], -2).reshape(-1, 2, 3)
            pairs |= {tuple(sorted(map(tuple, end.tolist()))) for end in ends if np.abs(end[0] - end[1]).max() > 1e-6}
    return np.array(sorted(pairs))


def _turned(profile: Callable[[Array], tuple[Array, Array]], rows: int, sides: int) -> Patch:
    """A profile, radius and z of t in [0, 1] from above down, turned about z."""
    t = np.linspace(0, 1, rows)
    radius, z = profile(t)
    radius = np.where(np.abs(radius) < 1e-9, 0.0, radius)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    circle[-1] = circle[0]
    points = np.concatenate(
        [radius[:, None, None] * circle, np.broadcast_to(z[:, None, None], (rows, sides + 1, 1))], -1
    )
    along, up = np.gradient(radius, t), np.gradient(z, t)
    slant = np.broadcast_to(along[:, None, None], (rows, sides + 1, 1))
    return Patch(points, np.concatenate([-up[:, None, None] * circle, slant], -1), True, True)


def _disc(z: float, sides: int) -> Patch:
    disc = _turned(lambda t: (t, np.full_like(t, z)), 5, sides)
    return disc._replace(normals=np.broadcast_to(np.array([0.0, 0, 1]), disc.points.shape))


def _torus(sides: int, around: int) -> Patch:
    angle = 2 * np.pi * np.linspace(0, 1, around + 1)
    ring = _turned(lambda t: (1 - TUBE + TUBE * np.sin(2 * np.pi * t), TUBE * np.cos(2 * np.pi * t)), around + 1, sides)
    flat = ring.points[..., :2] / np.linalg.norm(ring.points[..., :2], axis=-1, keepdims=True)
    points, rows = ring.points.copy(), angle[:, None, None]
    points[-1] = points[0]
    up = np.broadcast_to(np.cos(rows), (*flat.shape[:2], 1))
    return Patch(points, np.concatenate([np.sin(rows) * flat, up], -1), True, True)


def _cube(detail: int) -> list[Patch]:
    """Six squares."""
    line = np.linspace(-1, 1, detail + 1)
    up, right = np.meshgrid(-line, line, indexing="ij")
    front = np.stack([right, up, np.ones_like(up)], -1)  # seen from +z
    patches = []
    for axis in range(3):
        turned = np.roll(front, axis, -1)
        for sign in (1, -1):
            points = turned if sign > 0 else -turned[::-1]
            normal = np.roll([0.0, 0.0, sign], axis)
            patches.append(Patch(points, np.broadcast_to(normal, points.shape), False, True))
    return patches
