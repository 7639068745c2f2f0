"""PSNR against closed forms; what all metrics have in common. test_ssim.py has the forms of SSIM."""

import numpy as np
import pytest
import torch

from vcgen.errors import UserError
from vcgen.evaluation.protocol import FURTHER_METRICS, SUPPORTED_METRICS
from vcgen.metrics.base import PSNR_CAP, Column, Metric
from vcgen.metrics.image import COLUMNS, FURTHER, Metrics, column, psnr, quantise


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
    named = {name: known.definition.split(":")[0] for name, known in COLUMNS.items()}
    assert named == SUPPORTED_METRICS | FURTHER_METRICS
    assert column("lpips_vgg") is COLUMNS["lpips"]


def test_psnr_of_floats_takes_renderings_as_they_are():
    truth = torch.full((1, 3, 16, 16), 1.0)
    prediction = truth + 0.1  # brighter than white
    (record,) = Metrics([FURTHER["psnr_unclamped"]])(prediction, truth)
    assert record["psnr"] == PSNR_CAP and record["psnr_unclamped"] == pytest.approx(20, abs=1e-5)
    (record,) = Metrics([FURTHER["psnr_unclamped"]])(truth - 0.4 / 255, truth)
    assert record["psnr"] == PSNR_CAP and record["psnr_unclamped"] == pytest.approx(-20 * np.log10(0.4 / 255), abs=1e-3)


class Given(Metric):
    """A metric of a user's own that says what it is told, of [0, 1]."""

    column = Column("Given", "given: a number", higher_is_better=True, low=0.0, high=1.0)

    def __init__(self, values: list[float], name: str = "given"):
        self.values, self.name = torch.tensor(values, dtype=torch.float64), name

    def __call__(self, prediction, truth):
        return self.values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, float("nan")], r"metric given is nan, its column allows \[0, 1\]"),
        ([0.5, 7.0], "metric given is 7, its column"),
        ([0.5], r"metric given gives values \(1,\) of 2 images"),
    ],
)
def test_a_metric_that_breaks_its_word_is_named(values, words):
    images = torch.rand(2, 3, 16, 16)
    assert Metrics([Given([0.5, 1.0])])(images, images)[1]["given"] == 1
    with pytest.raises(UserError, match=words):
        Metrics([Given(values)])(images, images)


@pytest.mark.parametrize("name", ["psnr", "Given", "lpips_mine", "a b", "", "9"])
def test_names_that_no_column_can_have_are_refused(name):
    with pytest.raises(UserError, match="a metric's name must be a word that no other has"):
        Metrics([Given([], name)])
