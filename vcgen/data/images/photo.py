"""A user's photo becomes a square image with coverage: cut out, recentered, resized, its color free of what lay behind
the object.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcgen.data.images.framing import (
    USE_ANOTHER,
    CutOut,
    RgbaImage,
    Source,
    as_floats,
    bounding_box,
    cut_out,
    read,
    resample,
)
from vcgen.data.images.reading import read_mask, two_coverages
from vcgen.errors import UserError

#: What to do with a photo that says nowhere what the object is.
ADVICE = "give a mask file or an image with alpha, or install what removes backgrounds: pip install 'vcgen[cutout]'"

#: Pixels in which rims are looked for: that takes long, and many times their bytes.
ENOUGH = 1_000_000


def load_photo(path: Path, mask: Path | None, size: int, fill: float = 0.78) -> RgbaImage:
    """Read a photo of any shape and make it ``size`` x ``size`` pixels, the object in the middle, its longer side
    ``fill`` of the frame's.

    What is object is said by ``mask`` (an image of the photo's size, white or opaque where the object is) or by the
    photo's own alpha, else found: by a border of one color, or by rembg where it is installed, whose weights are
    fetched when it is first used. The photo is turned upright as the camera noted; nothing is squashed: the frame is
    padded with transparency. Color is straight. Raises UserError for files that are missing or damaged, a mask without
    object or of another size, a mask of a photo with alpha, and where no object can be found."""
    if not 0.1 <= fill <= 1:
        raise UserError(f"data.fill must lie between 0.1 and 1, not {fill}")
    if not 8 <= size <= 4096:
        raise UserError(f"data.size must lie between 8 and 4096 pixels, not {size}")
    pixels, has_alpha = read(path)
    color, name = pixels[..., :3], str(path)
    image: RgbaImage | CutOut
    if mask is not None:
        if has_alpha:
            raise two_coverages(path, mask)
        alpha = read_mask(mask, path, color.shape[:2])
        if not (alpha > 127).any():
            raise UserError(f"{mask}: the mask marks no object: it must be white, or opaque, where the object is")
        image = without_fringe(shrunk(RgbaImage(color, alpha), size, name))
    else:
        image = RgbaImage(color, pixels[..., 3]) if has_alpha else without_background(color, size, name)
    return resample(image, bounding_box(image, name), (size, size), fill)


def shrunk(image: RgbaImage, size: int, name: str) -> RgbaImage:
    """A photo of several times ``ENOUGH`` pixels averaged by a whole factor to about as many, its object still four
    times larger than ``size`` pixels. Others as they are."""
    height, width = image.color.shape[:2]
    left, top, right, bottom = bounding_box(image, name)
    factor = min(int((height * width / ENOUGH) ** 0.5), int(max(right - left, bottom - top) / (4 * size)))
    if factor < 2:
        return image
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    return resample(image, (0.0, 0.0, columns * factor, rows * factor), (rows, columns), fill=1.0, pad=True)


def without_background(color: NDArray[Any], size: int, name: str, advice: str = ADVICE) -> RgbaImage | CutOut:
    """The photo cut out by the border's color, or where that is not of one color by rembg, if installed. size: of what
    is made of it, see :func:`shrunk`.

    Raises UserError, which ends in ``advice``, where there is neither.
    """
    try:
        return cut_out(color, name, advice)
    except UserError:
        if (remover := background_remover()) is None:
            raise
    color = color if color.dtype == np.uint8 else np.round(color * 255).astype(np.uint8)
    return without_fringe(shrunk(RgbaImage(color, remover(color)), size, name))


def background_remover() -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None:
    """What makes coverage (height, width) of color (height, width, 3): rembg where it is installed, else nothing."""
    try:
        from rembg import remove
    except ImportError:
        return None
    return lambda color: np.asarray(remove(Image.fromarray(color), only_mask=True).convert("L"))


def without_fringe(image: RgbaImage) -> RgbaImage:
    """The rim of a masked object is mixed with what lay behind it: it takes the color of the nearest pixel well inside
    (by a 512th of the image's longer side, at least one pixel). Coverage stays; so does the color of objects too thin
    to have an inside."""
    from scipy.ndimage import distance_transform_edt

    # an object may leave the image: its border is no rim
    solid = np.pad(image.coverage(slice(None)) >= 0.5, 1, mode="edge")
    inside = distance_transform_edt(solid)[1:-1, 1:-1] > max(1, round(max(image.alpha.shape) / 512))
    if solid.all() or not inside.any():
        return image
    rows, columns = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return RgbaImage(image.color[rows, columns], image.alpha)


def prepare(source: Source, size: tuple[int, int], fill: float = 0.78, as_is: bool = False) -> RgbaImage:
    """Read an image of any size and make it (height, width) = ``size``.

    The object is found by the alpha channel, else by a plain border color, else by rembg where it is installed; it is
    centered and scaled so that its bounding box fills the fraction ``fill`` of the frame. ``as_is`` only pads to the
    frame's shape. Resizing averages premultiplied color over each new pixel's area, so that transparent pixels,
    whatever their color, leave no fringe; an image of ``size`` stays as it is, bit by bit, with ``as_is``. Raises
    UserError when there is no object to be found."""
    if not 0.1 <= fill <= 1:
        raise UserError(f"--fill must lie between 0.1 and 1, not {fill}")
    pixels, has_alpha = read(source)
    name = str(source) if isinstance(source, (Path, str)) else "the image"
    color, shape = pixels[..., :3], pixels.shape[:2]
    if as_is:
        framed = RgbaImage(color, pixels[..., 3] if has_alpha else np.broadcast_to(np.float32(1), shape))
        if shape == tuple(size):
            return RgbaImage(as_floats(framed.color), as_floats(framed.alpha))
        return resample(framed, (0.0, 0.0, shape[1], shape[0]), size, fill=1.0, pad=not has_alpha)
    image = RgbaImage(color, pixels[..., 3]) if has_alpha else without_background(color, max(size), name, USE_ANOTHER)
    return resample(image, bounding_box(image, name), size, fill)
