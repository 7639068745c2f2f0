"""FID and KID against torchmetrics and closed forms; kept, shared and reported in an evaluation."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from small_evaluation import SETTINGS, gray_shards, run
from vcgen.errors import UserError
from vcgen.evaluation.results import load_results
from vcgen.metrics import features
from vcgen.metrics.distribution import fid, kid
from vcgen.metrics.features import INCEPTION, InceptionFeatures, SqueezeFeatures, inception, resized
from vcgen.tensors import read_tensors, write_tensors


def sets(shift: float, n: int = 40, m: int = 40, d: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    mix = torch.randn(d, d, dtype=torch.float64)
    return torch.randn(n, d, dtype=torch.float64) @ mix, shift + torch.randn(m, d, dtype=torch.float64)


class Given(nn.Module):
    """Stands where torchmetrics wants a network: the images are the features."""

    num_features = 6

    def forward(self, images):
        return images


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_fid_is_that_of_torchmetrics(shift):
    first, second = sets(shift, m=55)
    metric = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    metric.update(first, real=True)
    metric.update(second, real=False)
    assert fid(first, second) == pytest.approx(metric.compute().item(), rel=1e-6)


def test_fid_of_gaussians_has_a_closed_form():
    """Whitened samples, moved and scaled: the squared way, and d times the squared difference of the scales."""
    sample = torch.randn(500, 4, dtype=torch.float64)
    sample = sample - sample.mean(0)
    sample = sample @ torch.linalg.inv(torch.linalg.cholesky(sample.T.cov())).T
    moved = 3 * sample + torch.tensor([1.0, 2.0, 0.0, 0.0], dtype=torch.float64)
    assert fid(sample, moved) == pytest.approx(5 + 4 * (3 - 1) ** 2, abs=1e-9)
    assert fid(sample, sample) == pytest.approx(0, abs=1e-9)


def test_kid_of_whole_sets_is_that_of_torchmetrics_and_of_its_definition():
    first, second = sets(0.7)
    metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=40).set_dtype(torch.float64)
    metric.update(first, real=True)
    metric.update(second, real=False)
    kernel = lambda x, y: (float(x @ y) / 6 + 1) ** 3
    within = sum(kernel(s[i], s[j]) for s in (first, second) for i in range(40) for j in range(40) if i != j)
    across = sum(kernel(x, y) for x in first for y in second)
    expected = within / (40 * 39) - 2 * across / 40**2
    assert metric.compute()[0].item() == pytest.approx(expected, rel=1e-5)
    assert kid(first, second) == pytest.approx(expected, rel=1e-9)


def test_kid_of_subsets_is_unbiased_and_the_same_each_time():
    first, second = sets(0.7, n=60, m=50)
    assert kid(first, second, subset=25) == kid(first, second, subset=25)
    assert kid(first, second, subset=25, subsets=400) == pytest.approx(kid(first, second), rel=0.05)


def test_resizing_is_that_of_tensorflow_1():
    """Without centers: pixel i of the result is the image at i times the ratio, the last rows repeat the border."""
    ramp = torch.arange(64.0)[None, None, None].expand(1, 3, 32, 64)
    expected = (torch.arange(299) * (64 / 299)).clamp(max=63)
    assert torch.allclose(resized(ramp)[0, 0, 100], expected, atol=1e-4)


@pytest.mark.integration
def test_inception_is_that_of_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="needs torch-fidelity")
    net = inception()
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity.torch, "load", lambda *a, **k: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *a, **k: None)
        theirs = fidelity.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path="x").eval()
    loaded = theirs.load_state_dict(net.state_dict(), strict=False)
    assert [key for key in loaded.missing_keys if not key.startswith("fc.")] == loaded.unexpected_keys == []
    images = torch.randint(0, 256, (2, 3, 40, 64), dtype=torch.uint8)
    with torch.no_grad():
        ours = net((resized(images.float()) - 128) / 128)
        assert torch.allclose(ours, theirs(images)[0], atol=1e-5) and ours.shape == (2, 2048)


@pytest.mark.integration
def test_inception_weights_are_looked_for_and_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(UserError, match=rf"no weights for FID and KID of Inception.*{INCEPTION.published}"):
        InceptionFeatures(offline=True)
    path = tmp_path / INCEPTION.published
    path.write_bytes(b"half a download")
    with pytest.raises(UserError, match="SHA-256 does not begin with 6726825d"):
        InceptionFeatures(offline=True)
    monkeypatch.setattr(features, "find", lambda *a: path)
    with pytest.raises(UserError, match="not the weights of this network"):
        InceptionFeatures(offline=True)
    net = inception()
    torch.save(net.state_dict() | {"fc.weight": torch.zeros(1)}, path)
    found = InceptionFeatures(offline=True)
    images = torch.randint(0, 256, (1, 3, 32, 32)).float()
    with torch.no_grad():
        assert torch.equal(found(images), net((resized(images) - 128) / 128)) and found.sha256


class Means(nn.Module):
    """Stands for a network: the mean of each channel, and of the left half of red."""

    def __init__(self, device, offline):
        super().__init__()
        self.sha256 = "means"

    def forward(self, images):
        return torch.cat([images.mean((2, 3)), images[:, :1, :, :8].mean((2, 3))], 1) / 255


NAMES = ("fid_squeeze", "kid_squeeze")


@pytest.fixture
def means(monkeypatch):
    monkeypatch.setitem(features.NETWORKS, "squeeze", (Means, "means of channels"))


def test_an_evaluation_keeps_features_and_reports_distances_of_all_images(tmp_path, means):
    shards, settings = gray_shards(tmp_path / "shards"), replace(SETTINGS, named=NAMES)
    results, system = run(shards, tmp_path / "out", settings=settings)
    levels = torch.tensor([20.0 * view + 10 * letter for letter in (1, 1, 2, 3) for view in range(6)])
    truth = levels.double()[:, None].expand(-1, 4) / 255
    predicted = truth[[i for i in range(24) if i % 6]] + 0.2
    assert results.distances["fid_squeeze"].value == pytest.approx(fid(predicted, truth), rel=1e-5)
    assert (results.distances["kid_squeeze"].predicted, results.distances["kid_squeeze"].true) == (20, 24)
    assert load_results(tmp_path / "out").distances == results.distances
    assert results.hashes["features_squeeze"] == "means"
    assert results.metrics == ["psnr", "ssim", "ssim_gauss"]
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "FID-squeeze" in text and "means of channels; all predicted images, against all views" in text
    (tmp_path / "out" / "records" / "b1.safetensors").unlink()
    again, system = run(shards, tmp_path / "out", settings=settings)
    assert again.distances == results.distances and len(system.rendered) < 10 * 5


def test_shards_of_an_evaluation_have_the_distances_of_one(tmp_path, means):
    shards, settings = gray_shards(tmp_path / "shards"), replace(SETTINGS, named=NAMES)
    whole, _ = run(shards, tmp_path / "whole", settings=settings)
    for shard in ((0, 2), (1, 2)):
        run(shards, tmp_path / "out", settings=replace(settings, shard=shard))
    merged, _ = run(shards, tmp_path / "out", settings=replace(settings, merge=True))
    assert merged.distances == whole.distances


@pytest.mark.parametrize(
    "change",
    [
        lambda found: {"squeeze.true": found["squeeze.true"]},
        lambda found: found | {"squeeze.predicted": found["squeeze.predicted"][1:]},
        lambda found: found | {"squeeze.true": found["squeeze.true"][0]},
        lambda found: found | {"squeeze.true": found["squeeze.true"] * float("nan")},
    ],
)
def test_features_of_other_images_are_refused_in_one_line(tmp_path, means, change):
    shards, settings = gray_shards(tmp_path / "shards"), replace(SETTINGS, named=NAMES)
    run(shards, tmp_path / "out", settings=settings)
    path = tmp_path / "out" / "records" / "b1.safetensors"
    write_tensors(change(read_tensors(path)), path)
    with pytest.raises(UserError, match=r"b1\.safetensors: .*; not a record of this vcgen evaluate: delete it"):
        run(shards, tmp_path / "out", settings=settings)


def test_records_that_are_overwritten_leave_no_features(tmp_path, means):
    shards = gray_shards(tmp_path / "shards")
    run(shards, tmp_path / "out", settings=replace(SETTINGS, named=NAMES))
    run(shards, tmp_path / "out", settings=replace(SETTINGS, overwrite=True))
    assert not list((tmp_path / "out" / "records").glob("*.safetensors"))


def test_records_without_features_are_of_another_evaluation(tmp_path, means):
    shards = gray_shards(tmp_path / "shards")
    run(shards, tmp_path / "out")
    with pytest.raises(UserError, match=r"holds results of another evaluation \(other features\)"):
        run(shards, tmp_path / "out", settings=replace(SETTINGS, named=NAMES))


def test_missing_weights_leave_the_distance_out_with_a_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    settings = replace(SETTINGS, named=("fid_inception",), offline=True)
    results, _ = run(gray_shards(tmp_path / "shards"), tmp_path / "out", settings=settings)
    assert results.distances == {} and INCEPTION.published in results.missing["fid_inception"]
    assert "going on without it" in capsys.readouterr().err


def test_features_of_squeezenet_tell_noise_from_images(shared_data, monkeypatch):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(shared_data / "weights"))
    network = SqueezeFeatures(offline=True)
    images = torch.nn.functional.interpolate(torch.rand(12, 3, 4, 4), size=(32, 32), mode="bicubic").clamp(0, 1) * 255
    noisy = (images + 60 * torch.randn_like(images)).clamp(0, 255)
    with torch.no_grad():
        clean, odd = network(images), network(noisy)
    assert clean.shape == (12, 512) and kid(clean[:6], odd[6:]) > 10 * abs(kid(clean[:6], clean[6:]))
