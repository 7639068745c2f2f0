"""Each form of SSIM against the library that has it, called as its users call it, or against its definition written
out.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from small_evaluation import PROTOCOL, SETTINGS, gray_shards, run
from vcgen.errors import UserError
from vcgen.metrics import image, named
from vcgen.metrics.named import by_name
from vcgen.metrics.ssim import at_inferred_range, ssim, ssim_gauss, ssim_valid


def pair(noise: float, count: int = 3, height: int = 24, width: int = 31) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that span neither [0, 1] nor the same range each."""
    contrast = torch.tensor([0.3, 0.5, 0.7])[:, None, None, None]
    truth = 0.2 + contrast * torch.rand(count, 3, height, width, dtype=torch.float64)
    return (truth + noise * torch.randn_like(truth)).clamp(0, 1), truth


def each(measure, prediction: torch.Tensor, truth: torch.Tensor) -> list[float]:
    """The values of a function of two numpy images (height, width, 3)."""
    return [measure(a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy()) for a, b in zip(prediction, truth)]


def scikit(**options):
    return lambda a, b: structural_similarity(a, b, channel_axis=-1, data_range=1.0, **options)


def torchmetrics(data_range: float | None):
    def measure(a, b):
        return torchmetrics_ssim(
            *(torch.from_numpy(x).permute(2, 0, 1)[None] for x in (a, b)), data_range=data_range
        ).item()

    return measure


def written_out(a: np.ndarray, b: np.ndarray, zeros: int = 0, inferred: bool = False) -> float:
    """Wang et al. 2004, equations 13 to 16, window by window: weighted sums, no convolution, no library."""
    span = max(np.ptp(a), np.ptp(b)) if inferred else 1.0
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    a, b = (np.pad(x, ((zeros, zeros), (zeros, zeros), (0, 0))) for x in (a, b))
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(line, line)[:, :, None] / line.sum() ** 2
    scores = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (weights * x).sum((0, 1)), (weights * y).sum((0, 1))
            vx, vy = (weights * (x - mx) ** 2).sum((0, 1)), (weights * (y - my) ** 2).sum((0, 1))
            cov = (weights * (x - mx) * (y - my)).sum((0, 1))
            scores.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(scores))


REFERENCES = {
    "ssim": scikit(),
    "ssim_gauss": partial(written_out, zeros=5),
    "ssim_skimage_gauss": scikit(win_size=11, gaussian_weights=True),  # pixelSplat, src/evaluation/metrics.py
    "ssim_valid": scikit(gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
    "ssim_valid_inferred": partial(written_out, inferred=True),
    "ssim_torchmetrics": torchmetrics(1.0),
    "ssim_torchmetrics_inferred": torchmetrics(None),
}


def test_every_form_has_a_reference():
    assert REFERENCES.keys() == {name for name in image.COLUMNS if name.startswith("ssim")}


@pytest.mark.parametrize("noise", [0.02, 0.2])
@pytest.mark.parametrize("name", REFERENCES)
def test_a_form_equals_its_reference(name, noise):
    metric = {metric.name: metric for metric in image.DEFAULT}.get(name) or named.load(name)
    prediction, truth = pair(noise)
    assert metric(prediction, truth).tolist() == pytest.approx(each(REFERENCES[name], prediction, truth), abs=1e-6)


def test_two_images_of_one_value_each_have_a_range_of_one():
    black, gray = torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.5)
    for form in (ssim_valid, image.ssim_torchmetrics):
        assert at_inferred_range(form, gray, gray).item() == pytest.approx(1)
        assert at_inferred_range(form, black, gray).item() == pytest.approx(form(black, gray).item())


@pytest.mark.parametrize(("form", "side"), [(ssim, 6), (ssim_valid, 10), (image.ssim_torchmetrics, 5)])
def test_images_smaller_than_the_window_are_refused_in_one_line(form, side):
    images = torch.rand(1, 3, side, side + 20)
    with pytest.raises(UserError, match=rf"needs images of at least {side + 1} x {side + 1} pixels"):
        form(images, images)
    assert ssim_gauss(images, images).item() == pytest.approx(1)


def test_names_on_the_command_line_and_in_a_protocol_become_columns(tmp_path):
    settings = replace(SETTINGS, named=("ssim", "ssim_torchmetrics", "ssim_valid"))
    protocol = replace(PROTOCOL, metrics=("ssim_valid",))
    results, _ = run(gray_shards(tmp_path / "shards"), tmp_path / "out", protocol=protocol, settings=settings)
    assert results.metrics == ["psnr", "ssim", "ssim_gauss", "ssim_valid", "ssim_torchmetrics"]
    assert results.definitions["ssim_torchmetrics"].startswith("gaussian-11-reflected: ") and not results.columns


def test_names_are_told_from_plug_ins_and_misspelled_ones_refused():
    assert by_name(["ssim_valid", "lpips_alex", "ssim"]) == ((), ("ssim_valid", "lpips_alex", "ssim"))
    with pytest.raises(UserError, match=r"there is no metric 'ssim_vald' \(did you mean ssim_valid\?\)"):
        by_name(["ssim_vald"])
    with pytest.raises(UserError, match=r"'PSNR' \(did you mean psnr\?\)"):
        by_name(["PSNR"])
    with pytest.raises(UserError, match=r"'fid'; the metrics are psnr, .*fid_squeeze"):
        by_name(["fid"])
