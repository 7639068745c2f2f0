"""Score distillation sampling, the guidance of DreamFusion."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vcgen.diffusion.schedule import signal_and_noise
from vcgen.guidance.base import ConditionedPrior, Guidance, Round
from vcgen.guidance.noise_levels import check_rounds, draw_times
from vcgen.schema import AtLeastOne, Unit


@dataclass(frozen=True)
class SDS(Guidance):
    """Score distillation sampling (DreamFusion, arXiv 2209.14988, eq. 3).

    Every round adds fresh noise to the renderings. The gradient with respect to a rendering I is omega (e_phi - e)
    with omega = sigma^2; a target I - gradient under half the squared error has exactly this gradient.

    Args:
        start: Highest noise level, as a fraction of the noise schedule; levels are drawn uniformly.
        end: Lowest noise level.
        rounds: How often targets are made.
        updates: Optimizer steps of the field after each round.
    """

    start: Unit = 0.98
    end: Unit = 0.02
    rounds: AtLeastOne = 1000
    updates: AtLeastOne = 1

    def __post_init__(self) -> None:
        check_rounds(self)

    def annealed(self, progress: float, end: float) -> Self:
        """See :meth:`Guidance.annealed`."""
        return replace(self, start=self.start + progress * (end - self.start))

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """One draw of noise level and noise per view."""
        times = draw_times(self, renderings, prior.schedule, generator)
        noise = torch.randn(renderings.shape, generator=generator, device=renderings.device)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        prediction = prior.denoise(alpha * renderings + sigma * noise, times)
        targets = renderings - sigma.square() * (prediction.noise - noise)
        disagreement = (prediction.image - renderings).square().mean().sqrt()
        return Round(targets, noise, times.float().mean(), 0.0, disagreement)
