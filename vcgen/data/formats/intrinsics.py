"""Intrinsics as people state them, in pixels or as angles -> normalized; those of another unit or resolution are
refused, saying which.
"""

import math

import numpy as np

from vcgen.errors import UserError

#: Focal lengths allowed, in image widths (and heights).
SHORTEST, LONGEST = 0.1, 50.0
#: How far the principal point may lie from a cropped image, in image sizes.
REACH = 2.0
#: A principal point that is off the middle by more than this, and equally in x and y, is that of another resolution.
OFF = 0.15
CROPS = "--crops if the images are crops"


def normalized(
    focal: tuple[float, float], center: tuple[float, float], size: tuple[float, float], crops: bool = False
) -> np.ndarray:
    """(3, 3) intrinsics from a focal length and a principal point (x, y) in pixels of an image of ``size``, (width,
    height).

    crops: the images are parts of larger ones, so the principal point may be anywhere, up to ``REACH`` image sizes
    outside. Else it must lie inside, as that of a whole image does. Raises UserError that says what the numbers look
    like, without saying where they come from."""
    for axis, length, side in zip("xy", focal, size, strict=True):
        if length <= 0:
            raise UserError(f"fl_{axis}, the focal length, must be positive, found {length:g} pixels")
        if length < SHORTEST * side or (length < 10 and side > 64):
            raise UserError(
                f"fl_{axis}, the focal length, is {length:g} pixels, for {side:g} pixels of image: normalized? give"
                " pixels"
            )
        if length > LONGEST * side:
            advice = "of another resolution? w and h must be that of the intrinsics"
            raise UserError(
                f"fl_{axis}, the focal length, is {length:g} pixels, for {side:g} pixels of image: {advice}"
            )
    u, v = (c / side for c, side in zip(center, size, strict=True))
    where = (
        f"the principal point {center[0]:g}, {center[1]:g} of an image of {size[0]:g} x {size[1]:g} pixels (width x"
        " height)"
    )
    if crops and not all(-REACH <= c <= 1 + REACH for c in (u, v)):
        raise UserError(f"{where} is outside by more than {REACH:g} image sizes; check cx and cy")
    if not crops:
        _refuse_another_resolution(where, center, size, (u, v))
    return np.array([[focal[0] / size[0], 0, u], [0, focal[1] / size[1], v], [0, 0, 1]])


def focal_of_angle(name: str, angle: float) -> float:
    """Normalized focal length of a field of view in radians. Raises UserError, with its name, for what is none, such as
    degrees.
    """
    smallest, largest = 2 * math.atan(0.5 / LONGEST), 2 * math.atan(0.5 / SHORTEST)
    if angle <= 0:
        raise UserError(f"{name} must be positive, found {angle:g}")
    if not smallest <= angle <= largest:
        guess = "; in degrees?" if angle >= math.pi else ""
        raise UserError(
            f"{name} must lie between 0 and pi (radians), in fact {smallest:.2f} to {largest:.2f}, found"
            f" {angle:g}{guess}"
        )
    return 0.5 / math.tan(angle / 2)


def _refuse_another_resolution(
    where: str, center: tuple[float, float], size: tuple[float, float], uv: tuple[float, float]
) -> None:
    u, v = uv
    margins = [1.0 if side > 4 else 0.0 for side in size]
    if all(abs(c) <= margin for c, margin in zip(center, margins, strict=True)):
        raise UserError(f"{where} is at the upper left corner: normalized? give pixels, or {CROPS}")
    inside = all(margin < c < side - margin for c, side, margin in zip(center, size, margins, strict=True))
    if abs(u - v) < 0.1 * max(u, v) and abs(u - 0.5) > OFF:
        factor = f"{u + v:.2g} times as large as these" if u > 0.5 else f"{1 / (u + v):.2g} times smaller than these"
        raise UserError(
            f"{where} is that of images {factor}: give w and h, the size that cx and cy are for, or {CROPS}"
        )
    if not inside:
        raise UserError(f"{where} is on the border or outside: of another resolution (then give w and h)? or {CROPS}")
