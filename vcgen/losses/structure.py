"""Structural dissimilarity as a loss: blur costs more here than in a squared error."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vcgen.metrics.ssim import similarity

#: Pixels along the side of the uniform window, as scikit-image's SSIM has it.
WINDOW = 7


def structural_dissimilarity(
    images: Float[Tensor, "batch 3 height width"], truth: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, ""]:
    """Mean over images, channels and places of 1 - SSIM (:func:`vcgen.metrics.ssim.similarity` under a uniform window
    with population covariance), in [0, 2]; in the images' precision.
    """
    return 1 - similarity(images, truth, lambda x: avg_pool2d(x, WINDOW, stride=1)).mean()
