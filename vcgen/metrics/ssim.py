"""Structural similarity (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861) in the forms that published tables
use. They differ in window, border, covariance and range: docs/which_ssim.md says who uses which.

All take two (batch, 3, height, width) stacks in [0, 1] and return (batch,) in [-1, 1], computed in float64 and averaged
over the channels."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from vcgen.errors import UserError

#: Pixels along each side of the Gaussian window of all forms but :func:`ssim`, and its standard deviation.
WINDOW, STD = 11, 1.5


def ssim(prediction: Tensor, truth: Tensor, window: int = 7) -> Tensor:
    """As scikit-image defines it by default: a uniform window, sample covariance, border dropped; equal to it to
    1e-6. Both sides need at least ``window`` pixels.
    """
    _at_least(window, truth)
    unbiased = window**2 / (window**2 - 1)
    return similarity(prediction.double(), truth.double(), lambda x: avg_pool2d(x, window, stride=1), unbiased).mean(
        dim=(1, 2, 3)
    )


def ssim_gauss(prediction: Tensor, truth: Tensor) -> Tensor:
    """With a Gaussian window and zero padding, as Splatter Image and 3D Gaussian splatting compute it.

    0.01 to 0.03 above :func:`ssim` on objects before white: the two belong in different columns.
    """
    line = _line(truth)
    kernel = torch.outer(line, line).expand(3, 1, WINDOW, WINDOW)  # not in two steps: results are filed to the last bit
    mean = lambda x: conv2d(x, kernel, padding=WINDOW // 2, groups=3)  # noqa: E731
    return similarity(prediction.double(), truth.double(), mean).mean(dim=(1, 2, 3))


def ssim_valid(prediction: Tensor, truth: Tensor, unbiased: float = 1.0) -> Tensor:
    """With a Gaussian window where it fits into the image: Wang et al.'s own program, ``tf.image.ssim``, and
    torchmetrics before its pull request 2721 of September 2024.
    """
    _at_least(WINDOW, truth)
    return similarity(prediction.double(), truth.double(), _gaussian_mean, unbiased).mean(dim=(1, 2, 3))


def ssim_skimage_gauss(prediction: Tensor, truth: Tensor) -> Tensor:
    """scikit-image with ``gaussian_weights=True, win_size=11``, as pixelSplat calls it: :func:`ssim_valid`, but with
    the sample covariance factor of a uniform window.
    """
    return ssim_valid(prediction, truth, WINDOW**2 / (WINDOW**2 - 1))


def ssim_torchmetrics(prediction: Tensor, truth: Tensor) -> Tensor:
    """torchmetrics since its pull request 2721, with ``data_range=1.0``: a Gaussian window on reflected borders."""
    _at_least(WINDOW // 2 + 1, truth)
    mean = lambda x: _gaussian_mean(pad(x, (WINDOW // 2,) * 4, mode="reflect"))  # noqa: E731
    return similarity(prediction.double(), truth.double(), mean).mean(dim=(1, 2, 3))


def at_inferred_range(measure: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, truth: Tensor) -> Tensor:
    """A form of SSIM with the range that torchmetrics takes unless it is told one: the larger of the two images'
    differences between their highest and lowest value. 1 where both images are of one value each, which leaves
    torchmetrics without a number.
    """
    spans = [images.double().amax((1, 2, 3)) - images.double().amin((1, 2, 3)) for images in (prediction, truth)]
    span = torch.maximum(*spans)[:, None, None, None]
    span = torch.where(span > 0, span, 1.0)
    return measure(prediction.double() / span, truth.double() / span)


def similarity(
    x: Tensor, y: Tensor, mean: Callable[[Tensor], Tensor], unbiased: float = 1.0, k1: float = 0.01, k2: float = 0.03
) -> Tensor:
    """Wang et al. 2004, equation 13, of two stacks in [0, 1], at every place for which ``mean`` gives a local average.

    unbiased: factor on variances and covariance.
    """
    mean_x, mean_y = mean(x), mean(y)
    variance_x = unbiased * (mean(x * x) - mean_x**2)
    variance_y = unbiased * (mean(y * y) - mean_y**2)
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + k1**2) / (mean_x**2 + mean_y**2 + k1**2)
    structure = (2 * covariance + k2**2) / (variance_x + variance_y + k2**2)
    return luminance * structure


def _gaussian_mean(images: Tensor) -> Tensor:
    """Local averages under a Gaussian window where it fits: first along columns, then along rows."""
    weights = _line(images)
    columns = conv2d(images, weights[:, None].expand(3, 1, WINDOW, 1), groups=3)
    return conv2d(columns, weights.expand(3, 1, 1, WINDOW), groups=3)


def _line(images: Tensor) -> Tensor:
    offsets = torch.arange(WINDOW, dtype=torch.float64, device=images.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * STD**2))
    return weights / weights.sum()


def _at_least(pixels: int, images: Tensor) -> None:
    if min(images.shape[-2:]) < pixels:
        found = f"this SSIM needs images of at least {pixels} x {pixels} pixels, they are {tuple(images.shape[-2:])}"
        raise UserError(f"{found}; score larger ones")
