"""A network that learns what renderings look like while they are made, in the shadow of a text prior."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vcgen.cameras import Cameras
from vcgen.diffusion.base import Denoised, Prior
from vcgen.diffusion.schedule import denoised, noise_of, signal_and_noise, training_target
from vcgen.diffusion.text_prior import TextCondition, TextPrior
from vcgen.errors import UserError
from vcgen.schema import AtLeastOne, Unit

#: Attention's layers in diffusers' U-Nets, which are changed.
LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
#: Of a camera: the rows of its pose that say something.
NUMBERS = 12


class Student(nn.Module):
    """A text prior's U-Net with changes of low rank and a camera embedding of its own (arXiv 2305.16213, section 3.2).

    The prior itself is neither copied nor changed: the changes act while the student is asked. At the start they are
    none, and the student answers as the prior does.

    Args:
        rank: Of the changes of attention's layers (arXiv 2106.09685; alpha = rank).
        camera_dropout: Fraction of images that are learned without their camera.
    """

    def __init__(self, rank: AtLeastOne = 4, camera_dropout: Unit = 0.1):
        super().__init__()
        self.rank, self.camera_dropout = rank, camera_dropout
        self.down, self.up, self.camera = nn.ParameterList(), nn.ParameterList(), nn.Sequential()
        self.prior: TextPrior | None
        object.__setattr__(self, "prior", None)  # not a submodule: it is neither trained nor stored here

    def attach(self, prior: Prior[Any] | None) -> None:
        """Make the weights for a text prior, on its device, in float32; the same for every student of the same seed.
        They are kept where there are some. Raises UserError for another prior.
        """
        object.__setattr__(self, "prior", prior if isinstance(prior, TextPrior) else None)
        layers = self.layers()
        assert self.prior is not None, "layers asks"
        if len(self.down) == len(layers):  # made for an earlier stage of the run, and trained since
            return
        device = next(self.prior.unet.parameters()).device
        for layer in layers:
            self.down.append(torch.randn(self.rank, layer.in_features, device=device) / math.sqrt(layer.in_features))
            self.up.append(torch.zeros(layer.out_features, self.rank, device=device))
        width = self.prior.unet.time_embedding.linear_2.out_features
        last = nn.Linear(width, width, device=device)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.camera = nn.Sequential(nn.Linear(NUMBERS, width, device=device), nn.SiLU(), last)

    def layers(self) -> list[nn.Linear]:
        """What of the prior is changed. Raises UserError without one."""
        if self.prior is None:
            raise UserError(
                "VSD learns beside a text prior, as TextTo3D and RealFusion have; distill others with NGD, SDS or SJC"
            )
        named = self.prior.unet.named_modules()
        return [layer for name, layer in named if isinstance(layer, nn.Linear) and name.endswith(LAYERS)]

    @contextmanager
    def changed(self, embedding: Tensor) -> Iterator[TextPrior]:
        """The prior with the changes, and with (n, width) added to its embedding of time."""
        layers, handles = self.layers(), []
        assert self.prior is not None, "layers asks"
        try:
            for layer, down, up in zip(layers, self.down, self.up, strict=True):
                handles.append(layer.register_forward_hook(partial(_changed, down, up)))
            handles.append(self.prior.unet.time_embedding.register_forward_hook(partial(_moved, embedding)))
            yield self.prior
        finally:
            for handle in handles:
                handle.remove()

    def denoise(self, noisy: Tensor, timesteps: Tensor, condition: TextCondition, cameras: Cameras) -> Denoised:
        """The clean latents and the noise of ``noisy`` (n, C, H, W), as seen by cameras (n,); without classifier-free
        guidance, of which a scale of 1 has no need.
        """
        with self.changed(self.camera(poses(cameras))) as prior:
            output = prior(noisy, timesteps, condition.text)
        return Denoised(
            denoised(prior.schedule, noisy, output, timesteps), noise_of(prior.schedule, noisy, output, timesteps)
        )

    def loss(self, latents: Tensor, condition: TextCondition, cameras: Cameras, generator: torch.Generator) -> Tensor:
        """Denoising loss of renderings' latents (n, C, H, W), mean over all entries, at any noise level."""
        kept = torch.rand(len(latents), 1, generator=generator, device=latents.device) >= self.camera_dropout
        with self.changed(self.camera(poses(cameras)) * kept) as prior:
            steps = prior.schedule.config.num_train_timesteps
            times = torch.randint(steps, (len(latents),), generator=generator, device=latents.device)
            noise = torch.randn(latents.shape, generator=generator, device=latents.device)
            alpha, sigma = signal_and_noise(prior.schedule, times, latents)
            output = prior(alpha * latents + sigma * noise, times, condition.text)
        return (output - training_target(prior.schedule, latents, noise, times)).square().mean()


def poses(cameras: Cameras) -> Tensor:
    """(n, 12) of cameras (n,): camera-to-world without its last row, which is the same for all."""
    return cameras.c2w[:, :3].flatten(1)


def _changed(down: Tensor, up: Tensor, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output + inputs[0] @ down.T.to(output.dtype) @ up.T.to(output.dtype)


def _moved(by: Tensor, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output + by.to(output.dtype)
