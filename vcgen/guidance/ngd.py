"""NeRF-guided distillation, the guidance of NerfDiff."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vcgen.diffusion.schedule import of_each, signal_and_noise, signal_and_noise_at, timestep
from vcgen.guidance.base import ConditionedPrior, Guidance, Round
from vcgen.guidance.noise_levels import check_rounds
from vcgen.schema import AtLeastOne, NotNegative, Unit


@dataclass(frozen=True)
class NGD(Guidance):
    """NeRF-guided distillation (NerfDiff, arXiv 2302.10109, algorithm 1).

    One DDIM walk of all virtual views, which the field's renderings draw towards each other. The paper states no
    values: the defaults, those of configs/distill.yaml, are ours.

    Args:
        gamma: Guidance weight of the paper: the rendering's weight in the clean image is w = gamma sigma^2 / alpha^2,
            which exceeds 1 and diverges at high noise, and vanishes at low noise, where every view is left to a walk of
            its own. 0 is plain sampling, to which the field is fitted on the way. null (ours) takes w = 1 - alpha
            sigma, in [1/2, 1]: the prior's image gets the weight that SDS gives it, largest at middle noise, where it
            knows more than the noise and more than one view's details.
        max_weight: Upper bound of w, below 1 (ours); used with a number for ``gamma``.
        start: First noise level, as a fraction of the noise schedule; 1 is pure noise.
        end: Last noise level, as a fraction of the schedule.
        rounds: Denoising steps; targets are made anew in each.
        updates: Optimizer steps of the field after each round.
        eta: Fraction of fresh noise after each step, in [0, 1], drawn for each view: e <- sqrt(1 - eta^2) e + eta n, so
            that DDIM's sigma (arXiv 2010.02502, eq. 12) is eta times the next level's noise. 0 is the paper's
            deterministic walk.
    """

    gamma: NotNegative | None = None
    max_weight: NotNegative = 0.85
    start: Unit = 0.98
    end: Unit = 0.02
    rounds: AtLeastOne = 16
    updates: AtLeastOne = 16
    eta: Unit = 1.0

    fixed_views: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_rounds(self, self.start, self.end)

    def begin(self, renderings: Tensor, generator: torch.Generator) -> Round:
        """The walk starts at the noised renderings; one draw of noise is shared by all views."""
        shared = torch.randn(renderings.shape[1:], generator=generator, device=renderings.device)
        return Round(renderings, shared.expand_as(renderings), -1, 1.0, 0.0)

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """Noise the last estimate again with its own noise, denoise it, and move the result towards the rendering: with
        the noise estimate e + gamma (sigma / alpha) (x - I), the clean image is x <- (1 - w) x + w I.
        """
        fraction = self.start + (self.end - self.start) * number / max(1, self.rounds - 1)
        time = timestep(prior.schedule, fraction)
        times = of_each(renderings, time)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        noisy = alpha * last.targets + sigma * last.noise
        clean = prior.denoise(noisy, times).image
        weight = self.weight(*signal_and_noise_at(prior.schedule, time))
        targets = (1 - weight) * clean + weight * renderings
        noise = (noisy - alpha * targets) / sigma
        if self.eta:
            fresh = torch.randn(renderings.shape, generator=generator, device=renderings.device)
            noise = math.sqrt(1 - self.eta**2) * noise + self.eta * fresh
        return Round(targets, noise, time, weight, (clean - renderings).square().mean().sqrt())

    def weight(self, alpha: float, sigma: float) -> float:
        """w of the rendering where the noise level has this signal and noise."""
        if self.gamma is None:
            return 1 - alpha * sigma
        return min(self.max_weight, self.gamma * (sigma / alpha) ** 2)
