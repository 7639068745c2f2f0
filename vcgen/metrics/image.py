"""Image metrics, one number per image, each with one written definition that travels with every number."""

import math
import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from vcgen.errors import UserError
from vcgen.metrics.base import Column, Metric
from vcgen.metrics.lpips import LPIPS

#: Identical images have infinite PSNR; they count as this many dB, and results say how many reached it. At 128 x 128
#: pixels the smallest possible difference of two 8-bit images, one level in one channel of one pixel, is 95 dB.
PSNR_CAP = 100.0

#: What the metrics of this package mean, by family. A protocol file names the short form of a definition (left of the
#: colon) and is refused if it wants another.
COLUMNS = {
    "psnr": Column(
        "PSNR, dB",
        "db-per-image: -10 log10 of the mean squared error over all pixels and channels of one image, range 1; averaged"
        " in dB",
        higher_is_better=True,
        low=0.0,
        high=PSNR_CAP,
        decimals=2,
    ),
    # rounding may exceed 1 by a little
    "ssim": Column(
        "SSIM",
        "scikit-image: 7 x 7 uniform window, sample covariance N/(N-1), range 1, 3-pixel border dropped, channels"
        " averaged",
        higher_is_better=True,
        low=-1.001,
        high=1.001,
    ),
    "ssim_gauss": Column(
        "SSIM, Gaussian",
        "gaussian-11-zero-padded: 11 x 11 Gaussian window, std 1.5, population covariance, zero padding, channels"
        " averaged",
        higher_is_better=True,
        low=-1.001,
        high=1.001,
    ),
    "lpips": LPIPS,
}


def column(metric: str, others: Mapping[str, Column] = {}) -> Column:
    """What a column of that name means: ``lpips_vgg`` is of the family ``lpips``. others: of metrics that are not of
    this package. Raises ValueError where it is unknown.
    """
    found = COLUMNS.get("lpips" if metric.startswith("lpips") else metric) or others.get(metric)
    if found is None:
        raise ValueError(f"unknown metric {metric!r}; evaluate with --metrics where it is of a package of yours")
    return found


def check_values(values: Mapping[str, float], others: Mapping[str, Column] | None = None) -> None:
    """Raise ValueError for columns that are unknown, for none, and for values that the metric cannot have.

    others: see :func:`column`; None: columns that are not of this package may have any finite value.
    """
    for name, value in values.items() or [("", 0.0)]:
        foreign = re.fullmatch(r"(?!lpips)[a-z]\w{0,39}", name) and name not in COLUMNS
        if others is None and foreign and math.isfinite(value):
            continue
        known = column(name, others or {})
        if not known.low <= value <= known.high:
            raise ValueError(f"{name} is {value}, outside [{known.low:g}, {known.high:g}]")


def quantise(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit image; float in, float64 out, any shape."""
    return (images.double().clamp(0, 1) * 255).round() / 255


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image; (batch, 3, height, width) in [0, 1] -> (batch,). Infinite for
    identical images.
    """
    return -10 * torch.log10((prediction.double() - truth.double()).square().mean(dim=(1, 2, 3)))


def ssim(prediction: Tensor, truth: Tensor, window: int = 7) -> Tensor:
    """Structural similarity as scikit-image defines it by default (Wang et al. 2004 with a uniform window); equal to it
    to 1e-6.

    prediction, truth: (batch, 3, height, width) in [0, 1], both sides at least ``window`` pixels. Returns (batch,) in
    [-1, 1]."""
    unbiased = window**2 / (window**2 - 1)
    return similarity(prediction.double(), truth.double(), lambda x: avg_pool2d(x, window, stride=1), unbiased).mean(
        dim=(1, 2, 3)
    )


def ssim_gauss(prediction: Tensor, truth: Tensor, window: int = 11, std: float = 1.5) -> Tensor:
    """Structural similarity with a Gaussian window and zero padding, as Splatter Image and 3D Gaussian splatting
    compute it.

    prediction, truth: (batch, 3, height, width) in [0, 1]. Returns (batch,). About 0.013 above :func:`ssim` on objects
    before white: the two belong in different columns."""
    offsets = torch.arange(window, dtype=torch.float64, device=truth.device) - window // 2
    weights = torch.exp(-offsets.square() / (2 * std**2))
    weights = weights / weights.sum()
    kernel = torch.outer(weights, weights).expand(3, 1, window, window)
    mean = lambda x: conv2d(x, kernel, padding=window // 2, groups=3)  # noqa: E731
    return similarity(prediction.double(), truth.double(), mean).mean(dim=(1, 2, 3))


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


class Psnr(Metric):
    """:func:`psnr`, at most :data:`PSNR_CAP`."""

    name, column = "psnr", COLUMNS["psnr"]

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """See :class:`vcgen.metrics.base.Metric`."""
        return psnr(prediction, truth).clamp(max=PSNR_CAP)


class Ssim(Metric):
    """:func:`ssim`."""

    name, column = "ssim", COLUMNS["ssim"]

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """See :class:`vcgen.metrics.base.Metric`."""
        return ssim(prediction, truth)


class SsimGauss(Metric):
    """:func:`ssim_gauss`."""

    name, column = "ssim_gauss", COLUMNS["ssim_gauss"]

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """See :class:`vcgen.metrics.base.Metric`."""
        return ssim_gauss(prediction, truth)


class Metrics:
    """The columns of one evaluation: PSNR, both SSIMs, and further ones. Raises UserError for a name given twice."""

    def __init__(self, further: Sequence[Metric] = ()):
        self.all: tuple[Metric, ...] = (Psnr(), Ssim(), SsimGauss(), *further)
        for name in self.names:
            if self.names.count(name) > 1 or not re.fullmatch(r"\w{1,40}", name):
                raise UserError(f"a metric's name must be a word that no other has, {name!r} is not")

    @property
    def names(self) -> list[str]:
        """Column names in the order they are printed."""
        return [metric.name for metric in self.all]

    @property
    def others(self) -> dict[str, Column]:
        """The columns that are not of this package, by name."""
        own = (*COLUMNS, "lpips_vgg", "lpips_squeeze", "lpips_alex")
        return {metric.name: metric.column for metric in self.all if metric.name not in own}

    def __call__(self, prediction: Tensor, truth: Tensor) -> list[dict[str, float]]:
        """One record per image of two (batch, 3, height, width) stacks; both are clamped and quantised to 8 bit
        first.
        """
        prediction, truth = quantise(prediction), quantise(truth)
        values = [metric(prediction, truth).tolist() for metric in self.all]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*values, strict=True)]
