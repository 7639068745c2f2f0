"""Objects in other colors, so that a model that learns from them does not take a color for a kind of object."""

from dataclasses import replace

import torch
from torch import Tensor

from vcgen.data.color_names import hue_of
from vcgen.types import Views

#: Brightness is raised to a power between 1 / POWER and POWER.
POWER = 2.0
#: Fraction of the recolored that are tinted, too: without, white and gray objects would keep their color.
TINTED = 0.5


def recolored(views: Views, fraction: float, generator: torch.Generator) -> Views:
    """A ``fraction`` of the scenes of ``views`` (scenes, n), drawn at random, in other colors, all views of a scene
    alike: hues turned by one angle, brightness to a power, and half of them multiplied by one color. Opaque views stay
    as they are: their background would change, too.
    """
    if views.alpha is None:
        return views
    count = len(views.images)
    chosen, angle, power, tinted, hue, saturation = torch.rand(
        (6, count, 1, 1, 1), generator=generator, device=generator.device
    )
    colors = views.images.movedim(-3, -1)
    top, bottom = colors.amax(-1), colors.amin(-1)
    changed = rgb(hue_of(colors) + 360 * angle, (top - bottom) / top.clamp(min=1e-6), top ** (POWER ** (2 * power - 1)))
    tint = rgb(360 * hue, torch.where(tinted < TINTED, saturation, 0), torch.ones_like(hue))
    found = torch.where((chosen < fraction)[..., None], changed * tint, colors)
    return replace(views, images=found.movedim(-1, -3))


def rgb(hue: Tensor, saturation: Tensor, brightness: Tensor) -> Tensor:
    """RGB (..., 3) in [0, 1] of hue in degrees, saturation and brightness in [0, 1], each (...): HSV's inverse."""
    channels = []
    for shift in (5, 3, 1):
        place = (shift + hue / 60) % 6
        channels.append(brightness * (1 - saturation * torch.minimum(place, 4 - place).clamp(0, 1)))
    return torch.stack(channels, -1)
