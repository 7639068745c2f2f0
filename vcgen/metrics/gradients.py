"""Gradient magnitude similarity deviation (Xue et al. 2014, https://doi.org/10.1109/TIP.2013.2293423): how unevenly
edges are kept. It needs no trained network, so it can judge models whose loss is one."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from vcgen.errors import UserError

#: The authors' constant for images in [0, 255].
T = 170.0
#: From color to luma (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


def gmsd(prediction: Tensor, truth: Tensor) -> Tensor:
    """As the authors' program: the standard deviation (n - 1) over all places of the similarity of gradient magnitudes
    (Prewitt, zero padding) of luma at half the resolution. Two (batch, 3, height, width) stacks in [0, 1] -> (batch,),
    0 for equal images. Raises UserError where there is one place only, which has no deviation.
    """
    if max(truth.shape[-2:]) < 3:
        found = f"GMSD needs images with a side of at least 3 pixels, they are {tuple(truth.shape[-2:])}"
        raise UserError(f"{found}; score larger ones")
    x, y = magnitude(prediction), magnitude(truth)
    similarity = (2 * x * y + T / 255**2) / (x.square() + y.square() + T / 255**2)
    return similarity.flatten(1).std(dim=1)


def magnitude(images: Tensor) -> Tensor:
    """Gradient magnitudes (batch, ceil(height / 2), ceil(width / 2)) of images (batch, 3, height, width), float64."""
    luma = torch.einsum("bchw,c->bhw", images.double(), images.new_tensor(LUMA, dtype=torch.float64))[:, None]
    half = avg_pool2d(pad(luma, (0, luma.shape[-1] % 2, 0, luma.shape[-2] % 2)), 2)
    across = half.new_tensor([1.0, 0.0, -1.0]).expand(3, 3) / 3
    both = conv2d(half, torch.stack([across, across.T])[:, None], padding=1)
    return both.square().sum(1).sqrt()
