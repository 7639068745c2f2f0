"""A prior that knows the object: for every camera it says "images like the true one", as a Gaussian around it, which is
exactly computable.

What it cannot teach is the limit of score distillation itself: of the field, its rendering, the losses, the guidance.
"""

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from objects import KnownObject
from shaded import draw
from vcgen.cameras import Cameras
from vcgen.data.viewpoints import VIEWS
from vcgen.diffusion.base import Denoised, to_signed
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise
from vcgen.diffusion.text_prior import TextCondition
from vcgen.systems.realfusion.system import RealFusion
from vcgen.systems.text_to_3d.system import TextTo3D


class Oracle(nn.Module):
    """Stands in for a TextPrior. Latents are images (n, 3, size, size) in [-1, 1]; a "text" holds the mean of N(mean,
    deviation^2).
    """

    def __init__(self, size: int, deviation: float = 0.1):
        super().__init__()
        self.size, self.deviation = size, deviation
        self.schedule: DDPMScheduler = noise_schedule("epsilon")

    def embed(self, prompts: list[str]) -> Tensor:
        """Nothing is known before there is a camera: mid-gray."""
        return torch.zeros(len(prompts), 3, self.size, self.size)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images, at the prior's size."""
        return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)

    def denoise(self, noisy: Tensor, times: Tensor, condition: TextCondition, scale: float = 1.0) -> Denoised:
        """E[x | z] of a Gaussian about the text, which is an image here; of guidance it has no need."""
        alpha, sigma = signal_and_noise(self.schedule, times, noisy)
        noise = sigma * (noisy - alpha * condition.text) / ((alpha * self.deviation).square() + sigma.square())
        return Denoised((noisy - sigma * noise) / alpha, noise)


class Told(TextTo3D):
    """TextTo3D, told the true image of every camera in place of words; ``known`` is set before the first step."""

    known: KnownObject

    def distill(self, images: Tensor, cameras: Cameras, progress: float, generator: torch.Generator) -> Tensor:
        """See :class:`TextTo3D`; one random view per step."""
        size = self.text_prior.size
        rgb, alpha = draw(self.known.triangles, self.known.corner_rgb, cameras.to("cpu"), size)
        self.text = dict.fromkeys(VIEWS, to_signed(rgb * alpha + 1 - alpha).to(images))
        return super().distill(images, cameras, progress, generator)


class OracleFusion(Told, RealFusion):
    """The same of RealFusion."""
