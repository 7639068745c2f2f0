"""The noise schedule against diffusers'."""

import torch
from diffusers import DDPMScheduler

from vcgen.diffusion.schedule import noise_schedule, signal_and_noise, timestep


def test_the_schedule_at_64_pixels_is_diffusers_cosine():
    ours, theirs = noise_schedule(size=64), DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, atol=2e-5, rtol=1e-3)


def test_twice_the_size_is_as_noisy_as_a_downsampled_image():
    """Averaging 2 x 2 pixels halves the noise: log SNR at 128 px + 2 log 2 is that at 64 px."""
    snr = [torch.logit(noise_schedule(size=size).alphas_cumprod.double()) for size in (64, 128)]
    torch.testing.assert_close(
        snr[1][10:990], snr[0][10:990] - 2 * torch.log(torch.tensor(2.0).double()), atol=2e-3, rtol=1e-3
    )


def test_noise_and_velocity_are_diffusers():
    schedule, clean, noise = noise_schedule(), torch.rand(3, 3, 8, 8), torch.randn(3, 3, 8, 8)
    times = torch.tensor([5, 500, 990])
    alpha, sigma = signal_and_noise(schedule, times, clean)
    torch.testing.assert_close(alpha * clean + sigma * noise, schedule.add_noise(clean, noise, times))
    torch.testing.assert_close(alpha * noise - sigma * clean, schedule.get_velocity(clean, noise, times))
    assert timestep(schedule, 0) == 0 and timestep(schedule, 0.5) == 500 and timestep(schedule, 1) == 999
