"""Noise schedules, as diffusers schedulers: z_t = alpha_t x + sigma_t e with alpha^2 + sigma^2 = 1, t = 0 ... steps -
1.
"""

import math
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]

#: See :func:`_survival`.
_TABLES: WeakKeyDictionary[DDPMScheduler, dict[torch.device, Tensor]] = WeakKeyDictionary()
#: Resolution, in pixels, at which a schedule needs no shift (simple diffusion, arXiv 2301.11093, section 2).
REFERENCE_SIZE = 64


def noise_schedule(
    prediction: Prediction = "v_prediction", size: int = REFERENCE_SIZE, steps: int = 1000
) -> DDPMScheduler:
    """The cosine schedule (arXiv 2102.09672, eq. 17), shifted to more noise for images larger than 64 px.

    Neighboring pixels of larger images say the same, so the same noise hides less: log SNR is lowered by 2 log(size /
    64) (arXiv 2301.11093, eq. 4). The result is a plain diffusers configuration from which every diffusers sampler can
    be made."""
    times = np.arange(steps + 1) / steps
    cosine = np.clip(np.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2, 1e-12, 1 - 1e-12)
    shift = (REFERENCE_SIZE / size) ** 2
    survival = cosine * shift / (1 - cosine + cosine * shift)
    betas = np.clip(1 - survival[1:] / survival[:-1], 1e-8, 0.999)
    return DDPMScheduler(
        num_train_timesteps=steps, trained_betas=betas.tolist(), prediction_type=prediction, clip_sample=False
    )


def edm_schedule(lowest: float = 0.002, highest: float = 80.0, steps: int = 1000) -> DDPMScheduler:
    """EDM's noise levels s = sigma_t / alpha_t, evenly spaced in s^(1/7) (arXiv 2206.00364, eq. 5), as a schedule of
    steps that predict v. DDIM on it is Euler's method in s."""
    levels = np.linspace(lowest ** (1 / 7), highest ** (1 / 7), steps) ** 7
    survival = np.concatenate([[1.0], 1 / (1 + levels**2)])
    betas = 1 - survival[1:] / survival[:-1]
    return DDPMScheduler(
        num_train_timesteps=steps, trained_betas=betas.tolist(), prediction_type="v_prediction", clip_sample=False
    )


def signal_and_noise(scheduler: DDPMScheduler, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_t and sigma_t of integer ``timesteps`` (n,), in float32, shaped to broadcast against ``like`` (n, ...)."""
    survival = _survival(scheduler, like.device)[timesteps].float().reshape(-1, *[1] * (like.ndim - 1))
    return survival.sqrt(), (1 - survival).sqrt()


def signal_and_noise_at(scheduler: DDPMScheduler, time: int) -> tuple[float, float]:
    """The same numbers of one timestep, without asking a GPU."""
    survival = scheduler.alphas_cumprod[time].float()
    return float(survival.sqrt()), float((1 - survival).sqrt())


def of_each(images: Tensor, time: int | Tensor) -> Tensor:
    """A timestep that the CPU knows, of each of images (n, ...): (n,) on their device."""
    return torch.full((len(images),), int(time), device=images.device)


def _survival(scheduler: DDPMScheduler, device: torch.device) -> Tensor:
    """alpha_t^2 of all timesteps on a device; copied there once, since a copy waits for the GPU."""
    tables = _TABLES.setdefault(scheduler, {})
    if device not in tables:
        tables[device] = scheduler.alphas_cumprod.to(device)
    return tables[device]


def timestep(scheduler: DDPMScheduler, fraction: float) -> int:
    """The integer timestep at a fraction of the way from clean (0) to noise (1)."""
    return min(round(fraction * scheduler.config.num_train_timesteps), scheduler.config.num_train_timesteps - 1)


def draw_timesteps(scheduler: DDPMScheduler, count: int, generator: torch.Generator) -> Tensor:
    """Timesteps (count,) spread evenly from a random start, which takes noise out of the loss (VDM, arXiv 2107.00630,
    appendix I).
    """
    offset = torch.rand((), generator=generator, device=generator.device)
    fractions = (offset + torch.arange(count, device=generator.device) / count) % 1
    return (fractions * scheduler.config.num_train_timesteps).long()


def predicts_noise(scheduler: DDPMScheduler) -> bool:
    """Whether the network predicts the noise, else v = alpha e - sigma x (arXiv 2202.00512, appendix D)."""
    return scheduler.config.prediction_type == "epsilon"


def training_target(scheduler: DDPMScheduler, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the network is to predict of z = alpha x + sigma e."""
    alpha, sigma = signal_and_noise(scheduler, timesteps, clean)
    return noise if predicts_noise(scheduler) else alpha * noise - sigma * clean


def denoised(scheduler: DDPMScheduler, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
    """The clean images that an output of the network means."""
    alpha, sigma = signal_and_noise(scheduler, timesteps, noisy)
    return (noisy - sigma * output) / alpha if predicts_noise(scheduler) else alpha * noisy - sigma * output


def noise_of(scheduler: DDPMScheduler, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
    """The noise that an output of the network means."""
    alpha, sigma = signal_and_noise(scheduler, timesteps, noisy)
    return output if predicts_noise(scheduler) else sigma * noisy + alpha * output


def noise_in_range(scheduler: DDPMScheduler, noisy: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """A prediction of the noise, so that the clean image that it means lies in [-1, 1].

    Near pure noise alpha is 5e-5: there a network's error of 0.01 in the noise is one of 200 in the image, from which
    sampling would go on (DDPM, arXiv 2006.11239, clips likewise)."""
    alpha, sigma = signal_and_noise(scheduler, timesteps, noisy)
    return (noisy - alpha * denoised(scheduler, noisy, noise, timesteps).clamp(-1, 1)) / sigma


def snr_weight(scheduler: DDPMScheduler, timesteps: Tensor, gamma: float | None) -> Tensor:
    """Weight (n,) of the squared error of what the network predicts: min(SNR, gamma) on the clean image's (min-SNR,
    arXiv 2303.09556, section 3.4); without gamma 1. For a network that predicts v the latter weighs high noise much
    more: at SNR 0.1 by a factor of 11."""
    if gamma is None:
        return torch.ones(len(timesteps), device=timesteps.device)
    alpha, sigma = signal_and_noise(scheduler, timesteps, timesteps)
    snr = (alpha / sigma).square()
    clipped = snr.clamp(max=gamma)
    return clipped / snr if predicts_noise(scheduler) else clipped / (snr + 1)
