"""The metrics of the GSO-30 protocol on one object, a method's prediction against the truth, both drawn by others:
computed by vcgen, and again from the definitions.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from vcgen.metrics.image import FURTHER, Metrics
from vcgen.metrics.lpips import load_lpips

VIEWS = 2  # of 16, so that the tests take seconds


@pytest.fixture(scope="module")
def pairs(shared_data) -> list[tuple[np.ndarray, np.ndarray]]:
    """Prediction and truth of each view over white: (256, 256, 3) float64 in [0, 1]."""
    folder = shared_data / "gso_chicken"

    def over_white(path):
        pixels = np.array(Image.open(path)) / 255.0
        return pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:] if pixels.shape[-1] == 4 else pixels

    names = [f"{view:03d}.png" for view in range(0, 16, 16 // VIEWS)]
    return [tuple(over_white(folder / part / name) for part in ("prediction", "truth")) for name in names]


def stacks(pairs) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2) for part in zip(*pairs))


@pytest.mark.integration
def test_psnr_and_ssim_are_those_of_their_definitions(pairs):
    records = Metrics(tuple(FURTHER.values()))(*stacks(pairs))
    for record, (prediction, truth) in zip(records, pairs, strict=True):
        exact = -10 * np.log10(np.mean((prediction - truth) ** 2))
        assert record["psnr_unclamped"] == pytest.approx(exact, abs=1e-6)
        a, b = (np.round(image * 255) / 255 for image in (prediction, truth))
        assert record["psnr"] == pytest.approx(-10 * np.log10(np.mean((a - b) ** 2)), abs=1e-6)
        assert record["psnr"] == pytest.approx(exact, abs=0.002)  # rounding the composited truth changes nothing
        span = max(np.ptp(a), np.ptp(b))
        gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in (a, b)]
        expected = {
            "ssim": structural_similarity(a, b, channel_axis=-1, data_range=1.0),
            # what eval_nvs.py of SyncDreamer calls, in torchmetrics of its time and of today
            "ssim_valid_inferred": structural_similarity(a, b, channel_axis=-1, data_range=span, **gaussian),
            "ssim_torchmetrics_inferred": structural_similarity_index_measure(*tensors).item(),
        }
        assert {name: record[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_lpips_is_that_of_its_definition(pairs, shared_data, monkeypatch):
    """Zhang et al. 2018, equation 1, with the weights as they are published, and no line of the package."""
    from torchvision.models import squeezenet1_1

    weights = shared_data / "weights"
    monkeypatch.setenv("VCGEN_WEIGHTS", str(weights))
    prediction, truth = stacks(pairs[:1])
    network = squeezenet1_1(weights=None).eval()
    network.load_state_dict(torch.load(weights / "squeezenet1_1_features.pth", weights_only=True), strict=False)
    lines = torch.load(weights / "lpips_lin_v0.1" / "squeeze.pth", map_location="cpu", weights_only=True)
    shift, scale = (torch.tensor(x)[:, None, None] for x in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    pixels = [(2 * images.float() - 1 - shift) / scale for images in (prediction, truth)]
    distance, levels = 0.0, (1, 4, 7, 9, 10, 11, 12)
    with torch.no_grad():
        for number, layer in enumerate(network.features):
            pixels = [layer(x) for x in pixels]
            if number in levels:
                a, b = (x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in pixels)
                line = lines[f"lin{levels.index(number)}.model.1.weight"]
                distance += torch.nn.functional.conv2d((a - b) ** 2, line).mean().item()
    assert load_lpips("squeeze", offline=True)(prediction, truth).item() == pytest.approx(distance, abs=1e-6)
