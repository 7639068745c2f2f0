"""Image metrics, one number per image, each with one written definition that travels with every number."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from vcgen.errors import UserError
from vcgen.metrics.base import PSNR_CAP, Column, Metric
from vcgen.metrics.dists import DISTS
from vcgen.metrics.gradients import gmsd
from vcgen.metrics.lpips import LPIPS
from vcgen.metrics.ssim import at_inferred_range, ssim, ssim_gauss, ssim_skimage_gauss, ssim_torchmetrics, ssim_valid


def _ssim(title: str, definition: str) -> Column:
    """Rounding may exceed 1 by a little."""
    return Column(title, definition, higher_is_better=True, low=-1.001, high=1.001)


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
    "psnr_unclamped": Column(
        "PSNR of floats, dB",
        "db-per-image-of-floats: as psnr, of the renderings as they are, neither clamped nor rounded to 8 bit",
        higher_is_better=True,
        low=-1000.0,
        high=PSNR_CAP,
        decimals=2,
    ),
    "ssim": _ssim(
        "SSIM",
        "scikit-image: 7 x 7 uniform window, sample covariance N/(N-1), range 1, 3-pixel border dropped, channels"
        " averaged",
    ),
    "ssim_gauss": _ssim(
        "SSIM, Gaussian",
        "gaussian-11-zero-padded: 11 x 11 Gaussian window, std 1.5, population covariance, zero padding, channels"
        " averaged",
    ),
    "ssim_skimage_gauss": _ssim(
        "SSIM, scikit-image's Gaussian",
        "scikit-image-gaussian-11: 11 x 11 Gaussian window, std 1.5, sample covariance N/(N-1), range 1, 5-pixel border"
        " dropped, channels averaged",
    ),
    "ssim_valid": _ssim(
        "SSIM, Gaussian inside",
        "gaussian-11-valid: 11 x 11 Gaussian window, std 1.5, population covariance, range 1, 5-pixel border dropped,"
        " channels averaged",
    ),
    "ssim_valid_inferred": _ssim(
        "SSIM, Gaussian inside, inferred range",
        "gaussian-11-valid-inferred-range: as ssim_valid, range the larger of the two images' maximum minus minimum, 1"
        " where both are of one value each",
    ),
    "ssim_torchmetrics": _ssim(
        "SSIM, torchmetrics",
        "gaussian-11-reflected: 11 x 11 Gaussian window, std 1.5, population covariance, range 1, reflected borders,"
        " channels averaged",
    ),
    "ssim_torchmetrics_inferred": _ssim(
        "SSIM, torchmetrics, inferred range",
        "gaussian-11-reflected-inferred-range: as ssim_torchmetrics, range the larger of the two images' maximum minus"
        " minimum, 1 where both are of one value each",
    ),
    "gmsd": Column(
        "GMSD",
        "xue-2014: standard deviation of gradient magnitude similarity, Prewitt on luma at half the resolution, T = 170"
        " of 255",
        higher_is_better=False,
        low=0.0,
        high=1.0,
        decimals=4,
    ),
    "lpips": LPIPS,
    "dists": DISTS,
}


#: The names of the columns of this package, and what others may be called.
OWN = (*COLUMNS, "lpips_vgg", "lpips_squeeze", "lpips_alex")
OTHER = re.compile(r"(?!lpips)[a-z]\w{0,39}")


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
        foreign = OTHER.fullmatch(name) and name not in COLUMNS
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


class Function(Metric):
    """A metric that is a function of two stacks of images; it needs no weights."""

    def __init__(self, name: str, function: Callable[[Tensor, Tensor], Tensor], quantised: bool = True):
        self.name, self.column, self.function, self.quantised = name, COLUMNS[name], function, quantised

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """See :class:`vcgen.metrics.base.Metric`."""
        return self.function(prediction, truth)


def _capped(prediction: Tensor, truth: Tensor) -> Tensor:
    return psnr(prediction, truth).clamp(max=PSNR_CAP)


#: The metrics that every evaluation has.
DEFAULT = (Function("psnr", _capped), Function("ssim", ssim), Function("ssim_gauss", ssim_gauss))
#: Those that it has where a protocol or a user names them.
FURTHER = {
    metric.name: metric
    for metric in (
        Function("psnr_unclamped", _capped, quantised=False),
        Function("ssim_skimage_gauss", ssim_skimage_gauss),
        Function("ssim_valid", ssim_valid),
        Function("ssim_valid_inferred", partial(at_inferred_range, ssim_valid)),
        Function("ssim_torchmetrics", ssim_torchmetrics),
        Function("ssim_torchmetrics_inferred", partial(at_inferred_range, ssim_torchmetrics)),
        Function("gmsd", gmsd),
    )
}


class Metrics:
    """The columns of one evaluation: PSNR, both SSIMs, and further ones. Raises UserError for a name given twice, and
    for one that a column cannot have.
    """

    def __init__(self, further: Sequence[Metric] = ()):
        self.all: tuple[Metric, ...] = (*DEFAULT, *further)
        for name in self.names:
            if self.names.count(name) > 1 or not (name in OWN or OTHER.fullmatch(name)):
                advice = "letters, digits and underscores, the first a small letter, and not beginning with lpips"
                raise UserError(f"a metric's name must be a word that no other has ({advice}), {name!r} is not")

    @property
    def names(self) -> list[str]:
        """Column names in the order they are printed."""
        return [metric.name for metric in self.all]

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of the weights of those columns that have some."""
        return {metric.name: metric.sha256 for metric in self.all if metric.sha256}

    @property
    def others(self) -> dict[str, Column]:
        """The columns that are not of this package, by name."""
        return {metric.name: metric.column for metric in self.all if metric.name not in OWN}

    def __call__(self, prediction: Tensor, truth: Tensor) -> list[dict[str, float]]:
        """One record per image of two (batch, 3, height, width) stacks; both are clamped and quantised to 8 bit
        first, but for metrics that want them as they are. Raises UserError for a metric whose values are not one for
        each image, or such as its column says that there are none.
        """
        rounded, exact = (quantise(prediction), quantise(truth)), (prediction.double(), truth.double())
        values = [_values(metric, *(rounded if metric.quantised else exact)) for metric in self.all]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*values, strict=True)]


def _values(metric: Metric, prediction: Tensor, truth: Tensor) -> list[float]:
    found = metric(prediction, truth)
    if found.shape != (len(truth),):
        raise UserError(f"metric {metric.name} gives values {tuple(found.shape)} of {len(truth)} images; give one each")
    low, high = metric.column.low, metric.column.high
    if odd := [value for value in found.tolist() if not low <= value <= high]:  # NaN is in no range
        raise UserError(f"metric {metric.name} is {odd[0]:g}, its column allows [{low:g}, {high:g}]; mend one of them")
    return found.tolist()
