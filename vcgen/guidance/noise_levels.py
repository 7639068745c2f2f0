"""The noise levels that a guidance works at."""

from typing import Protocol

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from vcgen.diffusion.schedule import timestep
from vcgen.schema import check_options


class NoiseRange(Protocol):
    """A guidance that goes, or draws, from noise level ``start`` to ``end``, fractions of the noise schedule."""

    @property
    def start(self) -> float:
        """The highest."""
        ...

    @property
    def end(self) -> float:
        """The lowest."""
        ...


def check_rounds(guidance: NoiseRange) -> None:
    """Raises ValueError where noise levels or other options are impossible."""
    check_options(guidance)
    if guidance.end >= guidance.start:
        raise ValueError(f"need end < start; got {guidance}")


def draw_times(guidance: NoiseRange, renderings: Tensor, schedule: DDPMScheduler, generator: torch.Generator) -> Tensor:
    """A timestep per rendering, uniform between the guidance's ``end`` and ``start``: (n,)."""
    low, high = timestep(schedule, guidance.end), timestep(schedule, guidance.start)
    return torch.randint(low, high + 1, (len(renderings),), generator=generator, device=renderings.device)
