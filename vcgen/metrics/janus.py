"""How many faces an object has: the fault of text-to-3D, where every side shows what the text says, named after the god
with two.
"""

import torch
from torch import Tensor

from vcgen.metrics.ssim import similarity

#: Degrees from the reference view at which other sides are looked at.
AZIMUTHS = 0.0, 90.0, 180.0, 270.0


def janus(images: Tensor, alpha: Tensor) -> float:
    """Mean similarity of the front to the three other sides, at most 1: that of an object that looks the same from all
    four.

    images: (4, 3, height, width) straight color in [0, 1], from :data:`AZIMUTHS` about the vertical axis at one
    elevation and distance; alpha: (4, 1, height, width) opacity. Similarity is SSIM with one window, the pixels where
    either image is more opaque than transparent, over mid-gray. Objects that are truly alike on all sides score high,
    too: compare with the truth's own score. 0 where nothing is seen."""
    over = (images * alpha + (1 - alpha) * 0.5).double().clamp(0, 1)
    front, sides = over[:1].expand(3, -1, -1, -1), over[1:]
    mask = (torch.maximum(alpha[:1], alpha[1:]) > 0.5).double()
    count = mask.sum((2, 3), keepdim=True)
    if not bool((count > 0).all()):
        return 0.0
    return float(similarity(front, sides, lambda x: (x * mask).sum((2, 3), keepdim=True) / count).mean())
