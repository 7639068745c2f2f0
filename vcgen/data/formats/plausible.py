"""Whether poses can be those of photographs of one thing: cameras that look at it, from where its ray bounds say, in a
world with z up.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

UP = np.array([0.0, 0.0, 1.0])

#: Turns OpenCV axes into OpenGL axes, and back.
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


class Aim(NamedTuple):
    """What (V, 4, 4) cameras look at. point: nearest to all optical axes; distance: the cameras' median one from it;
    miss: how far the axes pass it, root mean square, over distance; spread: the least mean squared sine between the
    axes and any direction, 0 where parallel; behind: cameras that have the point behind them."""

    point: np.ndarray
    distance: float
    miss: float
    spread: float
    behind: int

    def is_clear(self, tolerance: float = 0.25) -> bool:
        """Whether the cameras do look at one point: not so in a room seen from its middle, or in photographs of a
        view.
        """
        far_enough = self.distance > 1e-3 * float(np.linalg.norm(self.point))
        return self.spread > 0.01 and self.miss < tolerance and far_enough


def nearest_to_axes(c2w: np.ndarray) -> np.ndarray:
    """The world point (3,) with the least sum of squared distances to the optical axes of (V, 4, 4) cameras."""
    axes, centers = c2w[:, :3, 2], c2w[:, :3, 3]
    projectors = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    return np.linalg.lstsq(projectors.sum(0), (projectors @ centers[:, :, None]).sum(0)[:, 0], rcond=None)[0]


def aim_of(c2w: np.ndarray) -> Aim:
    """See :class:`Aim`; OpenCV axes."""
    axes, offsets = c2w[:, :3, 2], (point := nearest_to_axes(c2w)) - c2w[:, :3, 3]
    along, distances = (offsets * axes).sum(-1), np.linalg.norm(offsets, axis=-1)
    miss = np.sqrt(np.maximum(distances**2 - along**2, 0).mean())
    spread = np.linalg.eigvalsh(np.eye(3) - axes.T @ axes / len(axes))[0]
    median = float(np.median(distances))
    return Aim(point, median, float(miss / max(median, 1e-12)), float(spread), int((along < 0).sum()))


def odd_poses(c2w: np.ndarray) -> list[str]:
    """What is wrong with the convention of (V, 4, 4) poses as they come from a source; nothing where it is not
    clear.
    """
    if (np.abs(c2w - c2w[0]) < 1e-9).all():
        return [f"all {len(c2w)} views have one pose: did the object turn before a camera that stood still?"]
    aim, inverse = aim_of(c2w), np.linalg.inv(c2w)
    if aim.is_clear() and not aim.behind:
        return []
    if not (aim.is_clear() and aim.behind == len(c2w)):
        others = [aim_of(other) for other in (inverse, inverse @ FLIP)]
        if any(other.is_clear(0.2) and not other.behind for other in others):
            return [
                (
                    "the cameras look past one another, and at one point if their poses are inverted: world-to-camera"
                    " matrices?"
                )
            ]
    if not aim.is_clear():
        return []
    reversal = "OpenCV poses where OpenGL ones belong, or the reverse?"
    return [f"the point that the cameras look at lies behind {aim.behind} of {len(c2w)} cameras: {reversal}"]


def odd_place(c2w: np.ndarray, near: float, far: float, up: np.ndarray = UP) -> list[str]:
    """What is wrong with the unit, the middle and the upward direction of (V, 4, 4) stored poses; nothing where it is
    not clear.
    """
    aim, texts = aim_of(c2w), []
    if aim.is_clear() and not near <= aim.distance <= far:
        place = f"the cameras stand {aim.distance:.4g} from the point they look at"
        texts.append(f"{place}, near and far are {near:g} and {far:g}: other units?")
    elif aim.is_clear() and np.linalg.norm(aim.point) > 0.5 * aim.distance:
        place = (
            f"the cameras look at a point {np.linalg.norm(aim.point):.4g} from the origin and stand {aim.distance:.4g}"
            " from it"
        )
        texts.append(f"{place}: models hold what is at the origin; pack with --recenter")
    if _is_tilted(c2w, up / np.linalg.norm(up)):
        upward, wanted = -c2w[:, :3, 1].mean(0), ", ".join(f"{x:g}" for x in up)
        advice = (
            f"turn the world, theirs is ({', '.join(f'{x:.2f}' for x in upward)})"
            if np.linalg.norm(upward) > 0.5
            else "turn them"
        )
        texts.append(f"the images are not upright in the world, whose up is ({wanted}); {advice}")
    return texts


def _is_tilted(c2w: np.ndarray, up: np.ndarray) -> bool:
    """Whether the world's up points sideways or down in nearly all images but those that look up or down, where there
    are enough others.
    """
    upward, forward = -c2w[:, :3, 1] @ up, c2w[:, :3, 2] @ up
    level = np.abs(forward) < 0.9
    tilted = upward[level] < 0.5 * np.sqrt(1 - forward[level] ** 2)
    return level.mean() >= 0.5 and tilted.mean() >= 0.9


def odd_pixels(K: np.ndarray, size: tuple[int, int]) -> list[str]:
    """What is wrong with (V, 3, 3) normalized intrinsics of images of ``size`` (height, width): pixels that are not
    square.
    """
    ratio = float(np.median(K[:, 0, 0] * size[1] / (K[:, 1, 1] * size[0])))
    if 1 / 1.05 <= ratio <= 1.05:
        return []
    found = f"the pixels are not square (fl_x / fl_y is {ratio:.3g})"
    return [f"{found}, and vcgen render takes them for square: keep the images' shape in --size"]


def odd_backdrop(pixels: Sequence[np.ndarray], background: str) -> list[str]:
    """What is wrong with "white" or "black" as what lies behind the object in opaque uint8 images: that their borders
    are not.
    """
    if background not in ("white", "black"):
        return []
    border = np.concatenate(
        [side[:, :3] for image in pixels for side in (image[0], image[-1], image[:, 0], image[:, -1])]
    )
    color = np.median(border, axis=0)
    if np.abs(color - (255 if background == "white" else 0)).max() <= 32:
        return []
    found = ", ".join(f"{x:.0f}" for x in color)
    return [
        (
            f"--background says {background}, and the borders of the images are ({found}) of 255: give black, white, or"
            " none"
        )
    ]
