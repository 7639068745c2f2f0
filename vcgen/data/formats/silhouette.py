"""How large an object is, by its outlines in images with known cameras."""

import numpy as np


def outline_radius(coverage: np.ndarray, K: np.ndarray, c2w: np.ndarray, middle: np.ndarray) -> float:
    """How far the ray through an object's outline that passes ``middle`` (3,) farthest passes it: what a ball around it
    needs at least to hold the object, and exactly that where the object is seen in profile. 0 for no object.

    coverage: (H, W), an object where it is above one half. K: (3, 3) normalized. c2w: (4, 4), OpenCV axes.
    """
    height, width = coverage.shape
    covered = coverage > 0.5
    rows = np.flatnonzero(covered.any(1))
    if not len(rows):
        return 0.0
    left = covered[rows].argmax(1)
    right = width - covered[rows, ::-1].argmax(1)
    corners = [(x, y) for x in (left, right) for y in (rows, rows + 1)]  # of the pixels at both ends of each row
    u, v = (np.concatenate(parts) for parts in zip(*corners, strict=True))
    rays = np.stack([(u / width - K[0, 2]) / K[0, 0], (v / height - K[1, 2]) / K[1, 1], np.ones(len(u))], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    local = (middle - c2w[:3, 3]) @ c2w[:3, :3]
    return float(np.linalg.norm(np.cross(rays, local), axis=-1).max())
