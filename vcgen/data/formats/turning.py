"""Photographs taken with the camera on its side: pixels, intrinsics and pose are turned together, which keeps the
geometry exactly.

Cameras store the image as the sensor lies and note in EXIF how to turn it upright. Camera solvers read what is stored
and leave the note alone, most other programs obey it; so poses may be of either."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from vcgen.data.formats.remarks import remark
from vcgen.data.images.reading import read_header
from vcgen.errors import UserError

#: EXIF's orientation -> quarter turns, clockwise, that make the stored image upright.
QUARTERS = {1: 0, 6: 1, 3: 2, 8: 3}


class Turn(NamedTuple):
    """How an image is to be turned. back: quarters counter-clockwise, from upright to what its pose is of; on: quarters
    clockwise, from there to what is packed, camera and all."""

    back: int
    on: int


def plan_turns(images: list[Path], stated: list[tuple[float, float] | None]) -> list[Turn]:
    """One for each image of a scene, with a remark where any carries an EXIF orientation.

    stated: (width, height) that the intrinsics are for, where that is known. Poses are of the image as it is stored, as
    solvers read it, unless only the upright one has the stated shape. All are packed upright, but for scenes whose
    images would then differ in size, while stored they do not: these are packed as stored. Raises UserError for mirror
    images, of which no pose of a camera is."""
    headers = [read_header(image) for image in images]
    for image, (_, orientation) in zip(images, headers, strict=True):
        if orientation not in QUARTERS:
            advice = "no camera takes such an image, and no pose is of it; save it upright, without the orientation"
            raise UserError(f"{image}: EXIF's orientation {orientation} says that the image is mirrored: {advice}")
    quarters = [QUARTERS[orientation] for _, orientation in headers]
    if not any(quarters):
        return [Turn(0, 0)] * len(images)
    upright = [size for size, _ in headers]
    stored = [_turned(size, number) for size, number in zip(upright, quarters, strict=True)]
    of_upright = [_is_of(size, number, shape) for size, number, shape in zip(upright, quarters, stated, strict=True)]
    as_stored = len(set(upright)) > 1 and len(set(stored)) == 1
    count = f"{sum(map(bool, quarters))} of {len(images)} images carry an EXIF orientation, and are "
    packing = (
        "packed as they are stored, since upright they would differ in size"
        if as_stored
        else "turned upright with their cameras"
    )
    of = [upright for number, upright in zip(quarters, of_upright, strict=True) if number]
    poses = (
        "of the upright images, as w and h say"
        if all(of)
        else f"of the images as stored{' or upright, as w and h say' * any(of)}"
    )
    advice = "" if all(of) else "; if they are of the upright ones, save these upright, without the orientation"
    remark(f"{count}{packing}; their poses are taken to be {poses}{advice}")
    backs = [0 if is_upright else number for number, is_upright in zip(quarters, of_upright, strict=True)]
    return [Turn(back, (back - as_stored * number) % 4) for number, back in zip(quarters, backs, strict=True)]


def turned(
    image: np.ndarray, K: np.ndarray, c2w: np.ndarray, quarters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image (H, W, C), turned by quarters clockwise, with its normalized intrinsics (3, 3) and pose (4, 4): every
    world point stays on the pixel that shows it."""
    for _ in range(quarters % 4):
        image = np.rot90(image, -1)
        K = np.array([[K[1, 1], 0, 1 - K[1, 2]], [0, K[0, 0], K[0, 2]], [0, 0, 1]])
        # the new x axis is the old -y, the new y axis the old x
        c2w = c2w @ np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return image, K, c2w


def _turned(size: tuple[int, int], quarters: int) -> tuple[int, int]:
    return size if quarters % 2 == 0 else size[::-1]


def _is_of(upright: tuple[int, int], quarters: int, stated: tuple[float, float] | None) -> bool:
    """Whether (width, height) of the intrinsics is wide where the upright image (height, width) is and the stored one
    is not.
    """
    if stated is None or quarters % 2 == 0:
        return False
    return (stated[0] - stated[1]) * (upright[1] - upright[0]) > 0
