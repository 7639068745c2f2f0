"""Squares cut out of images, with the intrinsics of what is left."""

import numpy as np

#: Coverage above which a pixel shows the object, and how much larger than its box a square around it is: implicitron's
#: ``box_crop_mask_thr`` and ``box_crop_context``.
COVERED, ROOM = 0.4, 1.3


def centered_square(pixels: np.ndarray, K: np.ndarray) -> tuple[int, int, int]:
    """(left, top, side) in pixels of the largest square of an image (H, W, C) around the principal point of its
    normalized intrinsics, to the nearest pixel."""
    height, width = pixels.shape[:2]
    x, y = K[0, 2] * width, K[1, 2] * height
    side = max(1, int(2 * min(x, width - x, y, height - y)))
    left, top = round(x - side / 2), round(y - side / 2)
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side


def square_around(pixels: np.ndarray) -> tuple[int, int, int]:
    """(left, top, side) of the square around what an image (H, W, 4) in [0, 1] covers, ``ROOM`` times as large; it may
    reach outside. All of the image where it covers nothing."""
    covered = pixels[..., 3] > COVERED
    if not covered.any():
        return 0, 0, max(covered.shape)
    rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
    side = int(np.ceil(ROOM * (1 + max(np.ptp(rows), np.ptp(columns)))))
    return round((columns[0] + columns[-1] + 1 - side) / 2), round((rows[0] + rows[-1] + 1 - side) / 2), side


def cut(pixels: np.ndarray, K: np.ndarray, left: int, top: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The square of an image, zero where it reaches outside, and its normalized intrinsics."""
    height, width = pixels.shape[:2]
    square = np.zeros((side, side, pixels.shape[2]), pixels.dtype)
    y0, y1, x0, x1 = max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    moved = K * np.array([[width], [height], [1]]) - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]])
    return square, moved / np.array([[side], [side], [1]])
