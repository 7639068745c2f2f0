"""The losses of patches by name; a patch is an image, so they can compare more than single pixels."""

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn.functional import l1_loss

from vcgen.losses.gradients import gradient_difference
from vcgen.losses.perceptual import PerceptualLoss
from vcgen.losses.structure import structural_dissimilarity
from vcgen.metrics.lpips import Network

#: Two stacks (n, 3, side, side) in [0, 1], images and truth, to their mean difference.
PatchLoss = Callable[[Tensor, Tensor], Tensor]
WITHOUT_NETWORK: Mapping[str, PatchLoss] = {
    "absolute": l1_loss,
    "structure": structural_dissimilarity,
    "gradients": gradient_difference,
}
NAMES = (*WITHOUT_NETWORK, "perceptual")


def weighted(weights: Mapping[str, float], network: Network) -> dict[str, PatchLoss]:
    """The losses that have a weight above 0. network: of "perceptual", which finds its file when it is first needed."""
    known: dict[str, PatchLoss] = {**WITHOUT_NETWORK, "perceptual": PerceptualLoss(network)}
    return {name: known[name] for name in NAMES if weights.get(name)}
