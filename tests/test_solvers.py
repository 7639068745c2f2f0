"""Samplers on any number of steps, with the exact denoiser of Gaussian images."""

import math

import pytest
import torch
from diffusers import DDIMScheduler

from vcgen.diffusion.base import Condition, ImagePrior, to_unit
from vcgen.diffusion.schedule import edm_schedule, noise_schedule, signal_and_noise, training_target
from vcgen.diffusion.solvers import solver_of
from vcgen.errors import UserError

COSINE, EDM = noise_schedule(), edm_schedule()


def gaussian(schedule, time, deviation):
    """Deviation of z at a timestep, and v as a multiple of z, for images of mean 0."""
    alpha, sigma = (
        float(x) for x in (schedule.alphas_cumprod[time].sqrt(), (1 - schedule.alphas_cumprod[time]).sqrt())
    )
    total = math.hypot(alpha * deviation, sigma)
    return total, alpha * sigma * (1 - deviation**2) / total**2


def sampled(schedule, sampler, steps, deviation):
    """By what a sampler multiplies pure noise."""
    solver, image = solver_of(schedule, sampler, steps), torch.ones(1, dtype=torch.float64)
    assert len(solver.timesteps) == steps and solver.timesteps.min() >= 0
    for time in solver.timesteps:
        image = solver.step(gaussian(schedule, int(time), deviation)[1] * image, time, image).prev_sample
    return float(image)


@pytest.mark.parametrize("steps", [7, 30, 61, 64, 128, 256, 512, 999])
@pytest.mark.parametrize("deviation", [0.05, 0.5])
@pytest.mark.parametrize("schedule", [COSINE, EDM], ids=["cosine", "edm"])
def test_ddim_goes_to_the_next_timestep(schedule, deviation, steps):
    """DDIM's step between levels s and t of Gaussian images multiplies them by cos of the angle between (alpha d,
    sigma) of both times the ratio of their lengths, whatever lies between.
    """
    times = [*solver_of(schedule, "ddim", steps).timesteps.tolist()]
    angles = [
        math.atan2(float((1 - a).sqrt()), float(a.sqrt()) * deviation)
        for a in (schedule.alphas_cumprod[time].double() for time in times)
    ]
    lengths = [gaussian(schedule, time, deviation)[0] for time in times]
    turns = [a - b for a, b in zip(angles, [*angles[1:], 0.0], strict=True)]
    exact = math.prod(map(math.cos, turns)) * deviation / lengths[0]
    assert sampled(schedule, "ddim", steps, deviation) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("steps", [61, 128, 256, 512])
def test_more_steps_keep_the_deviation_of_images(steps, sampler):
    assert sampled(COSINE, sampler, steps, 0.5) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("steps", [1, 2, 10, 25, 50, 100])
def test_steps_that_divide_the_schedule_are_diffusers(steps):
    ours = solver_of(COSINE, "ddim", steps)
    theirs = DDIMScheduler.from_config(COSINE.config, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    first = second = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for time in ours.timesteps:
        first, second = ours.step(first.sin(), time, first)[0], theirs.step(second.sin(), time, second)[0]
    assert torch.equal(first, second) and ours.num_inference_steps == steps


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(UserError, match=f"{steps} sampling steps: the noise schedule has from 1 to 1000"):
        solver_of(COSINE, "dpm++", steps)


class Fallible(ImagePrior):
    """Knows the clean images; is off by 0.02, and has seen no noisier ones than it would be trained on."""

    def __init__(self, prediction, clean):
        super().__init__()
        self.schedule, self.clean = noise_schedule(prediction), clean

    def condition(self, *_):
        raise NotImplementedError

    def forward(self, noisy, timesteps, condition):
        alpha, sigma = signal_and_noise(self.schedule, timesteps, noisy)
        noise = (noisy.clamp(-4, 4) - alpha * self.clean) / sigma
        return training_target(self.schedule, self.clean, noise, timesteps) + 0.02


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_small_error_at_pure_noise_does_not_spoil_the_sample(prediction, sampler):
    """In the clean image that a prediction of the noise means, it is one of 400 there."""
    clean = torch.rand(2, 3, 16, 16) * 1.8 - 0.9
    given = Condition(torch.zeros(2, 4, 16, 16), None, torch.ones(2))
    images = Fallible(prediction, clean).sample(given, torch.Generator().manual_seed(0), 12, sampler=sampler)
    torch.testing.assert_close(images, to_unit(clean), atol=0.02, rtol=0)
