"""The camera models that COLMAP knows: where each lens puts what an ideal pinhole would show.

Formulas and the order of parameters are those of COLMAP's ``src/colmap/sensor/models.h``; the models named OPENCV are
OpenCV's, RAD_TAN_THIN_PRISM_FISHEYE is Project Aria's Fisheye624, EUCM is of Khomutenko et al. 2016, FOV of Devernay
and Faugeras 2001.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
#: Coordinates x = X/Z, y = Y/Z of an ideal pinhole and the coefficients -> coordinates in the image, focal length 1.
Bend = Callable[..., Pair]


class CameraModel(NamedTuple):
    """One of COLMAP's. number: in binary files. focals: 1 or 2, how many focal lengths come first; the principal point
    follows, then the ``coefficients``, by name.
    """

    number: int
    focals: int
    coefficients: tuple[str, ...]
    bend: Bend

    @property
    def parameters(self) -> int:
        """How many numbers a camera of this model has."""
        return self.focals + 2 + len(self.coefficients)


class Lens(NamedTuple):
    """The distortion of one camera: a name in ``CAMERA_MODELS`` and that model's coefficients."""

    model: str
    coefficients: tuple[float, ...]

    def bend(self, x: np.ndarray, y: np.ndarray) -> Pair:
        """Coordinates of an ideal pinhole of focal length 1 -> those in the image."""
        return CAMERA_MODELS[self.model].bend(x, y, *self.coefficients)

    def is_straight(self) -> bool:
        """Whether the image is a pinhole's already."""
        return CAMERA_MODELS[self.model].bend in PERSPECTIVE and not any(self.coefficients)

    def stated(self) -> dict[str, float]:
        """The coefficients by name."""
        return dict(zip(CAMERA_MODELS[self.model].coefficients, self.coefficients, strict=True))


def _polynomial(t: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """1 + c0 t + c1 t^2 + ... ."""
    total = np.zeros_like(t)
    for coefficient in reversed(coefficients):
        total = t * (coefficient + total)
    return 1 + total


def _tangential(x: np.ndarray, y: np.ndarray, p1: float, p2: float) -> Pair:
    r2 = x * x + y * y
    return 2 * p1 * x * y + p2 * (r2 + 2 * x * x), 2 * p2 * x * y + p1 * (r2 + 2 * y * y)


def _equidistant(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An ideal fisheye's coordinates, and the angle from the optical axis that is their length."""
    radius = np.hypot(x, y)
    theta = np.arctan(radius)
    factor = np.divide(theta, radius, out=np.ones_like(radius), where=radius > 0)
    return x * factor, y * factor, theta


def _radial(x: np.ndarray, y: np.ndarray, *k: float) -> Pair:
    factor = _polynomial(x * x + y * y, k)
    return x * factor, y * factor


def _opencv(
    x: np.ndarray,
    y: np.ndarray,
    k1: float,
    k2: float,
    p1: float,
    p2: float,
    k3: float = 0.0,
    k4: float = 0.0,
    k5: float = 0.0,
    k6: float = 0.0,
) -> Pair:
    r2 = x * x + y * y
    factor = _polynomial(r2, (k1, k2, k3)) / _polynomial(r2, (k4, k5, k6))
    dx, dy = _tangential(x, y, p1, p2)
    return x * factor + dx, y * factor + dy


def _fisheye(x: np.ndarray, y: np.ndarray, *k: float) -> Pair:
    x, y, theta = _equidistant(x, y)
    factor = _polynomial(theta * theta, k)
    return x * factor, y * factor


def _thin_prism_fisheye(
    x: np.ndarray,
    y: np.ndarray,
    k1: float,
    k2: float,
    p1: float,
    p2: float,
    k3: float,
    k4: float,
    sx1: float,
    sy1: float,
) -> Pair:
    x, y, theta = _equidistant(x, y)
    factor, r2 = _polynomial(theta * theta, (k1, k2, k3, k4)), theta * theta
    dx, dy = _tangential(x, y, p1, p2)
    return x * factor + dx + sx1 * r2, y * factor + dy + sy1 * r2


def _fisheye624(
    x: np.ndarray,
    y: np.ndarray,
    k0: float,
    k1: float,
    k2: float,
    k3: float,
    k4: float,
    k5: float,
    p0: float,
    p1: float,
    s0: float,
    s1: float,
    s2: float,
    s3: float,
) -> Pair:
    x, y = _fisheye(x, y, k0, k1, k2, k3, k4, k5)
    r2 = x * x + y * y
    dx, dy = _tangential(x, y, p1, p0)
    return x + dx + r2 * (s0 + s1 * r2), y + dy + r2 * (s2 + s3 * r2)


def _field_of_view(x: np.ndarray, y: np.ndarray, omega: float) -> Pair:
    if abs(omega) < 1e-6:
        return x, y
    radius, slope = np.hypot(x, y), 2 * np.tan(omega / 2)
    bent = np.arctan(radius * slope) / omega
    factor = np.divide(bent, radius, out=np.full_like(radius, slope / omega), where=radius > 0)
    return x * factor, y * factor


def _division(x: np.ndarray, y: np.ndarray, k: float) -> Pair:
    factor = 2 / (1 + np.sqrt(1 - 4 * k * (x * x + y * y)))
    return x * factor, y * factor


def _unified(x: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> Pair:
    depth = alpha * np.sqrt(beta * (x * x + y * y) + 1) + 1 - alpha
    return x / depth, y / depth


#: Those whose image is a pinhole's where every coefficient is 0.
PERSPECTIVE = (_radial, _opencv, _division)
OPENCV = ("k1", "k2", "p1", "p2")
#: By the names in text files. EQUIRECTANGULAR (17), a panorama, is no image that a pinhole could take.
CAMERA_MODELS = {
    "SIMPLE_PINHOLE": CameraModel(0, 1, (), _radial),
    "PINHOLE": CameraModel(1, 2, (), _radial),
    "SIMPLE_RADIAL": CameraModel(2, 1, ("k",), _radial),
    "RADIAL": CameraModel(3, 1, ("k1", "k2"), _radial),
    "OPENCV": CameraModel(4, 2, OPENCV, _opencv),
    "OPENCV_FISHEYE": CameraModel(5, 2, ("k1", "k2", "k3", "k4"), _fisheye),
    "FULL_OPENCV": CameraModel(6, 2, (*OPENCV, "k3", "k4", "k5", "k6"), _opencv),
    "FOV": CameraModel(7, 2, ("omega",), _field_of_view),
    "SIMPLE_RADIAL_FISHEYE": CameraModel(8, 1, ("k",), _fisheye),
    "RADIAL_FISHEYE": CameraModel(9, 1, ("k1", "k2"), _fisheye),
    "THIN_PRISM_FISHEYE": CameraModel(10, 2, (*OPENCV, "k3", "k4", "sx1", "sy1"), _thin_prism_fisheye),
    "RAD_TAN_THIN_PRISM_FISHEYE": CameraModel(
        11, 2, ("k0", "k1", "k2", "k3", "k4", "k5", "p0", "p1", "s0", "s1", "s2", "s3"), _fisheye624
    ),
    "SIMPLE_DIVISION": CameraModel(12, 1, ("k",), _division),
    "DIVISION": CameraModel(13, 2, ("k",), _division),
    "SIMPLE_FISHEYE": CameraModel(14, 1, (), _fisheye),
    "FISHEYE": CameraModel(15, 2, (), _fisheye),
    "EUCM": CameraModel(16, 2, ("alpha", "beta"), _unified),
}
