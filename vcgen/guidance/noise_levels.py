"""The noise levels that a guidance works at."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from vcgen.diffusion.schedule import timestep
from vcgen.guidance.base import Guidance
from vcgen.schema import AtLeastOne, Unit, check_options


def check_rounds(guidance: Guidance, start: float, end: float) -> None:
    """Raises ValueError where its options are impossible. start, end: its highest and lowest noise level."""
    check_options(guidance)
    if end >= start:
        raise ValueError(f"need end < start; got {guidance}")


@dataclass(frozen=True)
class DrawnLevels(Guidance):
    """A guidance that noises the renderings afresh in every round, each to a level of its own.

    Args:
        start: Highest noise level, as a fraction of the noise schedule; levels are drawn uniformly.
        end: Lowest noise level.
        rounds: How often targets are made.
        updates: Optimizer steps of the field after each round.
    """

    start: Unit = 0.98
    end: Unit = 0.02
    rounds: AtLeastOne = 1000
    updates: AtLeastOne = 1

    def __post_init__(self) -> None:
        check_rounds(self, self.start, self.end)

    def annealed(self, progress: float, end: float, lowest: float | None = None) -> Self:
        """See :meth:`Guidance.annealed`."""
        highest = self.start + progress * (end - self.start)
        return replace(self, start=highest, end=self.end if lowest is None else lowest)

    def draw_times(self, renderings: Tensor, schedule: DDPMScheduler, generator: torch.Generator) -> Tensor:
        """A timestep per rendering, uniform between ``end`` and ``start``: (n,)."""
        return draw_times(renderings, schedule, self.end, self.start, generator)


def draw_times(
    renderings: Tensor, schedule: DDPMScheduler, end: float, start: float, generator: torch.Generator
) -> Tensor:
    """A timestep per rendering, uniform between two fractions of the schedule: (n,)."""
    low, high = timestep(schedule, end), timestep(schedule, start)
    return torch.randint(low, high + 1, (len(renderings),), generator=generator, device=renderings.device)
