"""Spoils the renderings that a prior is trained with: a field renders the objects that it was trained on better than
others, and a prior that has seen only those would trust the others too much.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

#: A Gaussian is cut off at so many standard deviations.
CUTOFF = 3.0


def spoiled(maps: Tensor, blur: float, noise: float, generator: torch.Generator) -> Tensor:
    """Renderings (n, channels, H, W) blurred and noised, as conditions of cascaded diffusion models are (arXiv
    2106.15282, section 4.2): each by its own standard deviations, uniform in [0, blur] pixels and in [0, noise].
    """
    levels = torch.rand(len(maps), 2, generator=generator, device=maps.device)
    if blur:
        maps = blurred(maps, levels[:, 0] * blur, blur)
    if noise:
        maps = maps + levels[:, 1, None, None, None] * noise * torch.randn(
            maps.shape, generator=generator, device=maps.device
        )
    return maps


def blurred(images: Tensor, deviations: Tensor, largest: float) -> Tensor:
    """Images (n, channels, H, W) under Gaussians of standard deviations (n,) in pixels, none above ``largest``. Edges
    are continued.
    """
    count, channels = images.shape[:2]
    reach = min(max(1, round(CUTOFF * largest)), min(images.shape[-2:]) - 1)
    place = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    bell = (-place.square() / (2 * deviations.clamp(min=1e-3)[:, None].square())).exp()
    bell = (bell / bell.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(images.flatten(0, 1)[None], (reach,) * 4, mode="replicate")
    # A kernel in bfloat16 does not add up to 1: the rendering would be off by a level of 8 bits.
    with torch.autocast(images.device.type, enabled=False):
        for kernel in (bell[:, None, None, :], bell[:, None, :, None]):
            flat = F.conv2d(flat, kernel, groups=count * channels)
    return flat[0].unflatten(0, (count, channels))
