"""Words for colors: the eleven basic terms of English (Berlin and Kay, 1969)."""

import torch
from torch import Tensor

from vcgen.types import Views

#: Color words, and an RGB color in [0, 1] that each stands for.
COLORS = {
    "red": (0.75, 0.15, 0.12),
    "orange": (0.9, 0.5, 0.15),
    "yellow": (0.9, 0.8, 0.25),
    "green": (0.25, 0.6, 0.25),
    "blue": (0.2, 0.4, 0.75),
    "purple": (0.5, 0.3, 0.6),
    "pink": (0.9, 0.55, 0.65),
    "brown": (0.45, 0.3, 0.2),
    "white": (0.92, 0.92, 0.92),
    "gray": (0.55, 0.55, 0.55),
    "black": (0.12, 0.12, 0.12),
}
#: Below this brightness (the largest of R, G and B) all is black.
DARK = 0.14
#: A color of less saturation, or less range between its channels, has no hue.
SATURATION, RANGE = 0.2, 0.07
#: The darkest white and the darkest gray.
WHITE, GRAY = 0.82, 0.28
#: Upper end of each hue in degrees, around the circle from red on.
HUES = {"red": 18, "orange": 46, "yellow": 68, "green": 168, "blue": 255, "purple": 300, "pink": 342, "red again": 360}


def color_numbers(colors: Tensor) -> Tensor:
    """The place in :data:`COLORS` of the word for each RGB color in [0, 1], (..., 3): (...) int64.

    By hue, saturation and brightness, so that a shaded side has its object's word: the nearest RGB color would call a
    dark red or green brown or black.
    """
    top, bottom = colors.amax(-1), colors.amin(-1)
    extent = top - bottom
    saturation = extent / top.clamp(min=1e-6)
    hue = hue_of(colors)
    words = list(COLORS)
    ends = torch.tensor(list(HUES.values()), dtype=colors.dtype).to(colors.device, non_blocking=True)
    places = torch.tensor([words.index(name.split()[0]) for name in HUES]).to(colors.device, non_blocking=True)
    found = places[torch.bucketize(hue, ends, right=True).clamp(max=len(HUES) - 1)]

    def change(where: Tensor, word: str) -> None:
        found.masked_fill_(where, words.index(word))

    red = (hue < HUES["red"]) | (hue >= HUES["pink"])
    orange, yellow = (hue >= HUES["red"]) & (hue < HUES["orange"]), (hue >= HUES["orange"]) & (hue < HUES["yellow"])
    change(red & (saturation < 0.6) & (top > 0.65), "pink")
    change((hue >= 14) & (hue < HUES["red"]) & (top < 0.55), "brown")
    change(orange & ((top <= 0.75) | (saturation <= 0.6)), "brown")
    change(yellow & (top <= 0.6), "brown")
    change(yellow & (hue >= 52) & (top <= 0.6), "green")
    change((hue >= HUES["purple"]) & (hue < HUES["pink"]) & (top <= 0.6), "purple")
    neutral = (saturation < SATURATION) | (extent < RANGE)
    change(neutral, "gray")
    change(neutral & (top > WHITE), "white")
    change((neutral & (top <= GRAY)) | (top < DARK), "black")
    return found


def hue_of(colors: Tensor) -> Tensor:
    """Hue in degrees in [0, 360) of RGB colors (..., 3): (...); 0 for gray."""
    red, green, blue = colors.unbind(-1)
    top = colors.amax(-1)
    extent = (top - colors.amin(-1)).clamp(min=1e-6)
    sector = torch.where(top == red, (green - blue) / extent, torch.where(top == green, 2 + (blue - red) / extent, 4))
    return 60 * torch.where((top == blue) & (top != red) & (top != green), 4 + (red - green) / extent, sector) % 360


def color_words(views: Views) -> list[str]:
    """The word for most of a scene's object pixels, of all its views (scenes, n); "" for opaque images."""
    if views.alpha is None:
        return [""] * len(views.images)
    found = color_numbers(views.images.movedim(-3, -1).flatten(1, -2).float())
    votes = torch.zeros(len(found), len(COLORS), device=found.device)
    votes.scatter_add_(1, found, views.alpha.flatten(1).float())
    names = list(COLORS)
    return [names[best] for best in votes.argmax(1).tolist()]
