"""Image metrics, one number per image, each with one written definition that travels with every number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from vcgen.metrics.lpips import PerceptualDistance

#: Identical images have infinite PSNR; they count as this many dB, and results say how many reached it. At 128 x 128
#: pixels the smallest possible difference of two 8-bit images, one level in one channel of one pixel, is 95 dB.
PSNR_CAP = 100.0

#: metric -> the definition printed beside it. A protocol file names the short form (left of the colon) and is refused
#: if it wants another.
DEFINITIONS = {
    "psnr": (
        "db-per-image: -10 log10 of the mean squared error over all pixels and channels of one image, range 1; averaged"
        " in dB"
    ),
    "ssim": (
        "scikit-image: 7 x 7 uniform window, sample covariance N/(N-1), range 1, 3-pixel border dropped, channels"
        " averaged"
    ),
    "ssim_gauss": (
        "gaussian-11-zero-padded: 11 x 11 Gaussian window, std 1.5, population covariance, zero padding, channels"
        " averaged"
    ),
    "lpips": (
        "v0.1: learned perceptual distance, inputs in [-1, 1], the package's linear heads on an ImageNet network named"
        " in the column"
    ),
}

#: metric -> does a larger value mean a better image?
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "ssim_gauss": True, "lpips": False}


#: metric -> the least and the largest value that there is; rounding may exceed 1 by a little.
RANGES = {"psnr": (0.0, PSNR_CAP), "ssim": (-1.001, 1.001), "ssim_gauss": (-1.001, 1.001), "lpips": (0.0, 100.0)}


def family(metric: str) -> str:
    """The key of :data:`DEFINITIONS` for a column: ``lpips_vgg`` -> ``lpips``."""
    return "lpips" if metric.startswith("lpips") else metric


def check_values(values: Mapping[str, float]) -> None:
    """Raise ValueError for columns that this version does not know, for none, and for values that the metric cannot
    have.
    """
    if unknown := [name for name in values or [""] if family(name) not in RANGES]:
        raise ValueError(f"unknown metric {unknown[0]!r}")
    for name, value in values.items():
        low, high = RANGES[family(name)]
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}, outside [{low:g}, {high:g}]")


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


@dataclass(frozen=True)
class Metrics:
    """The columns of one evaluation. perceptual: network name -> loaded distance; may be empty."""

    perceptual: Mapping[str, PerceptualDistance] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Column names in the order they are printed."""
        return ["psnr", "ssim", "ssim_gauss", *(f"lpips_{net}" for net in self.perceptual)]

    def __call__(self, prediction: Tensor, truth: Tensor) -> list[dict[str, float]]:
        """One record per image of two (batch, 3, height, width) stacks; both are clamped and quantised to 8 bit
        first.
        """
        prediction, truth = quantise(prediction), quantise(truth)
        columns = {
            "psnr": psnr(prediction, truth).clamp(max=PSNR_CAP),
            "ssim": ssim(prediction, truth),
            "ssim_gauss": ssim_gauss(prediction, truth),
        }
        columns |= {f"lpips_{net}": distance(prediction, truth) for net, distance in self.perceptual.items()}
        values = [columns[name].tolist() for name in self.names]
        return [dict(zip(self.names, row)) for row in zip(*values)]
