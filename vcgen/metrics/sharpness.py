"""How sharp renderings of an object are, without a reference: novel views of a photo's object have none."""

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from vcgen.metrics.gradients import LUMA

#: Opacity from which a pixel belongs to the object.
OPAQUE = 0.9


def sharpness(images: Tensor, alpha: Tensor) -> float:
    """The root mean square frequency of luma inside the object, in cycles per side of the image.

    That is side / (2 pi) times the square root of the mean squared gradient (differences to the next pixel, to the
    right and down) over the variance within each image, both over the pixels of all images that are opaque with their
    eight neighbors: the outline and what lies behind do not count, neither do contrast and brightness. Blur lowers it,
    since it takes more of what is fast than of what is slow, until one frequency is left. Noise is fast, too, and where
    all is nearly of one color nothing else is left: compare with the truth's own score. 0 where nothing is inside, or
    all of one color.

    images: (n, 3, height, width) straight color in [0, 1]; alpha: (n, 1, height, width) opacity.
    """
    luma = torch.einsum("nchw,c->nhw", images.double(), images.new_tensor(LUMA, dtype=torch.float64))[:, None]
    thin = pad((alpha < OPAQUE).double(), (1,) * 4, value=1.0)
    inside = (max_pool2d(thin, 3, stride=1) == 0).double()
    count = inside.sum((2, 3), keepdim=True)
    middle = (luma * inside).sum((2, 3), keepdim=True) / count.clamp(min=1)
    variance = float(((luma - middle).square() * inside).sum() / count.sum().clamp(min=1))
    if variance < 1e-12:
        return 0.0
    steep = sum(_mean_square(luma.diff(dim=axis), inside, axis) for axis in (2, 3))
    return math.sqrt(steep / variance) * max(luma.shape[-2:]) / (2 * math.pi)


def _mean_square(differences: Tensor, inside: Tensor, axis: int) -> float:
    """Over the pairs of neighbors along an axis that are both inside."""
    length = differences.shape[axis]
    pairs = inside.narrow(axis, 0, length) * inside.narrow(axis, 1, length)
    return float((differences.square() * pairs).sum() / pairs.sum().clamp(min=1))
