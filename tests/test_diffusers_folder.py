"""Model folders with a diffusion prior: diffusers opens its parts, weights are stored once, half precision, damage."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from safetensors.torch import load_file, save_file

from prior_folder import entry, exported, trained
from vcgen.cameras import orbit, pinhole
from vcgen.checkpoints import model_folder as folder
from vcgen.checkpoints.build import build_system
from vcgen.checkpoints.model_folder import start_from
from vcgen.errors import UserError
from vcgen.io import file_sha256
from vcgen.types import Views

UNET = "unet/diffusion_pytorch_model.safetensors"


def sample(system):
    cameras = orbit(torch.tensor([30.0, 80.0]), torch.full((2,), 20.0), 1.3, pinhole(1.0254), 0.8, 1.8)[None]
    image = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 1, 3, 16, 16)
    return system.sample(Views(image, cameras[:, :1]), cameras, torch.Generator().manual_seed(3), steps=3)


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    return trained(entry())


@pytest.fixture(scope="module")
def model(system, tmp_path_factory):
    return exported(system, entry(), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(model, tmp_path):
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.mark.parametrize(("input_attention", "kind"), [(True, UNet2DConditionModel), (False, UNet2DModel)])
def test_diffusers_opens_the_network_by_itself(tmp_path, input_attention, kind):
    system = trained(entry(input_attention=input_attention))
    out = exported(system, entry(input_attention=input_attention), tmp_path / "a")
    unet, notes = kind.from_pretrained(out / "unet", output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"]
    assert all(torch.equal(tensor, system.prior.unet.state_dict()[name]) for name, tensor in unet.state_dict().items())
    noisy, times = torch.randn(1, 7, 16, 16), torch.tensor([300])
    extra = {"encoder_hidden_states": torch.randn(1, 4, 64)} if input_attention else {}
    with torch.no_grad():
        expected = system.prior.unet(noisy, times, **extra).sample
        torch.testing.assert_close(unet.eval()(noisy, times, **extra).sample, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(sample(folder.load(out)), sample(system))


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("options", [{}, {"size": 128, "prediction": "epsilon"}])
def test_diffusers_opens_the_schedule_by_itself(tmp_path, kind, options):
    system = trained(entry(**options))
    schedule = kind.from_pretrained(exported(system, entry(**options), tmp_path / "a") / "scheduler")
    assert torch.equal(schedule.alphas_cumprod, system.prior.schedule.alphas_cumprod)
    assert (
        schedule.config.prediction_type == options.get("prediction", "v_prediction")
        and schedule.config.clip_sample is False
    )


def test_weights_are_stored_once_and_put_together_again(model, system):
    own, unet = load_file(model / "model.safetensors"), load_file(model / UNET)
    assert not any(name.startswith("prior.unet.") for name in own) and set(unet) == set(system.prior.unet.state_dict())
    assert {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()} == {
        "model.safetensors",
        "config.json",
        UNET,
        "unet/config.json",
        "scheduler/scheduler_config.json",
    }
    weights = folder.read_weights(model)
    assert set(weights) == set(system.state_dict()) and all(
        torch.equal(weights[name], t) for name, t in system.state_dict().items()
    )


def test_the_config_survives_being_written_again(model, tmp_path):
    loaded = folder.load(model)
    again = folder.save(tmp_path / "again", loaded.state_dict(), loaded.config, loaded.prior)
    assert folder.read_config(again) == folder.read_config(model) and folder.hashes(again) == folder.hashes(model)
    whole = folder.save(tmp_path / "whole", loaded.state_dict(), loaded.config)
    assert not (whole / "unet").exists() and torch.equal(sample(folder.load(whole)), sample(loaded))


def test_a_folder_from_before_still_loads(system, tmp_path):
    """All weights in one file, and a config.json that says nothing of diffusers."""
    old = tmp_path / "old"
    old.mkdir()
    save_file(system.state_dict(), old / "model.safetensors")
    about = entry()
    config = {
        **{key: about[key] for key in ("class_path", "init_args", "image_size", "camera")},
        "format": 1,
        "background": 1.0,
    }
    (old / "config.json").write_text(json.dumps(config))
    assert torch.equal(sample(folder.load(old)), sample(system)) and set(folder.hashes(old)) == {"weights", "config"}


def test_the_hashes_cover_every_weight_file(model, copy):
    assert folder.hashes(copy) == folder.hashes(model)
    assert {file_sha256(path) for path in model.rglob("*.safetensors")} < set(folder.hashes(model).values())
    tensors = load_file(copy / UNET)
    save_file({**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1}, copy / UNET)
    assert [name for name, value in folder.hashes(model).items() if folder.hashes(copy)[name] != value] == ["unet"]


def test_half_precision_takes_half_the_space_and_changes_little(model, system, tmp_path, capsys):
    out = exported(system, entry(), tmp_path / "half", "--half")
    assert "half precision" in capsys.readouterr().out and folder.read_config(out)["dtype"] == "float16"
    for name in ("model.safetensors", UNET):
        assert {tensor.dtype for tensor in load_file(out / name).values()} == {torch.float16}
        assert (out / name).stat().st_size < 0.6 * (model / name).stat().st_size
    loaded, weights = folder.load(out), folder.read_weights(out)
    assert {p.dtype for p in loaded.parameters()} == {t.dtype for t in weights.values()} == {torch.float32}
    for name, tensor in system.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=2**-11, atol=1e-7)  # float16 has 11 significant bits
    assert 0 < (sample(loaded) - sample(system)).abs().max() < 0.02
    assert next(UNet2DConditionModel.from_pretrained(out / "unet").parameters()).dtype == torch.float32


def test_weights_beyond_half_precision_are_refused(system, model, tmp_path):
    weights = {**system.state_dict(), "prior.unet.conv_in.bias": torch.full((16,), 1e5)}
    with pytest.raises(UserError, match=r"prior.unet.conv_in.bias exceed 65504.*without --half"):
        folder.save(tmp_path / "model", weights, folder.read_config(model), system.prior, half=True)
    assert not list(tmp_path.iterdir())


def test_training_starts_from_field_and_prior_of_a_folder(model, system):
    fresh = build_system(entry()["class_path"], entry()["init_args"])
    start_from(fresh, model)
    assert all(torch.equal(tensor, system.state_dict()[name]) for name, tensor in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (UNET, None, "is missing"),
        (UNET, b"not tensors", "damaged"),
        ("unet/config.json", None, "is missing"),
        ("unet/config.json", b"{", "truncated"),
        ("scheduler/scheduler_config.json", None, "is missing"),
        ("scheduler/scheduler_config.json", b"\xff", "malformed"),
    ],
)
def test_a_damaged_prior_is_refused(copy, name, content, message):
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    for read in (folder.load, lambda path: start_from(trained(entry()), path)):
        with pytest.raises(UserError, match=message) as error:
            read(copy)
        assert str(copy / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "entry", "value"),
    [
        ("unet/config.json", "norm_num_groups", 8),
        ("unet/config.json", "norm_eps", 1e-3),
        ("unet/config.json", "sample_size", ...),
        ("scheduler/scheduler_config.json", "prediction_type", "epsilon"),
        ("scheduler/scheduler_config.json", "trained_betas", [0.1] * 1000),
    ],
)
def test_a_prior_that_diffusers_would_build_otherwise_is_refused(copy, name, entry, value):
    content = json.loads((copy / name).read_text())
    older = {
        key: kept for key, kept in content.items() if key not in ("dropout", "sample_max_value", "_diffusers_version")
    }
    (copy / name).write_text(json.dumps(older))
    folder.load(copy)  # diffusers' own defaults do not have to be there
    del content[entry]
    (copy / name).write_text(json.dumps(content if value is ... else {**content, entry: value}))
    with pytest.raises(UserError, match=f"{name}: another {entry} than config.json says"):
        folder.load(copy)


def test_cut_short_and_foreign_networks_are_refused(copy):
    whole = (copy / UNET).read_bytes()
    (copy / UNET).write_bytes(whole[:-4])
    with pytest.raises(UserError, match="damaged"):
        folder.load(copy)
    save_file({"conv_in.bias": torch.zeros(3)}, copy / UNET)
    with pytest.raises(UserError, match=r"prior.unet.conv_in.bias \(3,\) instead of \(16,\)") as error:
        folder.load(copy)
    assert "\n" not in str(error.value)


def test_a_failed_save_leaves_the_old_folder(copy, system, monkeypatch):
    def fail(path):
        raise OSError("disk full")

    before = folder.hashes(copy)
    monkeypatch.setattr(system.prior.schedule, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        folder.save(
            copy, {name: t + 1 for name, t in system.state_dict().items()}, folder.read_config(copy), system.prior
        )
    assert folder.hashes(copy) == before and [path.name for path in copy.parent.iterdir()] == ["model"]


def test_a_folder_that_diffusers_wrote_is_no_older_model(copy, system):
    with pytest.raises(UserError, match="not a model folder"):
        folder.save(copy / "unet", system.state_dict(), folder.read_config(copy), system.prior)
    assert (copy / UNET).is_file()


def test_the_files_have_the_modes_that_the_umask_gives(model):
    """A model folder on a cluster is for others to read, too."""
    modes = {path.stat().st_mode & 0o777 for path in model.rglob("*") if path.is_file()}
    assert len(modes) == 1
