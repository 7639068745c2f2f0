"""Pictures of triangle meshes by a z-buffer: what a prior that knows the object would say of any camera."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.evaluation.geometry import lattice_hits

#: Two suns and a white sky, as in the renderings of the objects (no shadows here): irradiance, Euler angles.
SUNS = (2.4, (0.9, 0.15, 0.6)), (0.7, (1.1, 0.0, -2.2))
SKY = 0.6


def rasterise(triangles: NDArray, corner_rgb: NDArray, cameras: Cameras, size: int, finer: int = 3) -> tuple[Tensor, Tensor]:
    """Straight colour (n, 3, size, size) and coverage (n, 1, size, size), both in [0, 1], of n cameras.

    triangles: (faces, 3, 3) world corners, all in front of the cameras; corner_rgb: (faces, 3, 3) sRGB in [0, 1]. Faces are flat, matt and
    seen from both sides. finer: samples along each side of a pixel.
    """
    drawn = [_draw(triangles, corner_rgb, cameras[i : i + 1], size * finer) for i in range(len(cameras.near))]
    premultiplied = torch.from_numpy(np.stack(drawn)).float().movedim(-1, 1)
    pooled = torch.nn.functional.avg_pool2d(premultiplied, finer)
    alpha = pooled[:, 3:]
    return (pooled[:, :3] / alpha.clamp(min=1e-6)).clamp(0, 1), alpha


def _draw(triangles: NDArray, corner_rgb: NDArray, camera: Cameras, size: int) -> NDArray:
    """(size, size, 4) premultiplied, one sample per pixel."""
    points, depth = camera.project(torch.tensor(triangles.reshape(1, -1, 3)).float())
    flat, inverse = points.double().numpy().reshape(-1, 3, 2), 1 / depth.double().numpy().reshape(-1, 3)
    # moved by an irrational ten-thousandth of a pixel: a sample on an edge that two faces share would be missed by both
    hits = lattice_hits(flat, *((np.arange(size) + 0.5 + 1e-4 * shift) / size for shift in (np.sqrt(2) - 1, np.sqrt(3) - 1)))
    # 1 / z, and colour / z, are linear in the picture
    weights = hits.weights * inverse[hits.face]
    nearness = weights.sum(-1)
    order = np.argsort(nearness)  # the nearest is written last
    picture = np.zeros((size, size, 4))
    colour = (weights[..., None] / nearness[:, None, None] * lit(triangles, corner_rgb, camera)[hits.face]).sum(1)
    picture[hits.second[order], hits.first[order], :3] = to_srgb(colour[order])
    picture[hits.second[order], hits.first[order], 3] = 1
    return picture


def lit(triangles: NDArray, corner_rgb: NDArray, camera: Cameras) -> NDArray:
    """Linear radiance (faces, 3, 3) at the corners."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    towards = camera.centers[0].double().numpy() - triangles.mean(1)
    normals *= np.where((normals * towards).sum(1, keepdims=True) < 0, -1, 1)
    light = SKY + sum(energy / np.pi * (normals @ sun_direction(*angles)).clip(0) for energy, angles in SUNS)
    return light[:, None, None] * to_linear(corner_rgb)


def sun_direction(x: float, y: float, z: float) -> NDArray:
    """From the object to a sun that was turned by Euler angles about x, y and z: where its own z axis, which it shines against, points."""
    up = np.array([0, 0, 1.0])
    up = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]) @ up
    up = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]) @ up
    return np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]) @ up


def to_linear(srgb: NDArray) -> NDArray:
    """sRGB in [0, 1] -> linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: NDArray) -> NDArray:
    """Linear light, clipped at white, -> sRGB in [0, 1]."""
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
