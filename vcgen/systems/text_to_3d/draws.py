"""What is drawn for each random view: its light, and what lies behind it."""

import torch
from torch import Tensor

from vcgen.rendering.shading import Shading, light_near
from vcgen.systems.text_to_3d.options import TextTo3DOptions


def draw_shading(options: TextTo3DOptions, eye: Tensor, progress: float, generator: torch.Generator) -> Shading:
    """Albedo at first, then by the probabilities; the light stands near the camera, at ``eye`` (3,) from the middle."""
    light = light_near(eye, generator)
    fraction = torch.rand((), device=eye.device, generator=generator)
    albedo, lambertian, _ = options.shading
    if progress < options.albedo_only or fraction < albedo:
        return Shading()
    low, high = options.ambient
    ambient = low if low == high else low + (high - low) * torch.rand((), device=eye.device, generator=generator)
    return Shading("lambertian" if fraction < albedo + lambertian else "textureless", light, ambient)


def draw_color(options: TextTo3DOptions, device: torch.device, generator: torch.Generator) -> Tensor | float | None:
    """The color behind a view: (3,), 1 for white; None where the learned background is meant."""
    chance = options.random_background
    chosen = chance > 0 and bool(torch.rand((), device=device, generator=generator) < chance)
    if chosen or options.background == "random":
        return torch.rand(3, device=device, generator=generator)
    return 1.0 if options.background == "white" else None
