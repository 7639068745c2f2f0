"""Images on their way into shards: reading, exact area resizing on premultiplied color, undistortion, PNG bytes.

An image is a float32 array (H, W, 3) or (H, W, 4) in [0, 1]; with four channels the color is straight, not
premultiplied."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vcgen.data.images.reading import encode_png, read_image
from vcgen.errors import UserError


def load_image(path: Path) -> np.ndarray:
    """Read an 8-bit image, turned upright as EXIF notes. Raises UserError naming the file."""
    return read_image(path, upright=True).astype(np.float32) / 255


def premultiply(image: np.ndarray) -> np.ndarray:
    """Color times coverage; an image without alpha is returned as it is."""
    return image if image.shape[2] == 3 else np.concatenate([image[..., :3] * image[..., 3:], image[..., 3:]], -1)


def unpremultiply(image: np.ndarray) -> np.ndarray:
    """The inverse of :func:`premultiply`; color is 0 where coverage is 0."""
    if image.shape[2] == 3:
        return image
    color, alpha = image[..., :3], image[..., 3:]
    straight = np.divide(color, alpha, out=np.zeros_like(color), where=alpha > 0)
    return np.concatenate([np.clip(straight, 0, 1), alpha], -1)


def area_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink to (height, width): each new pixel is the exact mean of the area it covers, of premultiplied color, so no
    rim appears.

    Raises UserError where ``size`` is larger than the image: enlarging adds no information.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    if size[0] > height or size[1] > width:
        raise UserError(f"cannot enlarge a {height} x {width} image to {size[0]} x {size[1]}; give a smaller --size")
    premultiplied = premultiply(image)
    rows = np.tensordot(_area_weights(height, size[0]), premultiplied, axes=(1, 0))
    return unpremultiply(np.tensordot(_area_weights(width, size[1]), rows, axes=(1, 1)).swapaxes(0, 1))


@functools.lru_cache(maxsize=8)
def _area_weights(old: int, new: int) -> np.ndarray:
    """(new, old) float32 matrix: the fraction of each old pixel in each new one; rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(overlap, 0) * (new / old)).astype(np.float32)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] floats -> uint8, rounded to nearest."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def shrink(image: np.ndarray, size: tuple[int, int] | None, name: Path | str) -> np.ndarray:
    """The uint8 image that is packed: of ``size``, or of its own for None. Raises UserError naming it where that is
    larger.
    """
    try:
        return to_bytes(area_resize(image, size or image.shape[:2]))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def encode_scene(pixels: list[np.ndarray], names: Sequence[str]) -> tuple[list[bytes], bool]:
    """Encode the uint8 images of one scene as PNG; returns the files and whether they carry alpha.

    An alpha channel that is opaque in every image says nothing and is dropped. Raises UserError where only some images
    have one."""
    transparent = [
        name for name, image in zip(names, pixels, strict=True) if image.shape[2] == 4 and (image[..., 3] < 255).any()
    ]
    without = [name for name, image in zip(names, pixels, strict=True) if image.shape[2] == 3]
    if transparent and without:
        few = f"{without[0]} is the first without"
        if len(transparent) < len(without):
            few = f"{transparent[0]} is the first with transparency"
        counts = f"{len(transparent)} images have transparency, {len(without)} have no alpha channel ({few})"
        raise UserError(f"{counts}; make all RGBA or all RGB")
    channels = 4 if transparent else 3
    return [encode_png(image[..., :channels]) for image in pixels], channels == 4
