"""The view-conditioned diffusion prior of NerfDiff (arXiv 2302.10109, section 3.2): denoises a view, given what the
field shows of it.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.diffusion.networks import ImageTokens, view_unet
from vcgen.diffusion.schedule import (
    Prediction,
    denoised,
    draw_timesteps,
    noise_of,
    noise_schedule,
    predicts_noise,
    signal_and_noise,
    snr_weight,
    training_target,
)  # fmt: skip
from vcgen.errors import UserError
from vcgen.levels import check_levels
from vcgen.schema import AtLeastOne, PlaneSide, Positive, Unit
from vcgen.types import Rendering, Views

#: The names of diffusers' solvers here.
Sampler = Literal["ddim", "dpm++"]

#: Scale of classifier-free guidance of samples where none is asked for (ours, compared with 1 in docs/distillation.md).
GUIDANCE_SCALE = 1.5

SAMPLERS = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}


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


class ViewPrior(nn.Module):
    """p(view | rendering of the field at that camera, input view): NerfDiff's prior (arXiv 2302.10109, section 3.2).

    Images are over white, in [-1, 1] inside, in [0, 1] outside. The defaults have about 5 million parameters; 100
    million: channels (128, 224, 320, 416), layers 2; 400 million, the proportions of ADM at 128 px: channels (208, 208,
    416, 624, 832), layers 2, with attention on all but the finest one or two levels.

    Args:
        channels: U-Net widths, finest level first.
        layers: Residual blocks per level.
        attention: Whether each level has self-attention, finest first; as many as ``channels``.
        input_attention: The attending levels also look at the input view's features (cross-attention).
        depth: The condition has the rendering's distances, too.
        patch: Pixels per U-Net cell along each side (as in patch diffusion and DiT); 2 makes a network of the same cost
            wider.
        prediction: What the network predicts: the noise, or v = alpha e - sigma x (arXiv 2202.00512, appendix D).
        sigma_data: Standard deviation, in [-1, 1] units, with which images are taken to scatter about the rendering.
            The network then learns what the best guess for such Gaussians leaves over, at unit variance: the
            preconditioning of EDM (arXiv 2206.00364, table 1), about the rendering instead of 0 (ours). null: the
            network's output is the prediction.
        size: Image side in pixels, which sets the schedule's shift.
        condition_dropout: Fraction of training images without condition, for classifier-free guidance (arXiv
            2207.12598), in [0, 1].
        min_snr: Gamma of the min-SNR loss weights (arXiv 2303.09556); null weighs all noise levels alike. With
            ``sigma_data`` the loss is the network's own error at all noise levels, as in EDM.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
    """

    def __init__(
        self,
        channels: Sequence[AtLeastOne] = (32, 64, 128),
        layers: AtLeastOne = 1,
        attention: Sequence[bool] = (False, True, True),
        input_attention: bool = True,
        depth: bool = False,
        patch: AtLeastOne = 1,
        prediction: Prediction = "v_prediction",
        sigma_data: Positive | None = None,
        size: PlaneSide = 64,
        condition_dropout: Unit = 0.1,
        min_snr: Positive | None = 5.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        if sigma_data is not None and sigma_data <= 0:
            raise ValueError(f"sigma_data must be positive, or null, not {sigma_data}")
        check_levels("size", size, patch, channels, attention, heads=not input_attention)
        self.depth, self.patch, self.sigma_data, self.condition_dropout, self.min_snr = (
            depth,
            patch,
            sigma_data,
            condition_dropout,
            min_snr,
        )
        self.size, self.schedule = size, noise_schedule(prediction, size)
        self.tokens = ImageTokens(width=4 * channels[0]) if input_attention else None
        width = self.tokens.width if self.tokens else None
        self.unet = view_unet(channels, layers, attention, 5 if depth else 4, width, size, patch)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def condition(self, rendering: Rendering, context: Views, near: Tensor, far: Tensor) -> Condition:
        """Renderings over white (batch, views, ...) of scenes whose input views are ``context`` (batch, 1) -> batch *
        views conditions.

        near, far: (batch, views) in world units; they scale the distances.
        """
        maps = [to_signed(rendering.rgb), to_signed(rendering.alpha)]
        if self.depth:
            near, far = near[..., None, None, None], far[..., None, None, None]
            maps.append(to_signed((rendering.depth - near) / (far - near)))
        views = rendering.rgb.shape[1]
        tokens = None
        if self.tokens is not None:
            tokens = self.tokens(to_signed(context.only("the diffusion prior").on(1.0))).repeat_interleave(views, 0)
        maps = torch.cat(maps, 2).flatten(0, 1)
        return Condition(maps, tokens, maps.new_ones(len(maps)))

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The prediction (n, 3, H, W), float32, for noisy images (n, 3, H, W) at ``timesteps`` (n,)."""
        if self.sigma_data is None:
            return self.network(noisy, timesteps, condition)
        alpha, sigma = signal_and_noise(self.schedule, timesteps, noisy)
        deviation, total = self.scales(alpha, sigma, condition)
        mean = condition.maps[:, :3]
        offset = noisy - alpha * mean
        output = self.network(offset / total, timesteps, condition)
        # With x = mean + k offset + (sigma sigma_data / total) output, k = alpha sigma_data^2 / total^2, in z = alpha x
        # + sigma e:
        if predicts_noise(self.schedule):
            return sigma / total.square() * offset - alpha * deviation / total * output
        return (
            alpha * sigma * (1 - deviation.square()) / total.square() * offset
            - deviation / total * output
            - sigma * mean
        )

    def scales(self, alpha: Tensor, sigma: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """The standard deviation about the rendering, 1 about nothing where there is none, and the deviation of z -
        alpha mean; (n, 1, 1, 1) each.
        """
        given = condition.given[:, None, None, None]
        deviation = self.sigma_data * given + (1 - given)
        return deviation, (alpha.square() * deviation.square() + sigma.square()).sqrt()

    def network(self, images: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The U-Net's output (n, 3, H, W), float32."""
        cells = F.pixel_unshuffle(torch.cat([images, condition.maps], 1), self.patch)
        extra = {} if condition.tokens is None else {"encoder_hidden_states": condition.tokens}
        return F.pixel_shuffle(self.unet(cells, timesteps, **extra).sample.float(), self.patch)

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

    def denoise(self, noisy: Tensor, timesteps: Tensor, condition: Condition, guidance_scale: float = 1.0) -> Denoised:
        """Predict the clean images, in [-1, 1], and the noise of ``noisy`` (n, 3, H, W)."""
        output = self.guided(noisy, timesteps, condition, guidance_scale)
        return Denoised(
            denoised(self.schedule, noisy, output, timesteps), noise_of(self.schedule, noisy, output, timesteps)
        )

    def loss(self, images: Tensor, condition: Condition, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Denoising loss of images (n, 3, H, W) in [0, 1]: per-image means (n,), already weighted, and their timesteps
        (n,).
        """
        clean = to_signed(images)
        count, device = len(clean), clean.device
        timesteps = draw_timesteps(self.schedule, count, generator)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        alpha, sigma = signal_and_noise(self.schedule, timesteps, clean)
        condition = condition.where(torch.rand(count, generator=generator, device=device) >= self.condition_dropout)
        output = self(alpha * clean + sigma * noise, timesteps, condition)
        error = (output - training_target(self.schedule, clean, noise, timesteps)).square().mean((1, 2, 3))
        return error * self.loss_weight(timesteps, condition), timesteps

    def loss_weight(self, timesteps: Tensor, condition: Condition) -> Tensor:
        """Weight (n,) of the predicted quantity's squared error: by min-SNR, or with ``sigma_data`` 1 on the network's
        output.
        """
        if self.sigma_data is None:
            return snr_weight(self.schedule, timesteps, self.min_snr)
        alpha, sigma = signal_and_noise(self.schedule, timesteps, condition.maps)
        deviation, total = self.scales(alpha, sigma, condition)
        scale = alpha if predicts_noise(self.schedule) else torch.ones_like(alpha)
        return (total / (scale * deviation)).square().flatten()

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
        2108.01073). A fraction of less than half a step, as 0, returns the start, clamped. Raises ValueError for a
        strength outside [0, 1] and for another sampler."""
        if not 0 <= strength <= 1:
            raise ValueError(f"strength is a fraction of the noise schedule, in [0, 1]; got {strength}")
        if sampler not in SAMPLERS:
            raise ValueError(f"the samplers are {', '.join(SAMPLERS)}; got {sampler!r}")
        if guidance_scale is None:
            guidance_scale = GUIDANCE_SCALE if self.condition_dropout else 1.0
        solver = SAMPLERS[sampler].from_config(self.schedule.config, timestep_spacing="trailing")
        solver.set_timesteps(steps, device=condition.maps.device)
        times = solver.timesteps
        state = torch.randn(
            (len(condition.maps), 3, *condition.maps.shape[-2:]), generator=generator, device=condition.maps.device
        )
        if start is not None:
            clean, times = to_signed(start), times[round((1 - strength) * steps) :]
            if len(times) == 0:
                return start.clamp(0, 1)
            alpha, sigma = signal_and_noise(self.schedule, times[:1].expand(len(state)), state)
            state = alpha * clean + sigma * state
        for time in times:
            state = solver.step(
                self.guided(state, time.expand(len(state)), condition, guidance_scale), time, state
            ).prev_sample
        return to_unit(state)


def to_signed(images: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1], the range inside the prior. Raises ValueError for values that cannot be in [0, 1]: a range
    mixed up is silent otherwise, and spoils training, sampling and distillation alike. On CUDA the GPU itself asserts
    it, because looking at the values here would wait for all that it has to do: the process then ends with a
    device-side assertion at a later call. NaNs pass: the training step reports them."""
    low, high = images.detach().aminmax()
    wrong = (low < -0.1) | (high > 1.1)
    if images.is_cuda:
        torch._assert_async(~wrong, "images must be in [0, 1] here")
    elif wrong:
        raise ValueError(f"images must be in [0, 1] here, these are in [{float(low):.2f}, {float(high):.2f}]")
    return images * 2 - 1


def to_unit(images: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], clamped."""
    return (images / 2 + 0.5).clamp(0, 1)
