"""Sharpness without a reference: a frequency, which blur lowers, of nothing but the inside of the object."""

import math

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from vcgen.metrics.sharpness import sharpness


def disc(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A checkered disc of squares of an eighth of the side, and its opacity."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    y, x = torch.meshgrid(place, place, indexing="ij")
    checkered = ((8 * x).floor() + (8 * y).floor()) % 2
    alpha = ((x - 0.5).square() + (y - 0.5).square() < 0.16).double()[None, None]
    return (0.2 + 0.6 * checkered).expand(1, 3, -1, -1), alpha


@pytest.mark.parametrize("size", [64, 128])
def test_what_is_blurred_more_is_less_sharp(size):
    images, alpha = disc(size)
    found = [sharpness(images, alpha)] + [
        sharpness(gaussian_blur(images, [2 * size // 4 + 1] * 2, [deviation * size / 64] * 2), alpha)
        for deviation in (0.5, 1.0, 2.0)
    ]
    assert found == sorted(found, reverse=True) and found[1] < 0.9 * found[0] and found[2] < 0.8 * found[0]


@pytest.mark.parametrize("cycles", [2, 3, 5])
def test_a_wave_has_its_own_frequency(cycles):
    wave = torch.sin(2 * math.pi * cycles * torch.arange(128, dtype=torch.float64) / 128)
    images = (0.5 + 0.3 * wave).expand(2, 3, 128, 128)
    assert sharpness(images, torch.ones(2, 1, 128, 128)) == pytest.approx(cycles, rel=0.03)


def test_what_lies_outside_contrast_and_brightness_do_not_matter():
    images, alpha = disc(64)
    expected = sharpness(images, alpha)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert sharpness(torch.where(alpha > 0, images, noise), alpha) == pytest.approx(expected, rel=1e-12)
    assert sharpness(0.3 * images + 0.1, alpha) == pytest.approx(expected, rel=1e-9)
    twice = torch.cat([images, images + 0.1]), torch.cat([alpha, alpha])  # views of different brightness
    assert sharpness(*twice) == pytest.approx(expected, rel=1e-9)


def test_nothing_inside_and_one_color_have_no_sharpness():
    images, alpha = disc(64)
    assert sharpness(images, torch.zeros_like(alpha)) == 0
    assert sharpness(torch.full_like(images, 0.4), alpha) == 0
