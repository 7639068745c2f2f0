"""Removing lens distortion: OpenCV's model (Brown-Conrady) as transforms files state it, or any of COLMAP's."""

import functools
from typing import NamedTuple

import numpy as np

from vcgen.data.images.arrays import premultiply, unpremultiply
from vcgen.data.images.lenses import Lens
from vcgen.errors import UserError

MAX_ZOOM = 3.0


class Distortion(NamedTuple):
    """Radial k1 to k4 and tangential p1, p2. Camera coordinates x = X/Z, y = Y/Z go to
    x (1 + k1 r2 + k2 r2^2 + k3 r2^3 + k4 r2^4) + 2 p1 x y + p2 (r2 + 2 x^2), likewise y, with r2 = x^2 + y^2 (OpenCV;
    nerfstudio's k4)."""

    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    p1: float = 0.0
    p2: float = 0.0

    def bend(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`vcgen.data.images.lenses.Lens.bend`."""
        r2 = x * x + y * y
        radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * (self.k3 + r2 * self.k4)))
        return (
            x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x),
            y * radial + self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y,
        )

    def is_straight(self) -> bool:
        """Whether every coefficient is 0."""
        return not any(self)

    def stated(self) -> dict[str, float]:
        """The coefficients by name."""
        return self._asdict()


def distort(points: np.ndarray, lens: Distortion | Lens) -> np.ndarray:
    """Ideal camera coordinates (..., 2) -> where the real lens puts them (..., 2)."""
    return np.stack(lens.bend(points[..., 0], points[..., 1]), -1)


def folds(size: tuple[int, int], K: np.ndarray, lens: Distortion | Lens) -> bool:
    """Whether the model puts two directions of an image (height, width) on one spot: it is then no lens, whatever it
    does at the border.

    Where it does not, the map's Jacobian has a positive determinant and a positive trace everywhere, as at the center:
    at the pixels, and closely along the lines from the principal point to the corners."""
    u, v = np.meshgrid(*(np.linspace(0, 1, 2 * min(side, 256) + 1) for side in reversed(size)))
    corners = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    lines = K[:2, 2] + np.linspace(0, 1, 4096)[:, None, None] * (corners - K[:2, 2])
    uv = np.concatenate([np.stack([u, v], -1).reshape(-1, 2), lines.reshape(-1, 2)])
    points, step = (uv - K[:2, 2]) / K[[0, 1], [0, 1]], 1e-5
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        slopes = [distort(points + ahead, lens) - distort(points - ahead, lens) for ahead in step * np.eye(2)]
        (xx, yx), (xy, yy) = (slope.T / (2 * step) for slope in slopes)
        return not ((xx * yy - xy * yx > 0) & (xx + yy > 0)).all()


def undistort(image: np.ndarray, K: np.ndarray, lens: Distortion | Lens) -> tuple[np.ndarray, np.ndarray]:
    """Resample an (H, W, C) image as an ideal pinhole would have taken it; returns it with its normalized (3, 3)
    intrinsics.

    The focal length grows just enough that every pixel of the result lies inside the image; the principal point stays.
    Of a fisheye's image that leaves the middle, as far as a pinhole of its focal length sees.
    Bilinear. Raises UserError where the image folds over itself (:func:`folds`) or more than a threefold zoom would be
    needed."""
    if lens.is_straight():
        return image, K
    if not (0 < K[0, 2] < 1 and 0 < K[1, 2] < 1):
        raise UserError(
            "lens distortion is not removed from crops whose principal point lies outside; undistort before you crop"
        )
    from skimage.transform import warp

    rows_columns, zoom = _sampling(image.shape[:2], tuple(K.flatten().tolist()), lens)
    premultiplied = premultiply(image)
    channels = [warp(premultiplied[..., c], rows_columns, order=1, mode="edge") for c in range(image.shape[2])]
    return unpremultiply(np.stack(channels, -1).astype(np.float32)), K * np.array(
        [[zoom, 1, 1], [1, zoom, 1], [1, 1, 1]]
    )


@functools.lru_cache(maxsize=1)
def _sampling(size: tuple[int, int], K_flat: tuple[float, ...], lens: Distortion | Lens) -> tuple[np.ndarray, float]:
    """(2, H, W) rows and columns at which to read the distorted image, and the zoom on the focal length."""
    K = np.array(K_flat).reshape(3, 3)
    height, width = size
    if folds(size, K, lens):
        raise _failed("folds the image over itself", lens)
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    border = np.concatenate([np.stack([u, v], -1)[rows, columns].reshape(-1, 2) for rows, columns in _BORDERS])
    zoom = _smallest_zoom(border, K, lens)
    source = _source_points(np.stack([u, v], -1), K, lens, zoom)
    return np.stack([source[..., 1] * height - 0.5, source[..., 0] * width - 0.5]), zoom


_BORDERS = ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1))


def _source_points(uv: np.ndarray, K: np.ndarray, lens: Distortion | Lens, zoom: float) -> np.ndarray:
    """Normalized points of the ideal image -> normalized points of the distorted one."""
    focal, center = K[[0, 1], [0, 1]], K[:2, 2]
    return distort((uv - center) / (focal * zoom), lens) * focal + center


def _smallest_zoom(border: np.ndarray, K: np.ndarray, lens: Distortion | Lens) -> float:
    """The smallest factor >= 1 on the focal length for which the border falls inside the distorted image, to 1e-4."""

    def fits(zoom: float) -> bool:
        source = _source_points(border, K, lens, zoom)
        return bool((source >= 0).all() and (source <= 1).all())

    if fits(1.0):
        return 1.0
    low, high = 1.0, MAX_ZOOM
    if not fits(high):
        raise _failed("is too strong to be removed", lens)
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _failed(what: str, lens: Distortion | Lens) -> UserError:
    values = ", ".join(f"{name} {value:g}" for name, value in lens.stated().items() if value)
    advice = "solve again with fewer coefficients, or undistort the images with your camera solver"
    return UserError(f"the lens distortion ({values}) {what}: the camera solve failed; {advice}")
