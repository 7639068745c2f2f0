"""Metrics against closed forms and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from vcgen.evaluation.protocol import SUPPORTED_METRICS
from vcgen.metrics.image import COLUMNS, PSNR_CAP, Metrics, column, psnr, quantise, ssim, ssim_gauss


def random_pair(noise: float, count: int = 3, height: int = 24, width: int = 31) -> tuple[torch.Tensor, torch.Tensor]:
    truth = torch.rand(count, 3, height, width, dtype=torch.float64)
    return (truth + noise * torch.randn_like(truth)).clamp(0, 1), truth


def test_constant_offset_of_a_tenth_is_20_decibels():
    truth = torch.full((2, 3, 8, 8), 0.4, dtype=torch.float64)
    assert psnr(truth + 0.1, truth).tolist() == pytest.approx([20, 20], abs=1e-12)


def test_psnr_is_averaged_in_decibels_not_pooled():
    truth = torch.full((2, 3, 8, 8), 0.4, dtype=torch.float64)
    prediction = truth + torch.tensor([0.1, 0.01], dtype=torch.float64)[:, None, None, None]
    assert psnr(prediction, truth).mean().item() == pytest.approx(30, abs=1e-12)
    assert psnr(prediction.reshape(1, 3, 16, 8), truth.reshape(1, 3, 16, 8)).item() == pytest.approx(22.97, abs=0.005)


def test_identical_images_score_one_and_the_psnr_cap():
    _, truth = random_pair(0)
    for record in Metrics()(truth, truth):
        assert record["psnr"] == PSNR_CAP
        assert record["ssim"] == pytest.approx(1, abs=1e-12)
        assert record["ssim_gauss"] == pytest.approx(1, abs=1e-12)


def test_cap_is_out_of_reach_of_images_that_differ_at_128_pixels():
    smallest_error = (1 / 255) ** 2 / (3 * 128 * 128)
    assert -10 * np.log10(smallest_error) < PSNR_CAP


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_ssim_equals_scikit_image(noise):
    prediction, truth = random_pair(noise)
    expected = [
        structural_similarity(a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy(), channel_axis=-1, data_range=1.0)
        for a, b in zip(prediction, truth)
    ]
    assert ssim(prediction, truth).tolist() == pytest.approx(expected, abs=1e-6)


def test_gaussian_ssim_equals_scikit_image_on_zero_padded_images():
    prediction, truth = random_pair(0.1)
    pad = 12  # scikit-image's own border handling stays outside the part that is compared
    padded = [torch.nn.functional.pad(x, (pad,) * 4).permute(0, 2, 3, 1).numpy() for x in (prediction, truth)]
    expected = []
    for a, b in zip(*padded):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        _, scores = structural_similarity(a, b, channel_axis=-1, data_range=1.0, full=True, **options)
        expected.append(scores[pad:-pad, pad:-pad].mean())
    assert ssim_gauss(prediction, truth).tolist() == pytest.approx(expected, abs=1e-6)


def test_quantisation_rounds_to_the_nearest_of_256_levels_and_clamps():
    values = torch.tensor([-0.5, 0.49 / 255, 0.51 / 255, 100.4 / 255, 1.7])
    assert (quantise(values) * 255).tolist() == pytest.approx([0, 0, 1, 100, 255], abs=1e-9)


def test_predictions_are_quantised_before_they_are_compared():
    truth = torch.full((1, 3, 16, 16), 100 / 255)
    assert Metrics()(truth + 0.4 / 255, truth)[0]["psnr"] == PSNR_CAP
    assert Metrics()(truth + 0.6 / 255, truth)[0]["psnr"] == pytest.approx(-20 * np.log10(1 / 255), abs=1e-6)


def test_every_image_gets_its_own_record():
    prediction, truth = random_pair(0.1, count=4)
    together = Metrics()(prediction, truth)
    alone = [Metrics()(a[None], b[None])[0] for a, b in zip(prediction, truth)]
    assert [list(record.values()) for record in together] == [
        pytest.approx(list(record.values()), abs=1e-12) for record in alone
    ]


def test_every_column_has_a_definition_that_protocol_files_name():
    assert {name: known.definition.split(":")[0] for name, known in COLUMNS.items()} == SUPPORTED_METRICS
    assert column("lpips_vgg") is COLUMNS["lpips"]
