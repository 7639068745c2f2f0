"""Colors of numbers: depth, warm near and cold far; errors, white where there is none. Nothing here imports torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: matplotlib's Plasma (Smith, van der Walt and Firing 2015, CC0) at ninths, without its last one, a yellow that is hard
#: to see on white: its lightness rises evenly, so what looks nearer is nearer, in gray and to the color-blind, too.
PLASMA = ("0d0887", "46039f", "7201a8", "9c179e", "bd3786", "d8576b", "ed7953", "fb9f3a", "fdca26")
REDS = ("ffffff", "fccc8c", "e65438", "730a26")
#: Mean absolute difference over the channels, in the range 1, at which an error has the last color.
LARGEST_ERROR = 0.5


def depth_image(depth: NDArray[Any], near: float, far: float, alpha: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Depth (...) as colors (..., 3): yellow at ``near``, through red, to violet at ``far``; others are clamped.

    alpha: the same shape, opacity in [0, 1]; what is transparent fades to white.
    """
    color = colored((far - np.asarray(depth, np.float64)) / (far - near), PLASMA)
    if alpha is not None:
        coverage = np.asarray(alpha, np.float64)[..., None]
        color = color * coverage + (1 - coverage)
    return np.round(color * 255).astype(np.uint8)


def error_image(prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.uint8]:
    """The mean absolute difference of two images (3, height, width) in [0, 1] as colors (height, width, 3)."""
    return np.round(colored(np.abs(prediction - truth).mean(0) / LARGEST_ERROR, REDS) * 255).astype(np.uint8)


def colored(values: NDArray[Any], colors: tuple[str, ...]) -> NDArray[np.float64]:
    """Values (...), clamped to [0, 1], along a path of evenly spaced colors: (..., 3) in [0, 1]."""
    stops = np.array([list(bytes.fromhex(color)) for color in colors]) / 255
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, places, channel) for channel in stops.T], -1)
