"""Score Jacobian chaining."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vcgen.diffusion.schedule import signal_and_noise
from vcgen.guidance.base import ConditionedPrior, Round
from vcgen.guidance.noise_levels import DrawnLevels
from vcgen.schema import AtLeastOne


@dataclass(frozen=True)
class SJC(DrawnLevels):
    """Score Jacobian chaining (arXiv 2212.00774, eq. 8).

    The score at a rendering, which is clean and so unlike what the prior was trained on, is the mean of the scores
    around it ("perturb and average"). With y = I + s n in units of the clean image, s = sigma / alpha, the ascent
    direction is s times the score: the mean over draws of n of (D(y) - I) / s, where D is the prior's clean image. A
    target I + direction under half the squared error has this gradient.

    Args:
        draws: Noises n that are averaged in each round; each costs an evaluation of the prior.
    """

    draws: AtLeastOne = 1

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """One draw of the noise level per view, ``draws`` of noise."""
        times = self.draw_times(renderings, prior.schedule, generator)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        clean = torch.zeros_like(renderings)
        for _ in range(self.draws):
            noise = torch.randn(renderings.shape, generator=generator, device=renderings.device)
            clean += prior.denoise(alpha * renderings + sigma * noise, times).image / self.draws
        targets = renderings + (clean - renderings) * alpha / sigma
        return Round(targets, noise, times.float().mean(), 0.0, (clean - renderings).square().mean().sqrt())
