"""A user's image becomes the view that a model expects: cut out, centered, scaled, resized."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcgen.data.images.reading import image_to_array, read_image
from vcgen.errors import UserError

#: What counts as an image: a file, an opened image, or an array (height, width, 3 or 4), uint8 or floats in [0, 1],
#: straight color.
Source = Path | str | Image.Image | NDArray[Any]

#: Largest channel difference from the background color (of 255) that still counts as background: JPEG noise lies below
#: it.
BACKGROUND_TOLERANCE = 12
#: The difference from which a pixel is fully object; between the two, coverage grows linearly.
OBJECT_DIFFERENCE = 48
#: The fraction of border pixels that must have the background's color; the rest may belong to an object that touches
#: the border.
PLAIN_BORDER = 0.8
#: Pixels of a photo that are floats at a time.
BAND = 1 << 20
#: What to do where there is neither alpha nor a plain background.
USE_ANOTHER = (
    "use an image with alpha or plain background, install what removes others (pip install 'vcgen[cutout]'), or pass"
    " --as-is for an image framed like the training data"
)


@dataclass(frozen=True)
class RgbaImage:
    """An image: straight color (height, width, 3) and coverage (height, width), uint8 or floats in [0, 1]."""

    color: NDArray[Any]
    alpha: NDArray[Any]

    def coverage(self, rows: slice, columns: slice = slice(None)) -> NDArray[np.float32]:
        """Coverage of a part of it as floats."""
        return as_floats(self.alpha[rows, columns])

    def premultiplied(self, rows: slice, columns: slice) -> list[NDArray[np.float32]]:
        """Four channels of a part of it: color times coverage, and coverage."""
        alpha = self.coverage(rows, columns)
        return [*(as_floats(self.color[rows, columns, channel]) * alpha for channel in range(3)), alpha]


@dataclass(frozen=True)
class CutOut:
    """An image (height, width, 3), uint8 or floats in [0, 1], without its background. Coverage and color are found when
    they are asked for, a part at a time: of a large photo they take many times its bytes.

    background: the color (3,) behind the object. outside: (height, width), what resembles it and is connected to the
        border.
    """

    color: NDArray[Any]
    background: NDArray[np.float32]
    outside: NDArray[np.bool_]

    def coverage(self, rows: slice, columns: slice = slice(None)) -> NDArray[np.float32]:
        """See :meth:`RgbaImage.coverage`: it grows with the difference from the background where that is connected to
        the border.
        """
        found = difference(self.color[rows, columns], self.background)
        ramp = np.clip((found - BACKGROUND_TOLERANCE) / (OBJECT_DIFFERENCE - BACKGROUND_TOLERANCE), 0, 1)
        return np.where(self.outside[rows, columns], ramp, np.float32(1))

    def premultiplied(self, rows: slice, columns: slice) -> list[NDArray[np.float32]]:
        """See :meth:`RgbaImage.premultiplied`. Mixed edge pixels are unmixed: color = alpha * object + (1 - alpha) *
        background.
        """
        alpha = self.coverage(rows, columns)
        behind, divisor = 1 - alpha, np.maximum(alpha, np.float32(1e-3))
        mixed = (as_floats(self.color[rows, columns, channel]) for channel in range(3))
        return [
            *(np.clip((m - behind * b) / divisor, 0, 1) * alpha for m, b in zip(mixed, self.background, strict=True)),
            alpha,
        ]


def read(source: Source) -> tuple[NDArray[Any], bool]:
    """(height, width, 3 or 4), uint8 or floats in [0, 1], turned upright as the camera noted, and whether its alpha
    says anything.
    """
    if isinstance(source, np.ndarray):
        pixels = _from_array(source)
    elif isinstance(source, Image.Image):
        pixels = image_to_array(source, getattr(source, "filename", "") or "the image", upright=True)
    else:
        pixels = read_image(source, upright=True)
    return pixels, pixels.shape[2] == 4 and bool((pixels[..., 3] < (255 if pixels.dtype == np.uint8 else 1)).any())


def _from_array(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise UserError(
            f"an image as an array must have the shape (height, width, 3 or 4), not {array.shape}: put the channels"
            " last"
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"an image as an array must be uint8 or floating-point, not {array.dtype}: convert it with"
            " .astype(numpy.uint8)"
        )
    pixels = array.astype(np.float32)
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # not the other way round, which would let NaN pass
        found = f"[{pixels.min():.3g}, {pixels.max():.3g}]"
        raise UserError(f"an image of floats must lie in [0, 1], not in {found}: scale it, or give uint8")
    return pixels


def as_floats(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 or floats -> float32 in [0, 1]."""
    floats: NDArray[np.float32] = pixels.astype(np.float32, copy=False)
    return floats / np.float32(255) if pixels.dtype == np.uint8 else floats


def bands(height: int, width: int) -> Iterator[slice]:
    """Rows from the first to the last, in slices of about ``BAND`` pixels: what large photos are worked through in."""
    rows = max(1, BAND // width)
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def cut_out(color: NDArray[Any], name: str, advice: str = USE_ANOTHER) -> CutOut:
    """Separate an object from a plain background: what resembles the border's color *and* is connected to the border.

    Light parts inside the object stay. name: what messages call the image. Raises UserError with ``advice`` where the
    border is not of one color."""
    from skimage.segmentation import flood

    border = np.concatenate([color[0], color[-1], color[:, 0], color[:, -1]])
    background = np.median(as_floats(border), axis=0)
    plain = (difference(border, background) <= BACKGROUND_TOLERANCE).mean()
    if plain < PLAIN_BORDER:
        raise UserError(f"{name} has no alpha and its border is not of one color ({plain:.0%} is): {advice}")
    similar = np.ones((color.shape[0] + 2, color.shape[1] + 2), bool)  # a rim that connects all of the border
    for rows in bands(*color.shape[:2]):
        similar[1:-1, 1:-1][rows] = difference(color[rows], background) < OBJECT_DIFFERENCE
    return CutOut(color, background, flood(similar, (0, 0), connectivity=1)[1:-1, 1:-1])


def difference(color: NDArray[Any], background: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 3) -> (...): the largest difference of a channel from the background's, of 255."""
    channels = (np.abs(as_floats(color[..., channel]) - background[channel]) for channel in range(3))
    return functools.reduce(np.maximum, channels) * 255


def bounding_box(image: RgbaImage | CutOut, name: str) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels, of what is at least half covered."""
    height, width = image.color.shape[:2]
    covered = [image.coverage(rows) >= 0.5 for rows in bands(height, width)]
    rows = np.nonzero(np.concatenate([band.any(1) for band in covered]))[0]
    columns = np.nonzero(np.any([band.any(0) for band in covered], axis=0))[0]
    if not len(rows):
        raise UserError(f"{name} shows no object: everything is transparent, or of the background's color")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def resample(
    image: RgbaImage | CutOut,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    fill: float,
    pad: bool = False,
) -> RgbaImage:
    """Place ``box`` in the middle of a frame of (height, width) = ``size``, its longer side (relative to the frame)
    filling ``fill`` of it.

    Beyond the image all is transparent, or repeats the image's edge with ``pad``. Color and alpha are float32.
    """
    left, top, right, bottom = box
    scale = max((right - left) / size[1], (bottom - top) / size[0]) / fill
    # Counted from outside of the image, which decides how edges are rounded that fall on pixels' centers.
    origin = int(np.ceil(scale * max(size))) + 1
    rows, columns = (
        [_weights(middle + origin, scale, length, chunk, origin, pixels, pad) for chunk in _chunks(length, scale)]
        for middle, length, pixels in zip(
            ((top + bottom) / 2, (left + right) / 2), size, image.color.shape, strict=False
        )
    )
    resized = np.concatenate(
        [np.concatenate([_average(image, *row, *column) for column in columns], 1) for row in rows]
    )
    alpha = np.clip(resized[..., 3], 0, 1)
    color = np.where(alpha[..., None] > 1e-4, resized[..., :3] / np.maximum(alpha[..., None], 1e-4), 1)
    return RgbaImage(np.clip(color, 0, 1), alpha)


def _chunks(count: int, scale: float) -> list[NDArray[np.int64]]:
    """The numbers of new pixels in parts, such that a part by a part covers about BAND old pixels."""
    return np.array_split(np.arange(count), np.ceil(count / max(1, int(BAND**0.5 / scale))))


def _weights(
    middle: float, scale: float, count: int, chunk: NDArray[np.int64], origin: int, pixels: int, pad: bool
) -> tuple[slice, NDArray[np.float32]]:
    """The old pixels that the new ones of a chunk cover, and their weights (new, old): all that lie inside, where a new
    pixel covers at least one, else those of linear interpolation, as in Pillow's resize, whose single precision decides
    ties.

    middle: of the ``count`` new pixels, ``scale`` old ones each, in old pixels from ``origin`` before the first.
    pixels: of the image; weights of others are dropped, or given to the nearest with ``pad``.
    """
    low, high = np.float32(middle - scale * count / 2), np.float32(middle + scale * count / 2)
    step = float(high - low) / count
    centers = float(low) + (chunk + 0.5) * step
    covered = np.arange(int(centers[0] - step) - 1, int(centers[-1] + step) + 2)
    weights = _kernel(covered, centers[:, None], max(step, 1), scale >= 1)
    nearest = (covered - origin).clip(0, pixels - 1)
    folded = np.zeros((nearest[-1] + 1 - nearest[0], len(chunk)))
    kept = slice(None) if pad else nearest == covered - origin
    np.add.at(folded, nearest[kept] - nearest[0], weights.T[kept])
    return slice(nearest[0], nearest[-1] + 1), folded.T


def _kernel(pixels: NDArray[np.int64], centers: NDArray[Any], step: float, box: bool) -> NDArray[np.float64]:
    """Weights of pixels for new ones around ``centers``, adding up to 1: a box of ``step`` pixels, or a triangle of
    twice that.
    """
    distance = (pixels - centers + 0.5) * (1 / step)
    weights = (distance > -0.5) & (distance <= 0.5) if box else np.maximum(1 - np.abs(distance), 0)
    if box:  # Pillow asks twice, in other words, which matters where a pixel's center lies on the edge of a box
        weights &= (pixels >= np.floor(centers - step / 2 + 0.5)) & (pixels < np.floor(centers + step / 2 + 0.5))
    return weights / weights.sum(1, keepdims=True)


def _average(
    image: RgbaImage | CutOut,
    rows: slice,
    row_weights: NDArray[np.float32],
    columns: slice,
    column_weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    """New pixels (height, width, 4): premultiplied color and alpha."""
    planes = image.premultiplied(rows, columns)
    return np.stack([row_weights @ (plane @ column_weights.T).astype(np.float32) for plane in planes], -1).astype(
        np.float32
    )
