"""Textures of meshes: colors of points on a surface, kept in the texels of an atlas."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.rendering.atlas import charts_at_hand, size_for, unwrap
from vcgen.rendering.marching_cubes import colors_from_outside
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import rasterize
from vcgen.types import Field
from vcgen.visualization.images import to_uint8
from vcgen.visualization.mesh_files import Texture

if TYPE_CHECKING:
    import trimesh

#: Points of a surface (n, 3) and unit vectors into it (n, 3) -> colors (n, 3) in [0, 1].
Colors = Callable[[Tensor, Tensor], Tensor]
#: Texels around a chart that continue it, for readers that look between texels, and at mipmaps.
GUTTER = 4


@torch.no_grad()
def bake(mesh: "trimesh.Trimesh", colors: Colors, size: int | None = None, chunk: int = 2**15) -> Texture:
    """A texture each of whose texels has the color of the point on the mesh that lies at its center; within GUTTER of a
    face that of its plane; elsewhere the mean.

    size: texels along a side; None is what the faces need, 1024 at least. chunk: texels per call of ``colors``. Raises
    UserError where the faces do not fit, see :func:`vcgen.rendering.atlas.unwrap`."""
    size = size or size_for(len(mesh.faces))
    uv = unwrap(np.asarray(mesh.vertices), np.asarray(mesh.faces), size)
    face, texel = _faces_of_texels(torch.as_tensor(uv), size)
    corners = np.asarray(mesh.faces)[face]
    weights = _weights(uv[face], np.stack([texel % size + 0.5, texel // size + 0.5], 1) / size)
    points, normals = (
        np.einsum("nc,ncd->nd", weights, values[corners]) for values in (mesh.vertices, np.array(mesh.vertex_normals))
    )
    inward = -normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    parts = [torch.as_tensor(part, dtype=torch.float32).split(chunk) for part in (points, inward)]
    found = torch.cat([colors(*part).float().cpu() for part in zip(*parts, strict=True)])
    image = found.mean(0).expand(size * size, 3).index_put((torch.as_tensor(texel),), found)
    return Texture(uv, to_uint8(image.reshape(size, size, 3).movedim(-1, 0)))


def described(texture: Texture) -> str:
    """For the user: its size and atlas."""
    atlas = "charts by xatlas" if charts_at_hand() else "a patch for each triangle; for charts install xatlas"
    return f"texture of {len(texture.image)} x {len(texture.image)} texels ({atlas})"


def field_colors(field: Field, spacing: float) -> Colors:
    """The colors of the first scene of a field as they are seen from outside, see :func:`colors_from_outside`."""

    def colors(points: Tensor, inward: Tensor) -> Tensor:
        return colors_from_outside(field, points.to(field.center), inward.to(field.center), spacing)

    return colors


def _faces_of_texels(uv: Tensor, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Face and number of each texel that a face covers or is near, row by row: a camera looks straight at the atlas."""
    from scipy.ndimage import distance_transform_edt

    flat = torch.cat([uv.reshape(-1, 2), torch.ones(uv.numel() // 2, 1)], 1)
    one = torch.ones(1)
    camera = Cameras(torch.eye(4)[None], torch.eye(3)[None], one / 2, 2 * one)
    face = rasterize(Meshes(flat, torch.arange(len(flat)).reshape(-1, 3)), camera, (size, size)).face[0].numpy()
    distance, (row, column) = distance_transform_edt(face < 0, return_indices=True)
    texel = np.flatnonzero(distance <= GUTTER)
    return face[row, column].reshape(-1)[texel], texel


def _weights(corners: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3) barycentric coordinates of points (n, 2) in triangles (n, 3, 2), also of those outside."""
    (ax, ay), (bx, by) = ((corners[:, i] - corners[:, 2]).T for i in (0, 1))
    x, y = (points - corners[:, 2]).T
    area = ax * by - ay * bx
    area = np.where(area == 0, 1, area)
    first, second = (x * by - y * bx) / area, (ax * y - ay * x) / area
    return np.stack([first, second, 1 - first - second], 1)
