"""Whether images and cameras of a record agree: visual hulls and epipolar errors of matched features."""

import numpy as np
from skimage.color import rgb2gray
from skimage.feature import SIFT, match_descriptors
from skimage.morphology import dilation, disk

from vcgen.data.epipolar import epipolar_lines, fundamental_matrix
from vcgen.data.shards.record import SceneRecord, decode_views


def masks(record: SceneRecord, indices: list[int]) -> np.ndarray:
    """(n, H, W) bool: coverage above one half."""
    return decode_views(record, indices)[1][:, 0] > 0.5


def pixels_of(
    points: np.ndarray, c2w: np.ndarray, K: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """World points (n, 3) -> integer (column, row) (n, 2) and whether they lie in front of the camera and inside the
    image.
    """
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    image = local @ K.T
    pixel = np.floor(image[:, :2] / image[:, 2:] * [size[1], size[0]]).astype(int)
    return pixel, (local[:, 2] > 0) & (pixel >= 0).all(1) & (pixel < [size[1], size[0]]).all(1)


def visual_hull(
    record: SceneRecord, indices: list[int], c2w: np.ndarray, half: float, resolution: int = 80
) -> np.ndarray:
    """Centers (n, 3) of the voxels of the cube [-half, half]^3 that every mask, grown by a voxel's radius, covers."""
    line = (np.arange(resolution) + 0.5) / resolution * 2 * half - half
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    for index, mask in zip(indices, masks(record, indices), strict=True):
        grown = dilation(mask, disk(3))
        pixel, inside = pixels_of(points, c2w[index], record.K[index], record.size)
        points = points[inside][grown[pixel[inside, 1], pixel[inside, 0]]]
    return points


def coverage(record: SceneRecord, points: np.ndarray, index: int) -> tuple[float, float]:
    """Fraction of a view's mask within 3 pixels of a projected point, and fraction of projected points within 4 pixels
    of the mask.
    """
    pixel, inside = pixels_of(points, record.c2w[index], record.K[index], record.size)
    seen = np.zeros(record.size, dtype=bool)
    seen[pixel[inside, 1], pixel[inside, 0]] = True
    mask = masks(record, [index])[0]
    near = dilation(mask, disk(4))
    return dilation(seen, disk(3))[mask].mean(), near[pixel[inside, 1], pixel[inside, 0]].sum() / max(len(points), 1)


def matched_errors(record: SceneRecord, first: int, second: int) -> np.ndarray:
    """Epipolar errors in pixels of SIFT matches between two views."""
    keypoints, descriptors = [], []
    for image in decode_views(record, [first, second])[0]:
        detector = SIFT(upsampling=1)
        detector.detect_and_extract(rgb2gray(image.transpose(1, 2, 0)))
        keypoints.append(detector.keypoints[:, ::-1] + 0.5)
        descriptors.append(detector.descriptors)
    pairs = match_descriptors(*descriptors, max_ratio=0.7, cross_check=True)
    size = np.array([record.size[1], record.size[0]])
    F = fundamental_matrix(record.c2w[first], record.K[first], record.c2w[second], record.K[second])
    return epipolar_errors(F, keypoints[0][pairs[:, 0]] / size, keypoints[1][pairs[:, 1]] / size, record.size)


def epipolar_errors(F: np.ndarray, points_a: np.ndarray, points_b: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Distance in pixels (n,) of matched points of the second view to the epipolar lines of the first's; points
    normalized (n, 2).
    """
    pixels = np.concatenate([points_b * np.array([size[1], size[0]]), np.ones_like(points_b[:, :1])], -1)
    return np.abs((epipolar_lines(F, points_a, size) * pixels).sum(-1))
