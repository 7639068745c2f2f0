"""The world of a camera solver has no up: which way it was is told by how people hold cameras."""

from typing import Literal

import numpy as np

from vcgen.data.formats.remarks import remark

Up = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]


def upright_turn(up: Up, c2w: np.ndarray) -> np.ndarray:
    """The least rotation (3, 3) of a world that makes ``up`` its z axis; "auto": as :func:`guessed_up` says, with a
    remark. c2w: (V, 4, 4) of images as they are to be looked at.
    """
    if up != "auto":
        return turn_to_z(np.eye(3)["xyz".index(up[-1])] * (-1 if up[0] == "-" else 1))
    guess, reason = guessed_up(c2w)
    where = ", ".join(f"{number:.3f}" for number in guess)
    remark(f"up was guessed as ({where}), {reason}, and became z; if the images lean, give --up")
    return turn_to_z(guess)


def guessed_up(c2w: np.ndarray) -> tuple[np.ndarray, str]:
    """A unit vector (3,) and why: perpendicular to the rows of all images, where people held the camera level and
    turned it; else the images' mean upward direction; else z, where these cancel out.
    """
    right, upward = c2w[:, :3, 0], -c2w[:, :3, 1].mean(0)
    length = float(np.linalg.norm(upward))
    values, vectors = np.linalg.eigh(right.T @ right / len(right))
    level = vectors[:, 0] * (1 if vectors[:, 0] @ upward > 0 else -1)
    # the second value: how far the cameras turned about up; the first: how far they were tilted sideways
    if values[1] > 0.02 and values[0] < 0.15 * values[1] and level @ upward > 0.5 * length > 0.05:
        return level, "perpendicular to the rows of the images"
    if length > 0.1:
        return upward / length, "the images' mean upward direction"
    return np.array([0.0, 0, 1]), "since the images' upward directions cancel out"


def turn_to_z(up: np.ndarray) -> np.ndarray:
    """The least rotation (3, 3) that turns a unit vector into (0, 0, 1); half a turn about x for its opposite."""
    x, y, z = up
    if z < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    return np.array(
        [[1 - x * x / (1 + z), -x * y / (1 + z), -x], [-x * y / (1 + z), 1 - y * y / (1 + z), -y], [x, y, z]]
    )
