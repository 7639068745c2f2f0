"""Masks of a transforms file: images, white where the object is, that become the coverage of the views."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcgen.data.formats.files import ImageFiles
from vcgen.data.images.arrays import load_image
from vcgen.data.images.reading import read_mask, two_coverages
from vcgen.errors import UserError
from vcgen.terminal import first_few


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


def find_masks_in(folder: Path, names: Sequence[str]) -> list[Path]:
    """The mask of each image: of its name with an extension added, as COLMAP has it, or exchanged. Raises UserError
    where any is missing.
    """
    files = ImageFiles(folder)
    found = [files.find(f"{name}.png") or files.find(Path(name).with_suffix("").as_posix()) for name in names]
    if missing := [name for name, mask in zip(names, found, strict=True) if mask is None]:
        listed = first_few(missing, 5)
        raise UserError(f"{folder}: {len(missing)} of {len(names)} images have no mask: {listed}; give all or none")
    return [mask for mask in found if mask]


def load_masked(image: Path, mask: Path | None) -> np.ndarray:
    """The upright image (H, W, 4) of an image and its mask; the image as it is where there is none. Raises UserError
    where :func:`read_mask` does, and for an image that has a mask and transparency of its own."""
    pixels = load_image(image)
    if mask is None:
        return pixels
    if pixels.shape[2] == 4 and (pixels[..., 3] < 1).any():
        raise two_coverages(image, mask)
    return np.concatenate(
        [pixels[..., :3], read_mask(mask, image, pixels.shape[:2])[..., None].astype(np.float32) / 255], -1
    )


def refuse_empty(pixels: Sequence[np.ndarray], path: Path) -> None:
    """Raise UserError where no uint8 image of a masked scene shows an object."""
    if not any((image[..., 3] > 127).any() for image in pixels):
        raise UserError(f"{path}: the masks mark no object in any image; they must be white where it is")
