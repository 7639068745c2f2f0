"""Three dots at known places, drawn as known cameras see them: the truth of the tests of layouts."""

import numpy as np

from geometry import epipolar_errors
from vcgen.data.epipolar import fundamental_matrix
from vcgen.data.shards.record import SceneRecord, decode_views

#: Where the dots are in the world; the first lights up red, the second green, the third blue.
DOTS = np.array([[0.25, 0.0, 0.1], [-0.2, 0.2, 0.0], [0.0, -0.25, -0.15]])


def project(points: np.ndarray, c2w: np.ndarray, K: np.ndarray) -> np.ndarray:
    """World points (n, 3) -> image points (n, 2), as fractions of the image. K: normalized."""
    image = (points - c2w[:3, 3]) @ c2w[:3, :3] @ K.T
    return image[:, :2] / image[:, 2:]


def draw_dots(size: tuple[int, int], c2w: np.ndarray, K: np.ndarray, points: np.ndarray = DOTS) -> np.ndarray:
    """uint8 (height, width, 3): black, with a soft dot of one channel at each point."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    spots = project(points, c2w, K) * [size[1], size[0]]
    width = min(size) / 45  # pixels
    dots = [np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * width**2)) for u, v in spots]
    return np.round(255 * np.stack(dots, -1)).astype(np.uint8)


def centroids(record: SceneRecord, background: float = 0.0) -> np.ndarray:
    """Where the dots are in the images, (V, 3, 2), as fractions of the image."""
    weights = np.abs(decode_views(record, range(len(record.views)))[0].astype(np.float64) - background)
    weights[weights < 0.1] = 0  # what JPEG adds
    height, width = record.size
    rows, columns = np.mgrid[:height, :width] + 0.5
    weights /= weights.sum((2, 3), keepdims=True)
    return np.stack([(weights * columns).sum((2, 3)) / width, (weights * rows).sum((2, 3)) / height], -1)


def worst_error(record: SceneRecord, points: np.ndarray = DOTS) -> float:
    """The farthest, in pixels, that a dot of the images is from where the record's cameras see its point."""
    seen = np.stack([project(points, c2w, K) for c2w, K in zip(record.c2w, record.K, strict=True)])
    return float((np.abs(centroids(record) - seen) * record.size[::-1]).max())


def worst_epipolar_error(record: SceneRecord) -> float:
    """The farthest, in pixels, that a dot is from the epipolar line of what the first view shows of it."""
    found = centroids(record)
    errors = []
    for other in range(1, len(record.views)):
        F = fundamental_matrix(record.c2w[0], record.K[0], record.c2w[other], record.K[other])
        errors.append(epipolar_errors(F, found[0], found[other], record.size).max())
    return float(max(errors))
