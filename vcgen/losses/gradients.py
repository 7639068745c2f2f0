"""Differences of neighboring pixels at several scales as a loss: edges must be as steep as in the truth."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

#: Each has half the resolution of the one before.
SCALES = 3


def gradient_difference(
    images: Float[Tensor, "batch 3 height width"], truth: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, ""]:
    """Mean over scales of the mean absolute difference, over pixels, channels and both axes, of the two stacks' forward
    differences. A constant added to an image changes nothing.
    """
    error, total = images - truth, images.new_zeros(())
    for scale in range(SCALES):
        error = avg_pool2d(error, 2) if scale else error
        total = total + (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2
    return total / SCALES
