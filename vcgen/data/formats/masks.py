"""Masks of a transforms file: images, white where the object is, that become the coverage of the views."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcgen.data.formats.files import ImageFiles
from vcgen.data.images.arrays import load_image
from vcgen.data.images.reading import UPRIGHT, read_header, read_image
from vcgen.errors import UserError


def find_masks(path: Path, frames: list[dict[str, Any]]) -> list[Path | None]:
    """The file of each frame's ``mask_path``, None where no frame has one. Raises UserError where only some do, or
    files are missing.
    """
    names, files = [frame.get("mask_path") or None for frame in frames], ImageFiles(path.parent)
    if not any(names):
        return [None] * len(frames)
    if None in names:
        first, count = frames[names.index(None)].get("file_path"), len(names) - names.count(None)
        raise UserError(f"{path}: {count} of {len(names)} frames have a mask_path, {first} has none; give all or none")
    found = [files.find(str(name)) for name in names]
    if missing := [str(name) for name, file in zip(names, found, strict=True) if file is None]:
        raise UserError(f"{path}: {len(missing)} of {len(names)} masks are missing: {', '.join(missing[:5])}")
    return found


def load_masked(image: Path, mask: Path) -> np.ndarray:
    """The upright image (H, W, 4) of an image and its mask. Raises UserError where :func:`read_mask` does, and for an
    image that has transparency of its own."""
    pixels = load_image(image)
    if pixels.shape[2] == 4 and (pixels[..., 3] < 1).any():
        raise two_coverages(image, mask)
    return np.concatenate(
        [pixels[..., :3], read_mask(mask, image, pixels.shape[:2])[..., None].astype(np.float32) / 255], -1
    )


def two_coverages(image: Path, mask: Path) -> UserError:
    """The line for an image that has transparency, and a mask."""
    return UserError(f"{image} has transparency, and {mask} is given as its mask; keep one of them")


def read_mask(mask: Path, image: Path, upright: tuple[int, int]) -> np.ndarray:
    """Coverage (H, W) uint8 of an upright image: the mask's alpha where that says anything, else its brightness.

    A mask without EXIF orientation of an image that has one lies as its shape says. Raises UserError where that does
    not tell, and for a mask of another size, in colors or without white."""
    pixels, orientation = read_image(mask, upright=True), read_header(image)[1]
    if orientation != 1 and read_header(mask)[1] == 1:
        if orientation < 5 or upright[0] == upright[1]:
            raise UserError(
                f"{mask} has no EXIF orientation, {image} has one: which way the mask lies is not told; save both"
                " upright"
            )
        if pixels.shape[:2] != upright:
            pixels = UPRIGHT[orientation](pixels)
    if pixels.shape[:2] != upright:
        found, wanted = (f"{shape[1]} x {shape[0]}" for shape in (pixels.shape[:2], upright))
        raise UserError(
            f"{mask}: the mask has {found} pixels, {image} {wanted} (width x height, upright): give a mask of the"
            " image's size"
        )
    if pixels.shape[2] == 4 and (pixels[..., 3] < 255).any():
        return pixels[..., 3]
    if np.ptp(pixels[..., :3], axis=-1).max() > 25:
        raise UserError(f"{mask}: the mask has colors; it must be white where the object is, black elsewhere")
    if 0 < (brightest := pixels[..., :3].max()) < 128:
        raise UserError(
            f"{mask}: the brightest value is {brightest} of 255; the mask must be white where the object is"
        )
    return np.round(pixels[..., :3].mean(-1)).astype(np.uint8)


def refuse_empty(pixels: Sequence[np.ndarray], path: Path) -> None:
    """Raise UserError where no uint8 image of a masked scene shows an object."""
    if not any((image[..., 3] > 127).any() for image in pixels):
        raise UserError(f"{path}: the masks mark no object in any image; they must be white where it is")
