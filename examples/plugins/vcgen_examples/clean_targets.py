"""A guidance: the field is pulled towards the prior's clean images, at noise levels that fall from round to round."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vcgen.diffusion.schedule import signal_and_noise, timestep
from vcgen.guidance.base import ConditionedPrior, Guidance, Round


@dataclass(frozen=True)
class CleanTargets(Guidance):
    """Targets are one-step denoised renderings (as in HiFA, arXiv 2305.18766); the noise level falls linearly.

    Args:
        start: First noise level, as a fraction of the noise schedule.
        end: Last noise level.
        rounds: How often targets are made.
        updates: Optimizer steps of the field after each round.
    """

    start: float = 0.8
    end: float = 0.02
    rounds: int = 16
    updates: int = 16

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        level = self.start + (self.end - self.start) * number / max(1, self.rounds - 1)
        time = timestep(prior.schedule, level)
        times = torch.full((len(renderings),), time, device=renderings.device)
        noise = torch.randn(renderings.shape, generator=generator, device=renderings.device)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        clean = prior.denoise(alpha * renderings + sigma * noise, times).image
        disagreement = float((clean - renderings).square().mean().sqrt())
        return Round(clean, noise, time, 0.0, disagreement)
