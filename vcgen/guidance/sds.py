"""Score distillation sampling, the guidance of DreamFusion."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vcgen.diffusion.schedule import signal_and_noise
from vcgen.guidance.base import ConditionedPrior, Round
from vcgen.guidance.noise_levels import DrawnLevels


@dataclass(frozen=True)
class SDS(DrawnLevels):
    """Score distillation sampling (DreamFusion, arXiv 2209.14988, eq. 3).

    Every round adds fresh noise to the renderings. The gradient with respect to a rendering I is omega (e_phi - e); a
    target I - gradient under half the squared error has exactly this gradient.

    Args:
        weighting: omega, by noise level: "sigma2" is sigma^2 (DreamFusion), "one" is 1 (score Jacobian chaining),
            "alpha_sigma2" is alpha sigma^2 (Fantasia3D), which leaves high noise out.
    """

    weighting: Literal["sigma2", "one", "alpha_sigma2"] = "sigma2"

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """One draw of noise level and noise per view."""
        times = self.draw_times(renderings, prior.schedule, generator)
        noise = torch.randn(renderings.shape, generator=generator, device=renderings.device)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        prediction = prior.denoise(alpha * renderings + sigma * noise, times)
        targets = renderings - self.omega(alpha, sigma) * (prediction.noise - noise)
        disagreement = (prediction.image - renderings).square().mean().sqrt()
        return Round(targets, noise, times.float().mean(), 0.0, disagreement)

    def omega(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The weight at a noise level."""
        if self.weighting == "one":
            return torch.ones_like(sigma)
        return sigma.square() if self.weighting == "sigma2" else alpha * sigma.square()
