"""Removing lens distortion: the OpenCV model (Brown-Conrady), as in instant-ngp and nerfstudio transforms files."""

import functools
from typing import NamedTuple

import numpy as np

from vcgen.data.images.arrays import premultiply, unpremultiply
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


def distort(points: np.ndarray, lens: Distortion) -> np.ndarray:
    """Ideal camera coordinates (..., 2) -> where the real lens puts them (..., 2)."""
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (lens.k1 + r2 * (lens.k2 + r2 * (lens.k3 + r2 * lens.k4)))
    return np.stack(
        [
            x * radial + 2 * lens.p1 * x * y + lens.p2 * (r2 + 2 * x * x),
            y * radial + lens.p1 * (r2 + 2 * y * y) + 2 * lens.p2 * x * y,
        ],
        -1,
    )


def folds(size: tuple[int, int], K: np.ndarray, lens: Distortion) -> bool:
    """Whether the model puts two directions of an image (height, width) on one spot: it is then no lens, whatever it
    does at the border.

    Where it does not, the map's Jacobian has a positive determinant everywhere, as at the center, and the radius grows
    up to the corners."""
    u, v = np.meshgrid(*(np.linspace(0, 1, 2 * min(side, 256) + 1) for side in reversed(size)))
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    with np.errstate(over="ignore", invalid="ignore"):
        radius = np.linspace(0, np.hypot(x, y).max(), 4096)
        grows = np.diff(distort(np.stack([radius, 0 * radius], -1), lens._replace(p1=0.0, p2=0.0))[:, 0]) > 0
        r2 = x * x + y * y
        radial = 1 + r2 * (lens.k1 + r2 * (lens.k2 + r2 * (lens.k3 + r2 * lens.k4)))
        slope = 2 * (lens.k1 + r2 * (2 * lens.k2 + r2 * (3 * lens.k3 + r2 * 4 * lens.k4)))
        xx = radial + x * x * slope + 2 * lens.p1 * y + 6 * lens.p2 * x
        yy = radial + y * y * slope + 6 * lens.p1 * y + 2 * lens.p2 * x
        xy = x * y * slope + 2 * lens.p1 * x + 2 * lens.p2 * y
        return not (grows.all() and (xx * yy - xy * xy > 0).all())


def undistort(image: np.ndarray, K: np.ndarray, lens: Distortion) -> tuple[np.ndarray, np.ndarray]:
    """Resample an (H, W, C) image as an ideal pinhole would have taken it; returns it with its normalized (3, 3)
    intrinsics.

    The focal length grows just enough that every pixel of the result lies inside the image; the principal point stays.
    Bilinear. Raises UserError where the image folds over itself (:func:`folds`) or more than a threefold zoom would be
    needed."""
    if not any(lens):
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
def _sampling(size: tuple[int, int], K_flat: tuple[float, ...], lens: Distortion) -> tuple[np.ndarray, float]:
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


def _source_points(uv: np.ndarray, K: np.ndarray, lens: Distortion, zoom: float) -> np.ndarray:
    """Normalized points of the ideal image -> normalized points of the distorted one."""
    focal, center = K[[0, 1], [0, 1]], K[:2, 2]
    return distort((uv - center) / (focal * zoom), lens) * focal + center


def _smallest_zoom(border: np.ndarray, K: np.ndarray, lens: Distortion) -> float:
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


def _failed(what: str, lens: Distortion) -> UserError:
    values = ", ".join(f"{name} {value:g}" for name, value in lens._asdict().items() if value)
    advice = "solve again with fewer coefficients, or undistort the images with your camera solver"
    return UserError(f"the lens distortion ({values}) {what}: the camera solve failed; {advice}")
