"""A metric: gradient magnitude similarity deviation (Xue et al. 2014, arXiv 1308.3052)."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from vcgen.metrics.base import Column, Metric

#: The paper's c = 170 for values in [0, 255].
C = 170 / 255**2


class Gmsd(Metric):
    """Standard deviation over the image of how alike the gradients are; 0 for identical images."""

    name = "gmsd"
    column = Column(
        "GMSD",
        "2014: Prewitt gradients of luminance (BT.601) after 2 x 2 means, c = 170 / 255^2, population deviation",
        higher_is_better=False,
        low=0.0,
        high=1.0,
        decimals=4,
    )

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        first, second = gradients(prediction), gradients(truth)
        likeness = (2 * first * second + C) / (first.square() + second.square() + C)
        return likeness.flatten(1).std(1, correction=0)


def gradients(images: Tensor) -> Tensor:
    """Magnitudes (batch, 1, height / 2, width / 2)."""
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    small = avg_pool2d((images * weights).sum(1, keepdim=True), 2)
    across = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=images.dtype, device=images.device) / 3
    kernels = torch.stack([across, across.mT])[:, None]
    return conv2d(small, kernels, padding=1).square().sum(1, keepdim=True).sqrt()
