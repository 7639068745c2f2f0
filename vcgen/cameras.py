"""Cameras, rays, projections, orbits, and conversions from other conventions.

One convention everywhere: camera-to-world 4 x 4 with OpenCV axes (x right, y down, z forward); intrinsics normalized by
the image size (fx/W, fy/H, cx/W, cy/H), so they survive resizing; pixel centers at +0.5; ray parameter = Euclidean
distance (unit directions)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vcgen.rays import Rays
from vcgen.tensors import require

#: Right-multiply a camera-to-world matrix with OpenGL/Blender axes (x right, y up, z backward) to get OpenCV axes. Its
#: own inverse.
OPENGL_TO_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
#: The same for PyTorch3D axes (x left, y up, z forward). Its own inverse.
PYTORCH3D_TO_OPENCV = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras; ``...`` is any batch shape.

    c2w: (..., 4, 4) camera-to-world, OpenCV axes. K: (..., 3, 3) normalized intrinsics, no skew.
    near, far: (...) Euclidean distances in world units.
    """

    c2w: Float[Tensor, "*batch 4 4"]
    K: Float[Tensor, "*batch 3 3"]
    near: Float[Tensor, "*batch"]
    far: Float[Tensor, "*batch"]

    @property
    def shape(self) -> torch.Size:
        """The batch shape."""
        return self.near.shape

    @property
    def centers(self) -> Float[Tensor, "*batch 3"]:
        """(..., 3) positions in the world."""
        return self.c2w[..., :3, 3]

    def __getitem__(self, index: Any) -> "Cameras":
        if any(part is ... for part in (index if isinstance(index, tuple) else (index,))):
            raise IndexError(
                "Cameras and Views cannot be indexed with `...`, which would reach into the matrices; write out the `:`"
            )
        return Cameras(self.c2w[index], self.K[index], self.near[index], self.far[index])

    def to(self, *args: Any, **kwargs: Any) -> "Cameras":
        """Move every tensor, as ``Tensor.to`` does."""
        return Cameras(*(x.to(*args, **kwargs) for x in (self.c2w, self.K, self.near, self.far)))

    def reshape(self, *shape: int) -> "Cameras":
        """The same cameras in another batch shape."""
        return Cameras(
            self.c2w.reshape(*shape, 4, 4),
            self.K.reshape(*shape, 3, 3),
            self.near.reshape(shape),
            self.far.reshape(shape),
        )

    @staticmethod
    def cat(parts: "Sequence[Cameras]", dim: int = 0) -> "Cameras":
        """Cameras one after another along a batch dimension, which counts from the front (``dim >= 0``)."""
        return Cameras(
            *(torch.cat([getattr(part, name) for part in parts], dim) for name in ("c2w", "K", "near", "far"))
        )

    def rays(self, height: int, width: int) -> Rays:
        """Rays (..., height * width) through all pixel centers, row by row."""
        return self.rays_at(pixel_centers(height, width, self.c2w.device, self.c2w.dtype))

    def rays_at(self, uv: Float[Tensor, "*batch n 2"]) -> Rays:
        """Rays (..., n) through image points ``uv``: (n, 2) or (..., n, 2), normalized, (0, 0) top left and (1, 1)
        bottom right corner.
        """
        focal = torch.stack([self.K[..., 0, 0], self.K[..., 1, 1]], -1)[..., None, :]
        xy = (uv - self.K[..., None, :2, 2]) / focal
        local = torch.nn.functional.normalize(torch.cat([xy, torch.ones_like(xy[..., :1])], -1), dim=-1)
        directions = rotate(local, self.c2w[..., :3, :3])
        near, far = (x[..., None].expand(directions.shape[:-1]) for x in (self.near, self.far))
        return Rays(self.centers[..., None, :].expand_as(directions), directions, near, far)

    def project(self, points: Float[Tensor, "*_ n 3"]) -> tuple[Float[Tensor, "*batch n 2"], Float[Tensor, "*batch n"]]:
        """World points (..., n, 3) -> normalized image points (..., n, 2) and z-depth (..., n), negative behind the
        camera.
        """
        local = rotate(points - self.centers[..., None, :], self.c2w[..., :3, :3].transpose(-1, -2))
        z = local[..., 2]
        focal = torch.stack([self.K[..., 0, 0], self.K[..., 1, 1]], -1)[..., None, :]
        return local[..., :2] / z[..., None] * focal + self.K[..., None, :2, 2], z


def rotate(
    vectors: Float[Tensor, "*#batch n 3"], rotation: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch n 3"]:
    """Multiply vectors (..., n, 3) by matrices (..., 3, 3), in the precision of the inputs.

    Written out because a matrix product would be rounded to bfloat16 by autocast, or to TF32 by
    ``set_float32_matmul_precision``: half a pixel at 128 x 128."""
    x, y, z = vectors.split(1, dim=-1)
    columns = rotation[..., None, :, :]
    return x * columns[..., 0] + y * columns[..., 1] + z * columns[..., 2]


def pixel_centers(
    height: int, width: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "pixels 2"]:
    """(height * width, 2) normalized (u, v) of all pixel centers, row by row: u = (column + 0.5) / width."""
    v, u = torch.meshgrid(
        (torch.arange(height, device=device, dtype=dtype) + 0.5) / height,
        (torch.arange(width, device=device, dtype=dtype) + 0.5) / width,
        indexing="ij",
    )
    return torch.stack([u, v], -1).reshape(-1, 2)


def pinhole(
    focal_x: float, focal_y: float | None = None, center_x: float = 0.5, center_y: float = 0.5
) -> Float[Tensor, "3 3"]:
    """(3, 3) intrinsics from values already normalized by width (x) and height (y)."""
    focal_y = focal_x if focal_y is None else focal_y
    return torch.tensor([[focal_x, 0.0, center_x], [0.0, focal_y, center_y], [0.0, 0.0, 1.0]])


def normalize_intrinsics(K_pixels: Float[Tensor, "*batch 3 3"], height: int, width: int) -> Float[Tensor, "*batch 3 3"]:
    """(..., 3, 3) intrinsics in pixels -> normalized."""
    return K_pixels / torch.tensor([width, height, 1.0], dtype=K_pixels.dtype, device=K_pixels.device)[:, None]


def rigid_inverse(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of (..., 4, 4) rigid transforms, exact for orthonormal rotations."""
    rotation_t = transform[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(transform)
    inverse[..., :3, :3] = rotation_t
    inverse[..., :3, 3] = -rotate(transform[..., None, :3, 3], rotation_t)[..., 0, :]
    inverse[..., 3, 3] = 1
    return inverse


def look_at(
    eye: Float[Tensor, "*#batch 3"], target: Float[Tensor, "*#batch 3"], up: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world (..., 4, 4) at ``eye`` looking at ``target`` with image-up towards ``up``; all (..., 3) in the
    world.

    Raises ValueError where ``up`` is parallel to the viewing direction (or ``eye`` is ``target``): the roll is then
    undefined."""
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    right = torch.linalg.cross(forward, torch.nn.functional.normalize(up, dim=-1).expand_as(forward))
    require(
        ~(right.norm(dim=-1) < 1e-6).any(),
        "look_at: `up` is parallel to the viewing direction, or `eye` equals `target`; choose another `up`",
    )
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    c2w = torch.zeros(*forward.shape[:-1], 4, 4, dtype=forward.dtype, device=forward.device)
    c2w[..., :3, :] = torch.stack([right, down, forward, eye.expand_as(forward)], -1)
    c2w[..., 3, 3] = 1
    return c2w


def orbit(
    azimuth: Float[Tensor, " n"],
    elevation: Float[Tensor, " n"],
    distance: float,
    K: Float[Tensor, "3 3"],
    near: float,
    far: float,
) -> Cameras:
    """Cameras on a sphere around the origin of a z-up world, looking at the origin.

    azimuth, elevation: (n,) degrees; azimuth 0 looks along +y from -y and grows counter-clockwise seen from above. K:
    (3, 3) normalized."""
    a, e = torch.deg2rad(azimuth - 90), torch.deg2rad(elevation)
    eye = distance * torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], -1)
    # the direction of growing elevation: towards the world's up, and defined at the poles, where the world's up is not
    up = torch.stack([-e.sin() * a.cos(), -e.sin() * a.sin(), e.cos()], -1)
    c2w = look_at(eye, torch.zeros_like(eye), up)
    full = torch.ones(len(eye), dtype=eye.dtype, device=eye.device)
    return Cameras(c2w, K.to(eye).expand(len(eye), 3, 3), near * full, far * full)


def view_angles(centers: Float[Tensor, "*batch 3"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Azimuth and elevation in degrees of positions (..., 3) in a z-up world; the inverse of :func:`orbit`."""
    azimuth = torch.rad2deg(torch.atan2(centers[..., 1], centers[..., 0])) + 90
    # not asin(z / norm): at the poles it loses half the digits, or rounds past 1 to NaN
    elevation = torch.rad2deg(torch.atan2(centers[..., 2], centers[..., :2].norm(dim=-1)))
    return torch.remainder(azimuth, 360), elevation


def pytorch3d_to_c2w(R: Float[Tensor, "*batch 3 3"], T: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """PyTorch3D's world-to-camera ``x_cam = x_world R + T`` (row vectors; R (..., 3, 3), T (..., 3)) -> OpenCV
    camera-to-world.
    """
    w2c = torch.zeros(*R.shape[:-2], 4, 4, dtype=R.dtype, device=R.device)
    w2c[..., :3, :3] = R.transpose(-1, -2)
    w2c[..., :3, 3] = T
    w2c[..., 3, 3] = 1
    return rigid_inverse(w2c) @ PYTORCH3D_TO_OPENCV.to(R)


def colmap_to_c2w(
    quaternion: Float[Tensor, "*batch 4"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """COLMAP's world-to-camera quaternion (..., 4) as (w, x, y, z) and translation (..., 3) -> OpenCV
    camera-to-world.
    """
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    w2c = torch.zeros(*quaternion.shape[:-1], 4, 4, dtype=quaternion.dtype, device=quaternion.device)
    w2c[..., :3, :3] = torch.stack(rows, -2)
    w2c[..., :3, 3] = translation
    w2c[..., 3, 3] = 1
    return rigid_inverse(w2c)


def focal_from_fov(degrees: float) -> float:
    """Normalized focal length of a horizontal field of view in degrees."""
    return 0.5 / math.tan(math.radians(degrees) / 2)
