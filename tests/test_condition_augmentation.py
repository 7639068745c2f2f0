"""Conditions spoiled for training: the blur against scipy's, the noise's spread, nothing where nothing is asked."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from vcgen.diffusion.base import Condition
from vcgen.diffusion.condition_augmentation import blurred, spoiled
from vcgen.diffusion.prior import ViewPrior

SMALL = dict(channels=(16, 32), attention=(False, True), size=16)


def test_blur_is_scipys():
    images, deviations = torch.rand(3, 2, 24, 24, dtype=torch.float64), torch.tensor([0.3, 1.0, 2.0]).double()
    found = blurred(images, deviations, 2.0)
    for image, deviation, result in zip(images, deviations, found, strict=True):
        expected = [gaussian_filter(channel, float(deviation), mode="nearest", radius=6) for channel in image.numpy()]
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


def test_blur_is_the_same_in_mixed_precision():
    images, deviations = torch.rand(3, 2, 24, 24), torch.tensor([0.3, 1.0, 2.0])
    with torch.autocast("cpu", torch.bfloat16):
        found = blurred(images, deviations, 2.0)
    assert torch.equal(found, blurred(images, deviations, 2.0))


def test_levels_are_uniform_and_each_images_own():
    maps = torch.zeros(400, 1, 16, 16)
    levels = spoiled(maps, 0.0, 0.5, torch.Generator().manual_seed(0)).std((1, 2, 3))
    assert levels.max() < 0.55 and abs(levels.mean() - 0.25) < 0.03 and abs(levels.std() - 0.5 / 12**0.5) < 0.03


@pytest.mark.parametrize(("blur", "noise"), [(0.0, 0.0), (1.5, 0.0), (0.0, 0.2)])
def test_training_alone_spoils_and_dropped_conditions_stay_zero(blur, noise):
    torch.manual_seed(0)
    prior = ViewPrior(condition_blur=blur, condition_noise=noise, **SMALL)
    condition = Condition(torch.rand(2, 4, 16, 16), torch.rand(2, 4, 64), torch.ones(2))
    kept = condition.where(torch.tensor([True, False]))
    shown = prior.augmented(kept, torch.Generator().manual_seed(0))
    assert torch.equal(shown.maps, kept.maps) == (blur == noise == 0)
    assert not shown.maps[1].any()
    images, timesteps = torch.rand(2, 3, 16, 16), torch.tensor([10, 500])
    prior.forward = lambda noisy, timesteps, condition: condition.maps[:, :3]
    assert torch.equal(prior.guided(images, timesteps, condition), condition.maps[:, :3])
