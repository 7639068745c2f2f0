"""Score distillation sampling, the guidance of DreamFusion."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vcgen.diffusion.schedule import signal_and_noise
from vcgen.guidance.base import ConditionedPrior, Round
from vcgen.guidance.noise_levels import DrawnLevels


@dataclass(frozen=True)
class SDS(DrawnLevels):
    """Score distillation sampling (DreamFusion, arXiv 2209.14988, eq. 3).

    Every round adds fresh noise to the renderings. The gradient with respect to a rendering I is omega (e_phi - e)
    with omega = sigma^2; a target I - gradient under half the squared error has exactly this gradient.
    """

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """One draw of noise level and noise per view."""
        times = self.draw_times(renderings, prior.schedule, generator)
        noise = torch.randn(renderings.shape, generator=generator, device=renderings.device)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        prediction = prior.denoise(alpha * renderings + sigma * noise, times)
        targets = renderings - sigma.square() * (prediction.noise - noise)
        disagreement = (prediction.image - renderings).square().mean().sqrt()
        return Round(targets, noise, times.float().mean(), 0.0, disagreement)
