"""Depth and normals of a surface at the centers of pixels, exact to the faces: nothing is averaged."""

import torch
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.meshes.draw import LAYERS, Drawable, backs, colors, shown
from vcgen.meshes.surface import OPAQUE
from vcgen.rendering.rasterizer import rasterize

#: Alpha from which a point hides what is behind it.
OPACITY = 0.5


def buffers(scene: Drawable, camera: Cameras, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What one camera (shape ()) sees: (height, width) float64 Euclidean distances, and (height, width, 3) unit normals
    in the world, interpolated as light takes them, turned to the camera; both 0 where nothing is hit.
    """
    count = size[0] * size[1]
    distance, normals = torch.zeros(count, dtype=torch.float64), torch.zeros(count, 3, dtype=torch.float64)
    visible, raster = shown(scene, camera), None
    for _ in range(LAYERS if bool((scene.surface.mode != OPAQUE).any()) else 1):
        raster = rasterize(*visible, size, behind=raster)
        new = (colors(scene, raster, camera)[:, 3] >= OPACITY) & (distance[raster.pixels] == 0)
        places, faces = raster.pixels[new], raster.faces[new]
        distance[places] = raster.distance()[new].double()
        side = torch.where(backs(scene.surface, camera.centers.double(), faces), -1.0, 1.0).double()
        mixed = (raster.weights[new, :, None].double() * scene.surface.normals[faces].double()).sum(1)
        normals[places] = torch.nn.functional.normalize(side[:, None] * mixed, dim=-1)
        if not len(raster.pixels):
            break
    return distance.reshape(size), normals.reshape(*size, 3)
