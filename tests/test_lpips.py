"""LPIPS: published values, refusal of wrong ranges, and weights that are found, verified or missed, never invented."""

from typing import get_args
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from vcgen.errors import UserError
from vcgen.metrics import lpips as module
from vcgen.metrics.lpips import LEAST, SOURCES, Network, PerceptualDistance, find_weights, load_lpips
from vcgen.metrics.weights import weights_folder


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """A machine without weights; returns the folder that is searched first."""
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("VCGEN_OFFLINE", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def squeeze(shared_data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCGEN_WEIGHTS", str(shared_data / "weights"))
        return load_lpips("squeeze", offline=True)


def image(path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 255


def test_values_of_the_torchmetrics_documentation_are_reproduced(squeeze):
    generator = torch.Generator().manual_seed(42)
    first, second = (torch.rand(2, 3, 100, 100, generator=generator) for _ in range(2))
    assert squeeze(first, second).tolist() == pytest.approx([0.1024, 0.0938], abs=5e-5)


def test_mean_of_the_torchmetrics_doctest_is_reproduced(squeeze):
    torch.manual_seed(42)
    assert squeeze(torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)).mean().item() == pytest.approx(
        0.1005, abs=5e-5
    )


@pytest.mark.parametrize(("other", "expected"), [("ex_p0", 0.7110), ("ex_p1", 0.1479), ("ex_ref", 0.0)])
def test_sample_images_have_their_known_distances(squeeze, shared_data, other, expected):
    folder = shared_data / "weights" / "lpips_reference_images"
    assert squeeze(image(folder / "ex_ref.png"), image(folder / f"{other}.png")).item() == pytest.approx(
        expected, abs=5e-5
    )


def test_public_function_maps_zero_one_to_minus_one_one(squeeze):
    first, second = torch.rand(2, 2, 3, 64, 64)
    inside = squeeze.model(2 * first - 1, 2 * second - 1).flatten()
    assert torch.allclose(squeeze(first, second).float(), inside, atol=1e-7)


@pytest.mark.integration
@pytest.mark.parametrize("network", get_args(Network))
def test_images_too_small_for_a_network_are_refused(network, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "fill", lambda *_: None)  # random weights tell as much
    (tmp_path / "weights.pth").touch()
    distance, least = PerceptualDistance(network, tmp_path / "weights.pth"), LEAST[network]
    distance(*torch.rand(2, 1, 3, least, 40))
    small = torch.rand(2, 1, 3, least - 1, 40)
    with pytest.raises(RuntimeError, match="too small"):
        distance.model(*small)
    with pytest.raises(UserError, match=rf"needs images of at least {least} x {least} .*\({least - 1}, 40\)"):
        distance(*small)


@pytest.mark.parametrize("wrong", [lambda x: 2 * x - 1, lambda x: 255 * x, lambda x: x * float("nan")])
def test_images_outside_zero_one_raise(squeeze, wrong):
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        squeeze(wrong(images), images)


@pytest.mark.integration
@pytest.mark.parametrize("network", ["vgg", "alex", "squeeze"])
def test_every_networks_weights_land_in_the_right_places(network, no_weights):
    import torchvision.models

    builder = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}[network]
    features = getattr(torchvision.models, builder)(weights=None).features.eval()
    no_weights.mkdir()
    torch.save(
        {f"features.{name}": value for name, value in features.state_dict().items()},
        no_weights / SOURCES[network].features,
    )
    distance = load_lpips(network, offline=True)
    images = torch.rand(1, 3, 64, 64)
    last = distance.model.net(images)[-1]
    stop = {"vgg": 30, "alex": 12, "squeeze": 13}[network]
    assert torch.equal(last, features[:stop](images))


def test_missing_weights_say_in_one_line_what_to_put_where(no_weights):
    with pytest.raises(UserError) as error:
        find_weights("vgg", offline=True)
    message = str(error.value)
    assert "vgg16-397923af.pth" in message and str(no_weights) in message and "\n" not in message


def test_environment_switches_downloads_off(no_weights, monkeypatch):
    monkeypatch.setenv("VCGEN_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: pytest.fail("tried to download"))
    with pytest.raises(UserError, match="switched off"):
        find_weights("alex")


def test_download_is_announced_hash_checked_and_goes_to_torchs_cache(no_weights, monkeypatch, capsys):
    calls = []

    def download(url, model_dir, **options):
        calls.append((url, model_dir, options))

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    path = find_weights("squeeze")
    url, folder, options = calls[0]
    assert url.endswith(SOURCES["squeeze"].published) and str(path.parent) == folder
    assert options["check_hash"] and options["weights_only"]
    assert "downloading" in capsys.readouterr().err


def test_failed_download_is_one_line(no_weights, monkeypatch):
    def fail(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"the download failed .*no route to host.*put torchvision's alexnet"):
        find_weights("alex")


def test_torchs_cache_is_searched_after_the_folder(no_weights, tmp_path):
    cached = tmp_path / "hub" / "checkpoints" / SOURCES["vgg"].features
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cached")
    assert find_weights("vgg", offline=True) == cached
    no_weights.mkdir()
    preferred = no_weights / SOURCES["vgg"].features
    preferred.write_bytes(b"preferred")
    assert find_weights("vgg", offline=True) == preferred


def test_published_name_with_other_content_is_refused(no_weights):
    no_weights.mkdir()
    (no_weights / SOURCES["vgg"].published).write_bytes(b"half a download")
    with pytest.raises(UserError, match="SHA-256 does not begin with 397923af"):
        find_weights("vgg", offline=True)


@pytest.mark.parametrize("content", [b"garbage", b"", {"features.0.weight": torch.zeros(1)}, {}])
def test_file_that_is_not_the_networks_weights_is_refused_rather_than_left_random(no_weights, content):
    no_weights.mkdir()
    path = no_weights / SOURCES["squeeze"].features
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match="not the weights of this network"):
        load_lpips("squeeze", offline=True)


def test_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path))
    assert weights_folder() == tmp_path
    monkeypatch.delenv("VCGEN_WEIGHTS")
    assert weights_folder().parts[-3:] == (".cache", "vcgen", "weights")


@pytest.mark.integration
def test_importing_the_module_does_not_import_torchvision():
    import subprocess
    import sys

    code = f"import sys, {module.__name__}; sys.exit('torchvision' in sys.modules or 'lpips' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
