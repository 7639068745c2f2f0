"""The base classes of diffusion priors, and of those that denoise images of views."""

from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, TypeVar

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from vcgen.diffusion.schedule import (
    denoised,
    draw_timesteps,
    noise_in_range,
    noise_of,
    of_each,
    predicts_noise,
    signal_and_noise,
    snr_weight,
    training_target,
)
from vcgen.diffusion.solvers import Sampler, solver_of
from vcgen.errors import UserError
from vcgen.tensors import require
from vcgen.types import Rendering, Views

#: Scale of classifier-free guidance of samples where none is asked for (ours, compared with 1 in docs/distillation.md).
GUIDANCE_SCALE = 1.5


class Condition(NamedTuple):
    """What the prior is told about n images.

    maps: (n, channels, H, W) in [-1, 1], the field's rendering: color over white, opacity, and distance where asked
        for.
    tokens: (n, length, width) features of the input view, or None. given: (n,) 1, or 0 where there is no condition, and
        zeros stand for it.
    """

    maps: Tensor
    tokens: Tensor | None
    given: Tensor

    def where(self, keep: Tensor) -> "Condition":
        """The condition where ``keep`` (n,) is true, nothing (zeros) elsewhere."""
        tokens = None if self.tokens is None else self.tokens * keep[:, None, None]
        return Condition(self.maps * keep[:, None, None, None], tokens, self.given * keep)


class Denoised(NamedTuple):
    """A prediction: the clean image and the noise, both (n, 3, H, W), float32, consistent with z = alpha x + sigma
    e.
    """

    image: Tensor
    noise: Tensor


#: What a prior is conditioned on.
C = TypeVar("C")


class Prior(nn.Module, ABC, Generic[C]):
    """A diffusion model that denoises images, or latents of images, under a condition.

    schedule: the noise schedule that it was trained with; its ``prediction_type`` says what the network predicts.
    size: side in pixels of the images.
    """

    schedule: DDPMScheduler
    size: int

    @abstractmethod
    def guided(self, noisy: Tensor, timesteps: Tensor, condition: C, guidance_scale: float = 1.0) -> Tensor:
        """The network's output (n, C, H, W), float32, under classifier-free guidance: u + guidance_scale (c - u), so
        that 1 is the conditional output and 0 the unconditional one. noisy: (n, C, H, W); timesteps: (n,).
        """

    def denoise(self, noisy: Tensor, timesteps: Tensor, condition: C, guidance_scale: float = 1.0) -> Denoised:
        """The clean images or latents and the noise of ``noisy`` (n, C, H, W), as the guided network sees them."""
        output = self.guided(noisy, timesteps, condition, guidance_scale)
        return Denoised(
            denoised(self.schedule, noisy, output, timesteps), noise_of(self.schedule, noisy, output, timesteps)
        )


class ImagePrior(Prior[Condition]):
    """p(image of a view | rendering of the scene at that camera, input views): what NerfDiff trains and distills.

    Images are over white, in [-1, 1] inside, in [0, 1] outside. condition_dropout: fraction of training images without
    condition, in [0, 1]; with 0 the prior knows no classifier-free guidance.
    """

    condition_dropout: float = 0.0
    #: Input views of a scene that it can look at; None: any number.
    most_views: int | None = None

    @abstractmethod
    def condition(self, rendering: Rendering, context: Views, near: Tensor, far: Tensor) -> Condition:
        """Renderings over white (batch, views, ...) of scenes whose input views are ``context`` -> batch * views
        conditions. near, far: (batch, views), in world units.
        """

    @abstractmethod
    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The prediction (n, 3, H, W), float32, for noisy images (n, 3, H, W) at ``timesteps`` (n,)."""

    def guided(self, noisy: Tensor, timesteps: Tensor, condition: Condition, guidance_scale: float = 1.0) -> Tensor:
        """The network's output under classifier-free guidance, u + guidance_scale (c - u): 1 is the conditional one, 0
        the unconditional.

        Raises UserError for a guidance_scale other than 1 of a prior that was trained without condition dropout, and so
        does not know u."""
        output = self(noisy, timesteps, condition)
        if guidance_scale == 1.0:
            return output
        if self.condition_dropout == 0:
            raise UserError("this prior was trained with condition_dropout 0: guidance_scale must be 1")
        unconditional = self(noisy, timesteps, condition.where(torch.zeros(len(noisy), device=noisy.device)))
        return unconditional + guidance_scale * (output - unconditional)

    def loss(self, images: Tensor, condition: Condition, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Denoising loss of images (n, 3, H, W) in [0, 1]: per-image means (n,), already weighted, and their timesteps
        (n,).
        """
        clean = to_signed(images)
        count, device = len(clean), clean.device
        timesteps = self.draw_timesteps(count, generator)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        alpha, sigma = signal_and_noise(self.schedule, timesteps, clean)
        condition = condition.where(torch.rand(count, generator=generator, device=device) >= self.condition_dropout)
        condition = self.augmented(condition, generator)
        output = self(alpha * clean + sigma * noise, timesteps, condition)
        error = (output - training_target(self.schedule, clean, noise, timesteps)).square().mean((1, 2, 3))
        return error * self.loss_weight(timesteps, condition), timesteps

    def augmented(self, condition: Condition, generator: torch.Generator) -> Condition:
        """The condition as training shows it; here as it is."""
        return condition

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Timesteps (count,) at which training images are noised; here all alike."""
        return draw_timesteps(self.schedule, count, generator)

    def loss_weight(self, timesteps: Tensor, condition: Condition) -> Tensor:
        """Weight (n,) of the predicted quantity's squared error; here by min-SNR with gamma 5."""
        return snr_weight(self.schedule, timesteps, 5.0)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        generator: torch.Generator,
        steps: int = 10,
        guidance_scale: float | None = None,
        sampler: Sampler = "ddim",
        start: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Draw images (n, 3, H, W) in [0, 1]. guidance_scale: see :meth:`guided`; None: GUIDANCE_SCALE, or 1 where the
        prior was trained without condition dropout. sampler: "ddim" or "dpm++" (diffusers). With ``start``, images in
        [0, 1], sampling begins from these, noised to the fraction ``strength`` of the schedule (SDEdit, arXiv
        2108.01073). A fraction of less than half a step, as 0, returns the start, clamped. Raises UserError for a
        strength outside [0, 1] and for another sampler."""
        if not 0 <= strength <= 1:
            raise UserError(f"strength is a fraction of the noise schedule: it must lie in [0, 1], {strength} does not")
        if guidance_scale is None:
            guidance_scale = GUIDANCE_SCALE if self.condition_dropout else 1.0
        solver = solver_of(self.schedule, sampler, steps)
        times = solver.timesteps
        state = torch.randn(
            (len(condition.maps), 3, *condition.maps.shape[-2:]), generator=generator, device=condition.maps.device
        )
        if start is not None:
            clean, times = to_signed(start), times[round((1 - strength) * steps) :]
            if len(times) == 0:
                return start.clamp(0, 1)
            alpha, sigma = signal_and_noise(self.schedule, of_each(state, times[0]), state)
            state = alpha * clean + sigma * state
        for time in times:
            timesteps = of_each(state, time)
            output = self.guided(state, timesteps, condition, guidance_scale)
            if predicts_noise(self.schedule):
                output = noise_in_range(self.schedule, state, output, timesteps)
            state = solver.step(output, time, state).prev_sample
        return to_unit(state)


def to_signed(images: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1], the range inside the prior. Requires, see :func:`require`, values that can be in [0, 1]: a
    range mixed up is silent otherwise, and spoils training, sampling and distillation alike. NaNs pass: the training
    step reports them.
    """
    low, high = images.detach().aminmax()
    wrong = (low < -0.1) | (high > 1.1)
    require(~wrong, "images must be in [0, 1] here", lambda: f", these are in [{float(low):.2f}, {float(high):.2f}]")
    return images * 2 - 1


def to_unit(images: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], clamped."""
    return (images / 2 + 0.5).clamp(0, 1)
