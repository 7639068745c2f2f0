"""DISTS against torchmetrics' own, on a network of random weights: the trained ones are not in the repository."""

import pytest
import torch
import torchmetrics.functional.image.dists as theirs
import torchvision.models

from vcgen.errors import UserError
from vcgen.metrics import named
from vcgen.metrics.lpips import SOURCES


@pytest.mark.integration
def test_dists_is_that_of_torchmetrics(tmp_path, monkeypatch):
    vgg = torchvision.models.vgg16(weights=None)
    weights = {f"features.{key}": value for key, value in vgg.features.state_dict().items()}
    torch.save(weights, tmp_path / SOURCES["vgg"].features)
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(theirs, "vgg16", lambda weights: vgg)
    metric = named.load("dists", offline=True)
    truth = torch.rand(3, 3, 48, 65, dtype=torch.float64)
    prediction = (truth + 0.2 * torch.randn_like(truth)).clamp(0, 1)
    expected = theirs.DISTSNetwork()(prediction.float(), truth.float())
    assert metric(prediction, truth).tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert expected.min() > 0.01 and metric.sha256
    assert metric(truth, truth).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_missing_weights_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(UserError, match=r"no weights for DISTS: downloads are switched off; put torchvision's vgg16"):
        named.load("dists", offline=True)
