"""GeNVS's prior against EDM's formulas (arXiv 2206.00364, table 1)."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from small_genvs import SIDE, generator, prior
from vcgen.diffusion.base import Condition
from vcgen.diffusion.feature_prior import FeaturePrior


class Told(nn.Module):
    """In place of a U-Net: notes what it is given, and answers by a function of the scaled image."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, cells, level):
        self.cells, self.level = cells, level
        return SimpleNamespace(sample=self.answer(cells[:, :3], level))


def condition(count: int) -> Condition:
    maps = 7 * torch.randn(count, 5, SIDE, SIDE, generator=generator(1))
    return Condition(maps, None, torch.ones(count))


def levels(made: FeaturePrior) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Timesteps over the whole schedule, their alpha and their s."""
    times = torch.arange(0, 1000, 27)
    survival = made.schedule.alphas_cumprod[times]
    return times, survival.sqrt()[:, None, None, None], ((1 - survival) / survival).sqrt()[:, None, None, None]


def test_the_noise_levels_are_edms():
    made = prior()
    s = made.log_noise(torch.arange(1000)).exp()
    expected = torch.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 1000) ** 7
    torch.testing.assert_close(s, expected, rtol=0.02, atol=0)  # float32 holds 1 - s^2 to two digits at 0.002
    torch.testing.assert_close(s[300:], expected[300:], rtol=1e-4, atol=0)


def test_the_prior_is_edms_and_sees_the_condition_as_it_is():
    """Table 1 of arXiv 2206.00364."""
    made = prior(sigma_data=0.4)
    times, alpha, s = levels(made)
    answer = torch.randn(len(times), 3, SIDE, SIDE, generator=generator())
    made.unet = Told(lambda *_: answer)
    noised = torch.randn(answer.shape, generator=generator(2)) * (s**2 + 1).sqrt()
    given = condition(len(times))
    found = made.denoise(alpha * noised, times, given).image
    c_skip, c_out, c_in = 0.16 / (s**2 + 0.16), s * 0.4 / (s**2 + 0.16).sqrt(), 1 / (s**2 + 0.16).sqrt()
    torch.testing.assert_close(found, c_skip * noised + c_out * answer, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made.unet.cells[:, :3], c_in * noised)
    torch.testing.assert_close(made.unet.level, s.flatten().log() / 4)
    assert torch.equal(made.unet.cells[:, 3:], given.maps)


def test_the_loss_is_edms():
    made = prior(condition_dropout=0.0)
    made.unet = Told(lambda image, level: image.tanh())
    clean = torch.rand(40, 3, SIDE, SIDE, generator=generator(3))
    found, times = made.loss(clean, condition(40), generator(4))
    drawn = generator(4)
    torch.testing.assert_close(times, made.draw_timesteps(40, drawn))
    noise = torch.randn(clean.shape, generator=drawn)
    survival = made.schedule.alphas_cumprod[times][:, None, None, None]
    s, x = ((1 - survival) / survival).sqrt(), 2 * clean - 1
    y = x + s * noise
    total = (s**2 + 0.25).sqrt()
    denoised = 0.25 / total**2 * y + s * 0.5 / total * (y / total).tanh()
    expected = ((s**2 + 0.25) / (s * 0.5) ** 2 * (denoised - x).square()).mean((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-4)


def test_training_noise_is_log_normal():
    made = prior(noise=(-0.5, 0.7))
    drawn = made.log_noise(made.draw_timesteps(20_000, generator()))
    exact = -0.5 + 0.7 * torch.randn(20_000, generator=generator())
    assert (drawn - exact).abs().max() < 0.01


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_an_oracle_denoiser_returns_its_image(sampler):
    made = prior(condition_dropout=0.0)
    wanted = torch.rand(2, 3, SIDE, SIDE, generator=generator())

    def oracle(image, level):
        s = (4 * level).exp()[:, None, None, None]
        total = (s**2 + 0.25).sqrt()
        return ((2 * wanted - 1) - 0.25 / total * image) * total / (0.5 * s)

    made.unet = Told(oracle)
    drawn = made.sample(condition(2), generator(), 12, sampler=sampler)
    torch.testing.assert_close(drawn, wanted, rtol=0, atol=0.01)
