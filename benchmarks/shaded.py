"""Images of surfaces whose shape and color are known, under the given renderings' lights: what a prior that knows the
object would say of any camera."""

import math

import torch
from numpy.typing import NDArray
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import rasterize

#: Two suns and a white sky, as in the renderings of the objects (no shadows here): irradiance, Euler angles.
SUNS = (2.4, (0.9, 0.15, 0.6)), (0.7, (1.1, 0.0, -2.2))
SKY = 0.6


def draw(triangles: NDArray, corner_rgb: NDArray, cameras: Cameras, size: int, finer: int = 3) -> tuple[Tensor, Tensor]:
    """Straight color (n, 3, size, size) and coverage (n, 1, size, size), both in [0, 1], of n cameras.

    triangles: (faces, 3, 3) world corners; corner_rgb: (faces, 3, 3) sRGB in [0, 1]. Faces are flat, matt and seen from
        both sides.
    finer: samples along each side of a pixel.
    """
    corners = torch.tensor(triangles, dtype=torch.float64).reshape(-1, 3)
    raster = rasterize(
        Meshes(corners, torch.arange(len(corners)).reshape(-1, 3)), cameras, (size * finer, size * finer)
    )
    colors = light(raster.normals())[:, None] * raster.interpolate(
        to_linear(torch.tensor(corner_rgb, dtype=torch.float64))
    )
    premultiplied = raster.image(torch.cat([to_srgb(colors), torch.ones_like(colors[:, :1])], 1)).float()
    pooled = torch.nn.functional.avg_pool2d(premultiplied, finer)
    alpha = pooled[:, 3:]
    return (pooled[:, :3] / alpha.clamp(min=1e-6)).clamp(0, 1), alpha


def light(normals: Tensor) -> Tensor:
    """(m,) linear radiance, over the albedo, of matt surfaces with unit normals (m, 3)."""
    return SKY + sum(
        energy / math.pi * (normals @ sun_direction(*angles).to(normals)).clamp(min=0) for energy, angles in SUNS
    )


def sun_direction(x: float, y: float, z: float) -> Tensor:
    """From the object to a sun that was turned by Euler angles about x, y and z: where its own z axis, which it shines
    against, points.
    """
    across = torch.tensor([math.sin(y) * math.cos(x), -math.sin(x), math.cos(y) * math.cos(x)], dtype=torch.float64)
    return torch.stack(
        [
            math.cos(z) * across[0] - math.sin(z) * across[1],
            math.sin(z) * across[0] + math.cos(z) * across[1],
            across[2],
        ]
    )


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> linear light."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light, clipped at white, -> sRGB in [0, 1]."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
