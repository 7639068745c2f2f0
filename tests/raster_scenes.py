"""Meshes and cameras for the tests of the rasterizer, and the same question answered by brute force."""

import math

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from torch import Tensor

from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.rendering.meshes import Meshes


def straight(width: float, height: float | None = None) -> Cameras:
    """At the origin, looking along +z with x right and y down: at z = 1 the image of that many pixels shows x from 0 to
    ``width``.
    """
    K = torch.tensor([[1 / width, 0, 0], [0, 1 / (height or width), 0], [0, 0, 1.0]], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return Cameras(torch.eye(4, dtype=torch.float64)[None], K[None], one / 10, one * 10)


def around(views: int = 1) -> Cameras:
    """At distance 1.3 of the origin, in float64, the principal point a little off the middle."""
    angles = torch.arange(views, dtype=torch.float64)
    return orbit(20 + 100 * angles, 15 - 20 * angles, 1.3, pinhole(1.0, 1.1, 0.48, 0.53), 0.8, 1.8)


def bumpy(subdivisions: int, dtype: torch.dtype = torch.float64) -> Meshes:
    """A closed surface of 20 * 4^subdivisions faces, nowhere symmetric, that fits a sphere of radius 0.5."""
    ball = trimesh.creation.icosphere(subdivisions)
    v = torch.tensor(ball.vertices, dtype=dtype)
    return Meshes(v * (0.4 + 0.06 * torch.sin(5 * v[:, :1]) * torch.cos(4 * v[:, 1:2] + 1)), torch.tensor(ball.faces))


def flat(*corners: tuple[float, ...], z: float = 1.0) -> Meshes:
    """A fan of faces around the first of some corners (x, y) or (x, y, z): a convex polygon."""
    faces = torch.tensor([[0, i, i + 1] for i in range(1, len(corners) - 1)])
    return Meshes(torch.tensor([(*corner, z)[:3] for corner in corners], dtype=torch.float64), faces)


def soup(count: int, extent: float, seed: int = 0) -> Meshes:
    """Faces without common vertices, of about that extent, in front of :func:`around`'s first camera, beside it and
    behind it.
    """
    drawn = torch.Generator().manual_seed(seed)
    centers = torch.rand(count, 1, 3, generator=drawn, dtype=torch.float64) - 0.5
    corners = centers + extent * (torch.rand(count, 3, 3, generator=drawn, dtype=torch.float64) - 0.5)
    return Meshes(corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3))


def cast(meshes: Meshes, camera: Cameras, size: tuple[int, int], clip: float) -> tuple[NDArray, NDArray, NDArray]:
    """Möller and Trumbore's test (1997) of the ray through every pixel's center with every face, in numpy.

    Returns the nearest face beyond the plane z = clip (height * width,), -1 where there is none, its distance and its
    barycentric weights."""
    rays = camera.rays(*size)[0]
    origin, ray = rays.origins.numpy(), rays.directions.numpy()
    along = ray @ camera.c2w[0, :3, 2].numpy()
    a, b, c = meshes.vertices[meshes.faces].numpy().transpose(1, 0, 2)
    first, second, start = b - a, c - a, origin[0] - a
    p = np.cross(ray[:, None], second)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / (p * first).sum(-1)
        u = (p * start).sum(-1) * inverse
        q = np.cross(start, first)
        v = (ray @ q.T) * inverse
        distance = (second * q).sum(-1) * inverse
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance * along[:, None] >= clip)
    distance = np.where(hit, distance, np.inf)
    face, pixel = distance.argmin(1), np.arange(len(ray))
    weights = np.stack([1 - u - v, u, v], -1)[pixel, face]
    return np.where(hit.any(1), face, -1), distance[pixel, face], weights


def slope(function, at: Tensor, direction: Tensor, step: float = 1e-6) -> float:
    """The derivative of a number along a direction, by central differences."""
    return float(function(at + step * direction) - function(at - step * direction)) / (2 * step)


def relative(found: float, expected: float) -> float:
    """How far a number is off, as a fraction."""
    return abs(found - expected) / max(abs(expected), math.ulp(1))
