"""The terms of RealFusion's objective, and their weights."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vcgen.schema import NotNegative, check_options

#: Weight of the photo's color and opacity against score distillation, by the latter's reduction.
AGAINST = {"mean": (5.0, 0.5), "sum": (1000.0, 500.0)}
#: The orientation's weight at the start of a run, relative to its end.
ORIENTATION_START = 0.01


@dataclass(frozen=True)
class LossWeights:
    """Weights of RealFusion's losses. All losses are means, except ``sds``, which is as ``sds_reduction`` says.

    Args:
        rgb: Of the squared error over rays and channels of the photo; null: 5 with the mean (the paper's number), 1000
            with the sum.
        mask: Of the squared error of opacity, over rays; null: 0.5 with the mean, 500 with the sum.
        sds: Of half the squared distance of latents to their targets.
        sds_reduction: "mean" over all entries, or "sum" over a latent's entries, mean over views.
        smoothness: Of the image of normals, mean over pixels and coordinates.
        orientation: Of normals that face away, mean over rays; it grows from a hundredth to this over the run.
        opacity: Of sqrt(a^2 + 0.01), mean over rays.
        entropy: Of opacity's entropy in bits, mean over rays; 0 in the first half of the run, then growing.
    """

    rgb: NotNegative | None = None
    mask: NotNegative | None = None
    sds: NotNegative = 1.0
    sds_reduction: Literal["mean", "sum"] = "mean"
    smoothness: NotNegative = 0.5
    orientation: NotNegative = 1e-2
    opacity: NotNegative = 1e-3
    entropy: NotNegative = 1e-3

    def __post_init__(self) -> None:
        check_options(self)

    def at(self, progress: float) -> dict[str, float]:
        """The weights by the losses' names when the fraction ``progress`` in [0, 1] of the run is over."""
        rgb, mask = AGAINST[self.sds_reduction]
        return {
            "rgb": rgb if self.rgb is None else self.rgb,
            "mask": mask if self.mask is None else self.mask,
            "sds": self.sds,
            "smoothness": self.smoothness,
            "opacity": self.opacity,
            "entropy": self.entropy * max(0.0, 2 * progress - 1),
            "orientation": self.orientation * ORIENTATION_START ** (1 - progress),
        }


def distance_to_targets(latents: Tensor, targets: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    """Half the squared distance of latents (n, ...) to targets that get no gradient: its gradient is latents - targets,
    divided by the number of latents ("sum") or of all entries ("mean"). As a loss among others it passes a gradient
    scaler unharmed.
    """
    half = 0.5 * (latents - targets.detach()).square()
    return half.mean() if reduction == "mean" else half.sum() / len(latents)


def normal_smoothness(normals: Tensor, width: int = 9) -> Tensor:
    """Mean squared difference of an image of normals (n, 3, H, W) and its Gaussian blur over ``width`` pixels, which
    gets no gradient.
    """
    width = min(width, 2 * ((min(normals.shape[-2:]) - 1) // 2) + 1)
    place = torch.arange(width, device=normals.device, dtype=normals.dtype) - width // 2
    bell = (-place.square() / (2 * (width / 6) ** 2)).exp()
    bell = (bell / bell.sum()).expand(3, 1, -1)
    with torch.no_grad():
        padded = F.pad(normals, (width // 2,) * 4, mode="replicate")
        blurred = F.conv2d(F.conv2d(padded, bell[:, :, None], groups=3), bell[:, :, :, None], groups=3)
    return (normals - blurred).square().mean()


def opacity_cost(alpha: Tensor) -> Tensor:
    """Mean of sqrt(a^2 + 0.01) (DreamFusion): little matter, but for where it pays."""
    return (alpha.square() + 0.01).sqrt().mean()


def opacity_entropy(alpha: Tensor) -> Tensor:
    """Mean entropy of opacities in bits: 0 where all is empty or full, 1 at a half."""
    sure = alpha.clamp(1e-5, 1 - 1e-5)
    return -(sure * sure.log2() + (1 - sure) * (1 - sure).log2()).mean()
