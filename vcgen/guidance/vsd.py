"""Variational score distillation, the guidance of ProlificDreamer."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from vcgen.diffusion.base import Prior
from vcgen.diffusion.schedule import signal_and_noise
from vcgen.diffusion.student import Student
from vcgen.guidance.base import ConditionedPrior, Guidance, Round
from vcgen.guidance.noise_levels import draw_times
from vcgen.schema import AtLeastOne, Positive, Unit


class VSD(nn.Module, Guidance):
    """Variational score distillation (ProlificDreamer, arXiv 2305.16213, eq. 9).

    The gradient at a rendering is sigma^2 (e_prior - e_student): where SDS subtracts the noise that was added, this
    subtracts what a student, which learns the renderings meanwhile, takes for noise. Scenes then are samples of the
    prior, not its mode, and a guidance scale of sampling, as 7.5, will do. It costs a network's training beside.

    Args:
        student: What learns the renderings; null: of rank 4.
        lr: The student's learning rate.
        start: Highest noise level, as a fraction of the noise schedule; levels are drawn uniformly.
        end: Lowest noise level.
        rounds: How often targets are made.
        updates: Optimizer steps of the field after each round.
    """

    def __init__(
        self,
        student: Student | None = None,
        lr: Positive = 1e-4,
        start: Unit = 0.98,
        end: Unit = 0.02,
        rounds: AtLeastOne = 1000,
        updates: AtLeastOne = 1,
    ):
        super().__init__()
        if end >= start:
            raise ValueError(f"need end < start; got a VSD from {start} to {end}")
        self.student = student or Student()
        self.lr, self.start, self.end, self.rounds, self.updates = lr, start, end, rounds, updates
        #: The last renderings and the prior under their condition; one list for all copies, see :meth:`annealed`.
        self.latest: list[tuple[Tensor, ConditionedPrior]] = []

    def attach(self, prior: Prior[Any] | None) -> None:
        """See :meth:`Guidance.attach`."""
        self.student.attach(prior)

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """One draw of noise level and noise per view."""
        times = draw_times(renderings, prior.schedule, self.end, self.start, generator)
        noise = torch.randn(renderings.shape, generator=generator, device=renderings.device)
        alpha, sigma = signal_and_noise(prior.schedule, times, renderings)
        noisy = alpha * renderings + sigma * noise
        prediction = prior.denoise(noisy, times)
        own = self.student.denoise(noisy, times, prior.condition, prior.cameras)  # type: ignore[arg-type]
        self.latest[:] = [(renderings.detach(), prior)]
        targets = renderings - sigma.square() * (prediction.noise - own.noise)
        return Round(targets, noise, times.float().mean(), 0.0, (prediction.image - renderings).square().mean().sqrt())

    def annealed(self, progress: float, end: float, lowest: float | None = None) -> Self:
        """See :meth:`Guidance.annealed`: with the same student."""
        copied = copy.copy(self)
        copied.start = self.start + progress * (end - self.start)
        copied.end = self.end if lowest is None else lowest
        if copied.end >= copied.start:
            raise ValueError(f"need end < start; got a VSD from {copied.start} to {copied.end}")
        return copied

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The student's denoising loss at the last renderings, mean over all entries."""
        latents, prior = self.latest[0]
        return {"student": self.student.loss(latents, prior.condition, prior.cameras, generator)}  # type: ignore[arg-type]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The student's, at its own rate."""
        return [{"params": list(self.student.parameters()), "lr": self.lr}]

    def settings(self) -> dict[str, Any]:
        """See :meth:`Guidance.settings`."""
        names = ("lr", "start", "end", "rounds", "updates")
        student = {"rank": self.student.rank, "camera_dropout": self.student.camera_dropout}
        return {"class": type(self).__name__, **{name: getattr(self, name) for name in names}, **student}

    def with_rounds(self, rounds: int) -> Self:
        """See :meth:`Guidance.with_rounds`."""
        copied = copy.copy(self)
        copied.rounds = rounds
        return copied
