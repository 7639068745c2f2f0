"""The terms of the objective of a scene that is fitted to a text, and to a photo, and their weights."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vcgen.losses.course import Course, check_course, value_at
from vcgen.schema import NotNegative, check_options

#: Weight of the photo's color and opacity against score distillation, by the latter's reduction.
AGAINST = {"mean": (5.0, 0.5), "sum": (1000.0, 500.0)}
#: The orientation's weight at the start of a run, relative to its end.
ORIENTATION_START = 0.01
#: Depth of the background and the side of a view's middle, of its own (score Jacobian chaining: 10 at distance 1.5, and
#: 50 of 64 pixels).
BACKGROUND_DEPTH, MIDDLE = 10.0, 50 / 64


@dataclass(frozen=True)
class SceneWeights:
    """Weights of the losses of a scene that is fitted to a text.

    All losses are means, except ``sds``, which is as ``sds_reduction`` says.

    Args:
        sds: Of half the squared distance of latents to their targets; of ClipGuidance's losses, "clip" and
            "transmittance", in its place.
        sds_reduction: "mean" over all entries, or "sum" over a latent's entries, mean over views.
        smoothness: Of the image of normals, mean over pixels and coordinates.
        orientation: Of normals that face away, mean over rays; it grows from a hundredth to this over the run.
        opacity: Of sqrt(a^2 + 0.01), mean over rays.
        entropy: Of opacity's entropy in bits, mean over rays; 0 in the first half of the run, then growing.
        emptiness: Of log(1 + 10 w), mean over the weights w of all samples of all rays: against haze. A number, or
            points (fraction of the run, weight), linear in between.
        contrast: Of how little the middle of a view is nearer than its border, mean over views, see
            :func:`depth_contrast`; as emptiness.
    """

    sds: NotNegative = 1.0
    sds_reduction: Literal["mean", "sum"] = "mean"
    smoothness: NotNegative = 0.5
    orientation: NotNegative = 1e-2
    opacity: NotNegative = 1e-3
    entropy: NotNegative = 1e-3
    emptiness: Course = 0.0
    contrast: Course = 0.0

    def __post_init__(self) -> None:
        check_options(self)
        check_course(self.emptiness, "emptiness")
        check_course(self.contrast, "contrast")

    def at(self, progress: float) -> dict[str, float]:
        """The weights by the losses' names when the fraction ``progress`` in [0, 1] of the run is over."""
        return {
            **dict.fromkeys(("sds", "clip", "transmittance"), self.sds),
            "smoothness": self.smoothness,
            "opacity": self.opacity,
            "entropy": self.entropy * max(0.0, 2 * progress - 1),
            "orientation": self.orientation * ORIENTATION_START ** (1 - progress),
            "emptiness": value_at(self.emptiness, progress),
            "contrast": value_at(self.contrast, progress),
        }


@dataclass(frozen=True)
class LossWeights(SceneWeights):
    """Weights of RealFusion's losses: those of the photo beside :class:`SceneWeights`.

    Args:
        rgb: Of the squared error over rays and channels of the photo; null: 5 with the mean (the paper's number), 1000
            with the sum.
        mask: Of the squared error of opacity, over rays; null: 0.5 with the mean, 500 with the sum.
    """

    rgb: NotNegative | None = None
    mask: NotNegative | None = None

    def at(self, progress: float) -> dict[str, float]:
        """See :meth:`SceneWeights.at`."""
        rgb, mask = AGAINST[self.sds_reduction]
        return {
            "rgb": rgb if self.rgb is None else self.rgb,
            "mask": mask if self.mask is None else self.mask,
            **super().at(progress),
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


def emptiness(weights: Tensor, slope: float = 10.0) -> Tensor:
    """Mean of log(1 + slope w) over the weights of samples in their rays, all rays' and samples' (score Jacobian
    chaining, arXiv 2212.00774): w = 0 gives way at ``slope``, w = 1 at slope / (1 + slope), so that haze goes first.
    """
    return (slope * weights).log1p().mean()


def depth_contrast(depth: Tensor, alpha: Tensor) -> Tensor:
    """-log softplus(border - middle), mean over views: an object stands in the middle of its view, before the
    background.

    depth: (n, H, W) premultiplied by opacity alpha (n, H, W), world units; the mean depths of a view's middle and of
    its border are taken with BACKGROUND_DEPTH behind. The release of score Jacobian chaining takes the logarithm of a
    difference that is negative at first.
    """
    whole = depth + (1 - alpha) * BACKGROUND_DEPTH
    rows, columns = (round(side * (1 - MIDDLE) / 2) for side in whole.shape[-2:])
    middle = whole[:, rows : whole.shape[1] - rows, columns : whole.shape[2] - columns]
    rest = whole[0].numel() - middle[0].numel()
    border = (whole.sum((1, 2)) - middle.sum((1, 2))) / max(1, rest)
    return -F.softplus(border - middle.mean((1, 2))).log().mean()
