"""Two-view geometry in numpy: the fundamental matrix of two stored cameras, and distances of points to epipolar
lines.
"""

import numpy as np


def fundamental_matrix(c2w_a: np.ndarray, K_a: np.ndarray, c2w_b: np.ndarray, K_b: np.ndarray) -> np.ndarray:
    """F (3, 3) with x_b^T F x_a = 0 for the images x of one world point, homogeneous normalized image points (Hartley &
    Zisserman, 9.2).
    """
    a_to_b = np.linalg.inv(c2w_b) @ c2w_a
    x, y, z = a_to_b[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.inv(K_b).T @ cross @ a_to_b[:3, :3] @ np.linalg.inv(K_a)


def epipolar_lines(F: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Normalized points (n, 2) of the first view -> lines (n, 3) of the second, a x + b y + c = 0 in *pixels*, a^2 +
    b^2 = 1.

    size: (height, width) of the second view.
    """
    lines = np.concatenate([points, np.ones_like(points[:, :1])], -1) @ F.T
    lines = lines / np.array([size[1], size[0], 1.0])
    return lines / np.linalg.norm(lines[:, :2], axis=-1, keepdims=True)
