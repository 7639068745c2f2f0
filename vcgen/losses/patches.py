"""The losses of patches by name; a patch is an image, so they can compare more than single pixels."""

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor
from torch.nn.functional import l1_loss

#: Two stacks (n, 3, side, side) in [0, 1], images and truth, to their mean difference.
PatchLoss = Callable[[Tensor, Tensor], Tensor]
NAMES = ("absolute", "structure", "gradients", "perceptual")


def weighted(weights: Mapping[str, float], network: Literal["vgg", "squeeze", "alex"]) -> dict[str, PatchLoss]:
    """The losses that have a weight above 0. network: of "perceptual", which finds its file when it is first needed."""
    # Here, so that renderings of a trained model need none of them.
    from vcgen.losses.gradients import gradient_difference
    from vcgen.losses.perceptual import PerceptualLoss
    from vcgen.losses.structure import structural_dissimilarity

    every: list[PatchLoss] = [l1_loss, structural_dissimilarity, gradient_difference, PerceptualLoss(network)]
    return {name: loss for name, loss in zip(NAMES, every, strict=True) if weights.get(name)}
