"""Textures by code, periodic so that they repeat without a seam: noise, marble, wood, checks, stripes, dots, bricks."""

import numpy as np
import torch
from numpy.typing import NDArray

from vcgen.meshes.synthesis.draws import Draws
from vcgen.meshes.synthesis.paint import Paint, paint

#: Texels along both sides.
SIDE = 96
Array = NDArray[np.float64]
PATTERNS = ("noise", "marble", "wood", "checks", "stripes", "dots", "bricks")


def waves(draws: Draws, u: Array, v: Array, highest: int, count: int = 8) -> Array:
    """A smooth random function with period 1 in u and v, about -1 to 1: a sum of waves of up to ``highest`` periods."""
    total = np.zeros_like(u)
    for _ in range(count):
        x, y = draws.whole(-highest, highest), draws.whole(0, highest)
        total += (
            draws.between(0.3, 1) * np.cos(2 * np.pi * (x * u + y * v + draws.between(0, 1))) / (1 + 0.3 * (abs(x) + y))
        )
    return total / max(float(np.abs(total).max()), 1e-9)


def texture(draws: Draws, kind: Paint) -> torch.Tensor:
    """(SIDE, SIDE, 4) uint8 opaque sRGB: a pattern between two or three colors, with a fine grain."""
    v, u = np.meshgrid((np.arange(SIDE) + 0.5) / SIDE, (np.arange(SIDE) + 0.5) / SIDE, indexing="ij")
    colors = np.stack([paint(draws, kind) for _ in range(3)])
    value = pattern(draws, draws.pick(*PATTERNS), u, v).clip(0, 1)
    mixed = (1 - value)[..., None] * colors[0] + value[..., None] * colors[1]
    spots = (waves(draws, u, v, 5) > draws.between(0.4, 1.2))[..., None]
    mixed = np.where(spots, 0.4 * mixed + 0.6 * colors[2], mixed)
    grain = draws.between(0, 0.06) * draws.random.normal(size=(SIDE, SIDE, 1)) + 0.08 * waves(draws, u, v, 3)[..., None]
    pixels = ((mixed * (1 + grain)).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return torch.from_numpy(np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1))


def pattern(draws: Draws, name: str, u: Array, v: Array) -> Array:
    """How much of the second color there is at u, v; about 0 to 1."""
    if name == "noise":
        return 0.5 + 0.5 * waves(draws, u, v, draws.whole(2, 10), 16)
    if name == "marble":
        turns = draws.whole(1, 4)
        return 0.5 + 0.5 * np.sin(2 * np.pi * (turns * (u + v) + 0.6 * waves(draws, u, v, 4)))
    if name == "wood":
        rings = draws.whole(3, 9) * (u + 0.12 * waves(draws, u, v, 2))
        return rings % 1
    if name == "stripes":
        turned = draws.whole(1, 8) * u + draws.whole(-3, 3) * v
        return (turned % 1 < draws.between(0.2, 0.8)).astype(float)
    count = draws.whole(2, 6)
    if name == "checks":
        return ((np.floor(2 * count * u) + np.floor(2 * count * v)) % 2).astype(float)
    if name == "dots":
        radius = draws.between(0.2, 0.45)
        return (np.hypot(count * u % 1 - 0.5, count * v % 1 - 0.5) < radius).astype(float)
    rows, joint = np.floor(2 * count * v), draws.between(0.05, 0.15)
    across, along = (count * u + 0.5 * (rows % 2)) % 1, 2 * count * v % 1
    return ((across > joint / 2) & (along > joint)).astype(float)
