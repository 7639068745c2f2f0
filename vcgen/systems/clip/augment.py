"""Renders over random backgrounds, moved and resized: a CLIP that guides or judges sees scenes over any of them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vcgen.types import Views

#: Fraction of the backgrounds that are white; the others are flat, smooth noise or pixel noise, alike often.
WHITE = 0.4
#: Highest and lowest size of the object, relative to its own, and how far it moves, as a fraction of half the image.
SCALES, SHIFT = (0.75, 1.25), 0.15


def random_backgrounds(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(count, 3, height, width) in [0, 1]; Dream Fields (arXiv 2112.01455) has checkers in place of the flat ones."""
    device = generator.device

    def draw(*shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator, device=device)

    kind, flat, noise = draw(1, 1, 1), draw(3, 1, 1).expand(-1, -1, *size), draw(3, *size)
    smooth = F.interpolate(draw(3, 4, 4), size, mode="bicubic").clamp(0, 1)
    step = (1 - WHITE) / 3
    found = torch.ones_like(noise)
    for number, background in enumerate((flat, smooth, noise)):
        found = torch.where(kind >= WHITE + number * step, background, found)
    return found


def augmented(views: Views, generator: torch.Generator) -> Tensor:
    """Views (n,) moved, resized and composited over random backgrounds: (n, 3, height, width). Opaque ones stay as they
    are. Mixed precision does not change it: in bfloat16 places in the image would be a tenth of a pixel beside.
    """
    if views.alpha is None:
        return views.images
    count, (low, high) = len(views.images), SCALES
    draws = torch.rand((count, 3), generator=generator, device=generator.device)
    scale = low + (high - low) * draws[:, :1]
    shift = SHIFT * (2 * draws[:, 1:] - 1)
    zoom = torch.eye(2, device=draws.device) / scale[:, None]
    with torch.autocast(draws.device.type, enabled=False):
        grid = F.affine_grid(torch.cat([zoom, shift[..., None]], 2), [count, 4, *views.size], align_corners=False)
    # premultiplied, for the color of empty pixels must not bleed into the object
    layer = torch.cat([views.images * views.alpha, views.alpha], 1)
    moved = F.grid_sample(layer, grid, mode="bilinear", align_corners=False)
    return moved[:, :3] + (1 - moved[:, 3:]) * random_backgrounds(count, views.size, generator)
