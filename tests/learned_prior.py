"""A tiny text prior that has learned something: squares ("car") and discs ("fish") in three colors, on white."""

import torch
from torch import Tensor
from torch.nn import functional as F

from text_folder import tiny_prior
from vcgen.diffusion.base import to_signed
from vcgen.diffusion.text_prior import TextPrior

COLORS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.7, 0.1), "blue": (0.1, 0.2, 0.9)}
THINGS = ("car", "fish")
ALL = [(color, thing) for color in COLORS for thing in THINGS]


class PooledPrior(TextPrior):
    """Its latents are the images themselves at half their size, and their mean over the channels: there is no
    autoencoder to learn.
    """

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        half = F.adaptive_avg_pool2d(images, self.latent_shape[-1])
        return torch.cat([half, half.mean(1, keepdim=True)], 1)

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents[:, :3], scale_factor=2.0)


def shape(color: tuple[float, float, float], thing: str) -> tuple[Tensor, Tensor]:
    """Straight color (3, 16, 16) and coverage (1, 16, 16)."""
    y, x = torch.meshgrid(torch.arange(16) - 7.5, torch.arange(16) - 7.5, indexing="ij")
    inside = torch.maximum(x.abs(), y.abs()) < 6 if thing == "car" else x.square() + y.square() < 36
    return torch.tensor(color)[:, None, None].expand(3, 16, 16), inside.float()[None]


def image(color: tuple[float, float, float], thing: str) -> Tensor:
    """(3, 16, 16) over white."""
    straight, alpha = shape(color, thing)
    return straight * alpha + 1 - alpha


def learned_prior(steps: int = 300) -> TextPrior:
    """A U-Net that draws these images by their names."""
    parts = tiny_prior()
    prior = PooledPrior(parts.tokenizer, parts.text_encoder, parts.vae, parts.unet, parts.schedule, "shapes").eval()
    latents = prior.encode(to_signed(torch.stack([image(COLORS[color], thing) for color, thing in ALL])))
    prompts = [f"a photo of a {color} {thing}" for color, thing in ALL]
    plain = [f"a photo of a {thing}" for _, thing in ALL]
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([*prior.unet.parameters(), *prior.text_encoder.parameters()], 4e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    for step in range(steps):
        text = prior.embed((prompts, prompts, prompts, plain, [""] * len(ALL))[step % 5])
        loss = prior.loss(latents, text, generator)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return prior.requires_grad_(False)
