"""A user's photo becomes a square picture with coverage: cut out, recentred, resized, its colour free of what lay behind the object."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcgen.data.formats.masks import read_mask, two_coverages
from vcgen.data.images.framing import CutOut, Picture, bounding_box, cut_out, read, resample
from vcgen.errors import UserError

#: What to do with a photo that says nowhere what the object is.
ADVICE = "give a mask file or a picture with alpha, or install what removes backgrounds: pip install 'vcgen[cutout]'"

#: Pixels in which rims are looked for: that takes long, and many times their bytes.
ENOUGH = 1_000_000


def load_photo(path: Path, mask: Path | None, size: int, fill: float = 0.78) -> Picture:
    """Read a photo of any shape and make it ``size`` x ``size`` pixels, the object in the middle, its longer side ``fill`` of the frame's.

    What is object is said by ``mask`` (a picture of the photo's size, white or opaque where the object is) or by the photo's own alpha,
    else found: by a border of one colour, or by rembg where it is installed, whose weights are fetched when it is first used. The photo is
    turned upright as the camera noted; nothing is squashed: the frame is padded with transparency. Colour is straight.
    Raises UserError for files that are missing or damaged, a mask without object or of another size, a mask of a photo with alpha, and
    where no object can be found.
    """
    if not 0.1 <= fill <= 1:
        raise UserError(f"data.fill must lie between 0.1 and 1, not {fill}")
    if not 8 <= size <= 4096:
        raise UserError(f"data.size must lie between 8 and 4096 pixels, not {size}")
    pixels, has_alpha = read(path)
    colour, name = pixels[..., :3], str(path)
    if mask is not None:
        if has_alpha:
            raise two_coverages(path, mask)
        alpha = read_mask(mask, path, colour.shape[:2])
        if not (alpha > 127).any():
            raise UserError(f"{mask}: the mask marks no object: it must be white, or opaque, where the object is")
        picture = without_fringe(shrunk(Picture(colour, alpha), size, name))
    else:
        picture = Picture(colour, pixels[..., 3]) if has_alpha else without_background(colour, size, name)
    return resample(picture, bounding_box(picture, name), (size, size), fill)


def shrunk(picture: Picture, size: int, name: str) -> Picture:
    """A photo of several times ``ENOUGH`` pixels averaged by a whole factor to about as many, its object still four times larger than
    ``size`` pixels. Others as they are."""
    height, width = picture.colour.shape[:2]
    left, top, right, bottom = bounding_box(picture, name)
    factor = min(int((height * width / ENOUGH) ** 0.5), int(max(right - left, bottom - top) / (4 * size)))
    if factor < 2:
        return picture
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    return resample(picture, (0.0, 0.0, columns * factor, rows * factor), (rows, columns), fill=1.0, pad=True)


def without_background(colour: NDArray, size: int, name: str, advice: str = ADVICE) -> Picture | CutOut:
    """By the border's colour, or where that is not of one colour by rembg, if installed. size: of what is made of it, see :func:`shrunk`.

    Raises UserError, which ends in ``advice``, where there is neither.
    """
    try:
        return cut_out(colour, name, advice)
    except UserError:
        if (remover := background_remover()) is None:
            raise
    colour = colour if colour.dtype == np.uint8 else np.round(colour * 255).astype(np.uint8)
    return without_fringe(shrunk(Picture(colour, remover(colour)), size, name))


def background_remover() -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None:
    """What makes coverage (height, width) of colour (height, width, 3): rembg where it is installed, else nothing."""
    try:
        from rembg import remove
    except ImportError:
        return None
    return lambda colour: np.asarray(remove(Image.fromarray(colour), only_mask=True).convert("L"))


def without_fringe(picture: Picture) -> Picture:
    """The rim of a masked object is mixed with what lay behind it: it takes the colour of the nearest pixel well inside (by a 512th of the
    picture's longer side, at least one pixel). Coverage stays; so does the colour of objects too thin to have an inside."""
    from scipy.ndimage import distance_transform_edt

    solid = np.pad(picture.coverage(slice(None)) >= 0.5, 1, mode="edge")  # an object may leave the picture: its border is no rim
    inside = distance_transform_edt(solid)[1:-1, 1:-1] > max(1, round(max(picture.alpha.shape) / 512))
    if solid.all() or not inside.any():
        return picture
    rows, columns = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return Picture(picture.colour[rows, columns], picture.alpha)
