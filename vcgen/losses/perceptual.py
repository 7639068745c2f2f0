"""A distance of deep features as a loss (Johnson et al., arXiv 1603.08155; LPIPS, arXiv 1801.03924).

Whoever trains by one network has to be judged by measures that do not share it."""

import torch
from jaxtyping import Float
from torch import Tensor

from vcgen.metrics.lpips import Network, PerceptualDistance, load_lpips


class PerceptualLoss:
    """LPIPS by one network: frozen, no part of the model, found where evaluation finds it.

    network: "vgg", "squeeze" or "alex".
    """

    def __init__(self, network: Network):
        self.network = network
        self.metric: PerceptualDistance | None = None

    def load(self) -> PerceptualDistance:
        """The network; errors as :func:`vcgen.metrics.lpips.find_weights`."""
        if self.metric is None:
            self.metric = load_lpips(self.network)
            self.metric.model.requires_grad_(False)
        return self.metric

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], truth: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, ""]:
        """Mean distance of two stacks in [0, 1], in float32 whatever the training's precision."""
        metric = self.load()
        metric.model.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return metric.distance(images, truth).mean()
