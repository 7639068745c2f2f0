"""A user's picture becomes the view that a model expects: cut out, centred, scaled, resized."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcgen.data.images import image_to_array, read_image
from vcgen.errors import UserError

#: What counts as a picture: a file, an opened picture, or an array (height, width, 3 or 4), uint8 or floats in [0, 1], straight colour.
Source = Path | str | Image.Image | NDArray

#: Largest channel difference from the background colour (of 255) that still counts as background: JPEG noise lies below it.
BACKGROUND_TOLERANCE = 12
#: The difference from which a pixel is fully object; between the two, coverage grows linearly.
OBJECT_DIFFERENCE = 48
#: The share of border pixels that must have the background's colour; the rest may belong to an object that touches the border.
PLAIN_BORDER = 0.8
#: What to do where there is neither alpha nor a plain background.
USE_ANOTHER = "use a picture with alpha or plain background, or pass --as-is for a picture framed like the training data"


@dataclass(frozen=True)
class Picture:
    """A picture as floats in [0, 1]: straight colour (height, width, 3) and coverage (height, width)."""

    colour: NDArray[np.float32]
    alpha: NDArray[np.float32]


def prepare(source: Source, size: tuple[int, int], fill: float = 0.78, as_is: bool = False) -> Picture:
    """Read a picture of any size and make it (height, width) = ``size``.

    The object is found by the alpha channel, or else by a plain border colour; it is centred and scaled so that its bounding box fills
    the share ``fill`` of the frame. ``as_is`` only pads to the frame's shape. Resizing averages premultiplied colour over each new pixel's
    area, so that transparent pixels, whatever their colour, leave no fringe. Raises UserError when there is no object to be found.
    """
    if not 0.1 <= fill <= 1:
        raise UserError(f"--fill must lie between 0.1 and 1, not {fill}")
    pixels, has_alpha = read(source)
    name = str(source) if isinstance(source, (Path, str)) else "the picture"
    if has_alpha:
        picture = Picture(pixels[..., :3], pixels[..., 3])
    elif as_is:
        picture = Picture(pixels[..., :3], np.ones_like(pixels[..., 3]))
    else:
        picture = cut_out(pixels[..., :3], name)
    height, width = picture.alpha.shape
    if as_is:
        return resample(picture, (0.0, 0.0, width, height), size, fill=1.0, pad=not has_alpha)
    return resample(picture, bounding_box(picture.alpha, name), size, fill)


def read(source: Source) -> tuple[NDArray[np.float32], bool]:
    """Float RGBA (height, width, 4) in [0, 1], turned upright as the camera noted, and whether its alpha says anything."""
    if isinstance(source, np.ndarray):
        pixels = _from_array(source)
    elif isinstance(source, Image.Image):
        pixels = _rgba(image_to_array(source, getattr(source, "filename", "") or "the picture", upright=True))
    else:
        pixels = _rgba(read_image(source, upright=True))
    return pixels, bool((pixels[..., 3] < 1).any())


def _rgba(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    opaque = np.full_like(pixels[..., :1], 255)
    return np.concatenate([pixels, opaque] if pixels.shape[2] == 3 else [pixels], -1).astype(np.float32) / 255


def _from_array(array: NDArray) -> NDArray[np.float32]:
    if array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise UserError(f"a picture as an array must have the shape (height, width, 3 or 4), not {array.shape}: put the channels last")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"a picture as an array must be uint8 or floating-point, not {array.dtype}: convert it with .astype(numpy.uint8)")
    pixels = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # not the other way round, which would let NaN pass
        found = f"[{pixels.min():.3g}, {pixels.max():.3g}]"
        raise UserError(f"a picture of floats must lie in [0, 1], not in {found}: scale it, or give uint8")
    opaque = np.ones_like(pixels[..., :1])
    return pixels if pixels.shape[2] == 4 else np.concatenate([pixels, opaque], -1)


def cut_out(colour: NDArray[np.float32], name: str, advice: str = USE_ANOTHER) -> Picture:
    """Separate an object from a plain background: what resembles the border's colour *and* is connected to the border.

    Light parts inside the object stay. Mixed edge pixels are unmixed: colour = alpha * object + (1 - alpha) * background. name: what
    messages call the picture. Raises UserError with ``advice`` where the border is not of one colour.
    """
    from skimage.measure import label

    border = np.concatenate([colour[0], colour[-1], colour[:, 0], colour[:, -1]])
    background = np.median(border, axis=0)
    plain = (np.abs(border - background).max(-1) * 255 <= BACKGROUND_TOLERANCE).mean()
    if plain < PLAIN_BORDER:
        raise UserError(f"{name} has no alpha and its border is not of one colour ({plain:.0%} is): {advice}")
    difference = np.abs(colour - background).max(-1) * 255
    regions = label(difference < OBJECT_DIFFERENCE, connectivity=1)
    outside = np.isin(regions, np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])))
    outside &= regions > 0
    ramp = np.clip((difference - BACKGROUND_TOLERANCE) / (OBJECT_DIFFERENCE - BACKGROUND_TOLERANCE), 0, 1)
    alpha = np.where(outside, ramp, 1).astype(np.float32)
    unmixed = (colour - (1 - alpha[..., None]) * background) / np.maximum(alpha[..., None], 1e-3)
    return Picture(np.clip(unmixed, 0, 1).astype(np.float32), alpha)


def bounding_box(alpha: NDArray[np.float32], name: str) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels, of what is at least half covered."""
    rows, columns = np.nonzero((alpha >= 0.5).any(1))[0], np.nonzero((alpha >= 0.5).any(0))[0]
    if not len(rows):
        raise UserError(f"{name} shows no object: everything is transparent, or of the background's colour")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def resample(
    picture: Picture, box: tuple[float, float, float, float], size: tuple[int, int], fill: float, pad: bool = False
) -> Picture:
    """Place ``box`` in the middle of a frame of (height, width) = ``size``, its longer side (relative to the frame) filling ``fill`` of it.

    Beyond the picture all is transparent, or repeats the picture's edge with ``pad``.
    """
    left, top, right, bottom = box
    height, width = size
    scale = max((right - left) / width, (bottom - top) / height) / fill
    margin = int(np.ceil(scale * max(height, width))) + 1
    premultiplied = np.concatenate([picture.colour * picture.alpha[..., None], picture.alpha[..., None]], -1)
    padded = np.pad(premultiplied, ((margin, margin), (margin, margin), (0, 0)), mode="edge" if pad else "constant")
    x, y = (left + right) / 2 + margin, (top + bottom) / 2 + margin
    frame = (x - scale * width / 2, y - scale * height / 2, x + scale * width / 2, y + scale * height / 2)
    method = Image.Resampling.BOX if scale >= 1 else Image.Resampling.BILINEAR
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(padded[..., i])).resize((width, height), method, box=frame)) for i in range(4)
    ]
    resized = np.stack(channels, -1)
    alpha = np.clip(resized[..., 3], 0, 1)
    colour = np.where(alpha[..., None] > 1e-4, resized[..., :3] / np.maximum(alpha[..., None], 1e-4), 1)
    return Picture(np.clip(colour, 0, 1).astype(np.float32), alpha.astype(np.float32))
