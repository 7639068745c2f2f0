"""A prior in closed form: images scatter about the field's rendering, with a deviation that is learned."""

import torch
from torch import Tensor, nn

from vcgen.diffusion.base import Condition, ImagePrior, to_signed
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise
from vcgen.types import Rendering, Views


class GaussianPrior(ImagePrior):
    """p(image | rendering) = N(rendering, deviation^2), whose denoiser is known: it shows what a network must beat.

    Args:
        size: Image side in pixels.
        deviation: At first, in units of images in [-1, 1]; one number per color channel is learned.
    """

    def __init__(self, size: int = 64, deviation: float = 0.5):
        super().__init__()
        self.size, self.schedule = size, noise_schedule("epsilon", size)
        self.log_deviation = nn.Parameter(torch.full((3,), deviation).log())

    def condition(self, rendering: Rendering, context: Views, near: Tensor, far: Tensor) -> Condition:
        maps = to_signed(rendering.rgb).flatten(0, 1)
        return Condition(maps, None, maps.new_ones(len(maps)))

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The noise, E[e | z] of a Gaussian."""
        alpha, sigma = signal_and_noise(self.schedule, timesteps, noisy)
        variance = self.log_deviation.exp().square()[:, None, None]
        return sigma * (noisy - alpha * condition.maps[:, :3]) / (alpha.square() * variance + sigma.square())
