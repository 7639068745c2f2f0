"""The samplers: diffusers' solvers, on any number of steps up to a schedule's own."""

from fractions import Fraction
from typing import Any, Literal

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from vcgen.errors import UserError

#: Their names here.
Sampler = Literal["ddim", "dpm++"]


class DDIM(DDIMScheduler):  # type: ignore[misc]  # diffusers has no types
    """DDIM (arXiv 2010.02502, eq. 12) from each timestep to the next one that is asked for.

    diffusers goes on by the schedule's length over the number of steps, rounded down. Where that leaves a rest, the
    image is noisier than the next timestep says, at each step anew: with 256 of 1000 steps, images of standard
    deviation 0.5 came out with 0.59.
    """

    num_inference_steps: Any

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """See diffusers."""
        super().set_timesteps(num_inference_steps, device)
        times = list(map(int, self.timesteps))
        #: Timestep -> the next one; -1: the clean image.
        self.following = dict(zip(times, [*times[1:], -1], strict=True))

    def step(self, model_output: Tensor, timestep: int | Tensor, sample: Tensor) -> Any:
        """See diffusers; without noise."""
        time, count = int(timestep), self.num_inference_steps
        # the number of steps with which diffusers' division gives this one, exactly
        self.num_inference_steps = Fraction(self.config.num_train_timesteps, time - self.following[time])
        try:
            return super().step(model_output, timestep, sample)
        finally:
            self.num_inference_steps = count


SAMPLERS = {"ddim": DDIM, "dpm++": DPMSolverMultistepScheduler}


def solver_of(schedule: DDPMScheduler, sampler: str, steps: int) -> Any:
    """The sampler of that name, set to so many steps of a schedule. Raises UserError for another name, and for more
    steps than the schedule has, or none.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"there is no sampler {sampler!r}: the samplers are {', '.join(SAMPLERS)}")
    most = schedule.config.num_train_timesteps
    if not 1 <= steps <= most:
        raise UserError(f"{steps} sampling steps: the noise schedule has from 1 to {most}")
    solver = SAMPLERS[sampler].from_config(schedule.config, timestep_spacing="trailing")
    # On the CPU, where the solver's tables are: a GPU would be waited for at every look-up.
    solver.set_timesteps(steps, device="cpu")
    if len(solver.timesteps) > steps:  # diffusers counts in floats: of 61 steps it makes 62, the last of them -1
        solver.timesteps = solver.timesteps[:steps]
        if sampler == "dpm++":
            solver.set_timesteps(timesteps=solver.timesteps.tolist(), device="cpu")
    return solver
