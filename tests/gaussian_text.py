"""A text prior that is known in closed form: latents are images, and what a prompt describes are images N(mean,
deviation^2).
"""

from types import SimpleNamespace

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from vcgen.diffusion.schedule import Prediction, signal_and_noise, training_target
from vcgen.diffusion.text_prior import TextPrior


class SameLatents(nn.Module):
    """An autoencoder that changes nothing."""

    config = SimpleNamespace(scaling_factor=1.0, block_out_channels=(1,))

    def encode(self, images: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: images, sample=lambda generator: images))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents)


class GaussianNet(nn.Module):
    """The exact answer e = sigma (z - alpha mean) / (alpha^2 s^2 + sigma^2) in place of a U-Net, as noise or v. The
    "text" holds the mean: its entries, reshaped to the image, or the first alone for all pixels."""

    def __init__(self, schedule: DDPMScheduler, deviation: float, size: int):
        super().__init__()
        self.schedule, self.deviation = schedule, deviation
        self.config = SimpleNamespace(sample_size=size, in_channels=3)
        self.place = nn.Parameter(torch.zeros(()))  # networks are asked where they are

    def forward(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        alpha, sigma = signal_and_noise(self.schedule, timesteps, noisy)
        flat = encoder_hidden_states.flatten(1)
        mean = flat.reshape(noisy.shape) if flat.shape[1] == noisy[0].numel() else flat[:, :1, None, None]
        noise = sigma * (noisy - alpha * mean) / ((alpha * self.deviation).square() + sigma.square())
        return SimpleNamespace(sample=training_target(self.schedule, (noisy - sigma * noise) / alpha, noise, timesteps))


class SpokenMeans(nn.Module):
    """Prompts that are numbers, "0.3", are their own embedding; the empty prompt is 0."""

    config = SimpleNamespace(max_position_embeddings=1)

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        return (tokens,)


def gaussian_text_prior(schedule: DDPMScheduler, deviation: float, size: int = 8) -> TextPrior:
    """A TextPrior whose prompt "0.3" means images (3, size, size) of pixels N(0.3, deviation^2)."""

    def tokenizer(prompts: list[str], **options) -> SimpleNamespace:
        numbers = torch.tensor([float(prompt or 0) for prompt in prompts])[:, None, None]
        return SimpleNamespace(input_ids=numbers, attention_mask=torch.zeros_like(numbers[..., 0]))

    tokenizer.model_max_length = 1
    return TextPrior(
        tokenizer, SpokenMeans(), SameLatents(), GaussianNet(schedule, deviation, size), schedule, "gaussian"
    )


def one_level(alpha: float, prediction: Prediction = "epsilon") -> DDPMScheduler:
    """A schedule of a single noise level, where z = alpha x + sqrt(1 - alpha^2) e."""
    return DDPMScheduler(
        num_train_timesteps=1, trained_betas=[1 - alpha**2], prediction_type=prediction, clip_sample=False
    )
