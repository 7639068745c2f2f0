"""Score Jacobian chaining."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vcgen.diffusion.schedule import signal_and_noise
from vcgen.guidance.base import ConditionedPrior, Guidance, Round
from vcgen.guidance.noise_levels import check_rounds, draw_times
from vcgen.schema import AtLeastOne, Unit


@dataclass(frozen=True)
class SJC(Guidance):
    """Score Jacobian chaining (arXiv 2212.00774, eq. 8).

    The score at a rendering, which is clean and so unlike what the prior was trained on, is the mean of the scores
    around it ("perturb and average"). With y = I + s n in units of the clean image, s = sigma / alpha, the ascent
    direction is s times the score: the mean over draws of n of (D(y) - I) / s, where D is the prior's clean image. A
    target I + direction under half the squared error has this gradient.

    Args:
        start: Highest noise level, as a fraction of the noise schedule; levels are drawn uniformly.
        end: Lowest noise level.
        rounds: How often targets are made.
        updates: Optimizer steps of the field after each round.
        draws: Noises n that are averaged in each round; each costs an evaluation of the prior.
    """

    start: Unit = 0.98
    end: Unit = 0.02
    rounds: AtLeastOne = 1000
    updates: AtLeastOne = 1
    draws: AtLeastOne = 1

    def __post_init__(self) -> None:
        check_rounds(self)

    def annealed(self, progress: float, end: float) -> Self:
        """See :meth:`Guidance.annealed`."""
        return replace(self, start=self.start + progress * (end - self.start))

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """One draw of the noise level per view, ``draws`` of noise."""
        times = draw_times(self, renderings, prior.schedule, generator)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        clean = torch.zeros_like(renderings)
        for _ in range(self.draws):
            noise = torch.randn(renderings.shape, generator=generator, device=renderings.device)
            clean += prior.denoise(alpha * renderings + sigma * noise, times).image / self.draws
        targets = renderings + (clean - renderings) * alpha / sigma
        return Round(targets, noise, times.float().mean(), 0.0, (clean - renderings).square().mean().sqrt())
