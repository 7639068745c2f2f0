"""Model folders: what goes in comes out, and what is wrong is said in one line."""

import json

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file

from small_model import CAMERA, CONFIG, ENTRY, checkpoint, image, trained_system
from stand_in import BallSystem
from vcgen.checkpoints import model_folder as folder
from vcgen.checkpoints.build import build_system, without_starting_weights
from vcgen.cli.export import main
from vcgen.errors import UserError


def export(path, out, *options):
    main(["--checkpoint", str(path), "--out", str(out), *options])
    return out


def one_line(error):
    return "\n" not in str(error.value)


@pytest.fixture
def model(tmp_path):
    return folder.save(tmp_path / "model", trained_system().state_dict(), CONFIG)


def test_a_saved_model_renders_the_same_pixels(model):
    loaded = folder.load(model)
    assert torch.equal(image(loaded), image(trained_system()))
    assert not loaded.training and loaded.config["camera"] == CAMERA and loaded.config["format"] == 1


def test_export_takes_the_moving_average(tmp_path, capsys):
    averaged = trained_system()
    with torch.no_grad():
        averaged.size.fill_(0.35)
        averaged.tint.copy_(torch.tensor([0.1, 0.2, 0.9]))
    out = export(checkpoint(tmp_path / "last.ckpt"), tmp_path / "model")
    assert torch.equal(image(folder.load(out)), image(averaged)) and "ema weights" in capsys.readouterr().out


def test_export_takes_raw_weights_when_told(tmp_path):
    out = export(checkpoint(tmp_path / "last.ckpt"), tmp_path / "model", "--weights", "raw")
    assert torch.equal(image(folder.load(out)), image(trained_system()))


def test_the_config_says_where_the_model_comes_from(tmp_path):
    config = json.loads((export(checkpoint(tmp_path / "last.ckpt"), tmp_path / "model") / "config.json").read_text())
    assert (config["vcgen"], config["git"], config["background"]) == ("0.1.0", "abc123", 1.0)
    assert config["training"] == {"step": 1200, "data": "balls/train", "weights": "ema", "metrics": {"val/psnr": 21.5}}


def test_a_checkpoint_of_the_trainer_is_read(tmp_path):
    """Lightning's own file, with the entries that vcgen's callbacks add."""

    class Callbacks(pl.Callback):
        def on_save_checkpoint(self, trainer, module, content):
            content["vcgen"] = ENTRY
            content["callbacks"]["EMA"] = {"weights": {name: p.detach() / 2 for name, p in module.named_parameters()}}

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(**quiet, callbacks=[Callbacks()])
    trainer.strategy.connect(trained_system())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    out = export(tmp_path / "last.ckpt", tmp_path / "model")
    assert load_file(out / "model.safetensors")["size"].item() == 0.125


def test_nerfdiff_survives_the_round_trip(tmp_path):
    part = "vcgen.fields.triplane.TriplaneDecoder", "vcgen.encoders.triplane.TriplaneEncoder"
    sizes = {"plane_size": 16, "plane_channels": 4, "channels": [16, 32], "layers": 1, "attention": [False, False]}
    decoder = {"class_path": part[0], "init_args": {"channels": 4, "hidden": 8}}
    arguments = {
        "encoder": {"class_path": part[1], "init_args": {"decoder": decoder, **sizes}},
        "render": {"samples": 8},
    }
    entry = {**ENTRY, "class_path": "vcgen.systems.nerfdiff.NerfDiff", "init_args": arguments}
    system = build_system(entry["class_path"], arguments).eval()
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    average = {name: p.detach().clone() for name, p in system.named_parameters()}
    raw = {name: torch.zeros_like(value) for name, value in system.state_dict().items()}
    path = checkpoint(tmp_path / "last.ckpt", vcgen=entry, state_dict=raw, callbacks={"EMA": {"weights": average}})
    with torch.no_grad():
        expected = image(system)
        assert torch.equal(image(folder.load(export(path, tmp_path / "model"))), expected) and expected.std() > 1e-3


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"vcgen": {}}, [], "not written by vcgen fit"),
        ({"callbacks": {}}, [], "no EMA weights: add --weights raw"),
        (
            {"callbacks": {"EMA": {"weights": {"size": torch.zeros(1)}}}},
            [],
            r"do not cover the model: 1 missing \(tint\)",
        ),
        (
            {"state_dict": {"size": torch.zeros(2), "other": torch.zeros(1)}},
            [],
            r"2 missing \(tint, steps\); 1 unexpected \(other\); 1 of another shape \(size \(2,\) instead of \(1,\)\)",
        ),
        ({"vcgen": {**ENTRY, "class_path": "nowhere.Model"}}, [], "nowhere.Model"),
        ({"vcgen": {**ENTRY, "init_args": {"radius": 3}}}, [], "radius"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, changes, options, message):
    path = checkpoint(tmp_path / "last.ckpt", **changes)
    with pytest.raises(UserError, match=message) as error:
        export(path, tmp_path / "model", *options)
    assert one_line(error) and str(path) in str(error.value) and not (tmp_path / "model").exists()


def test_unreadable_checkpoints_are_refused(tmp_path):
    whole = checkpoint(tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.ckpt")
    (tmp_path / "folder.ckpt").mkdir()
    expected = {
        "cut": "damaged or not a checkpoint",
        "text": "damaged or",
        "empty": "damaged or",
        "list": "not a checkpoint",
        "folder": "is a folder; .*wrote$",
        "absent": "no such checkpoint; .*wrote$",  # not `best` or `last`, which are words of fit
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message) as error:
            export(tmp_path / f"{name}.ckpt", tmp_path / "model")
        assert one_line(error) and f"{name}.ckpt" in str(error.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = checkpoint(tmp_path / "trap.ckpt", callbacks={"Trap": Trap()})
    with pytest.raises(UserError, match=r"it names _?io\.open"):
        export(path, tmp_path / "model")
    assert not (tmp_path / "sprung").exists()


def test_an_older_model_is_replaced_and_nothing_else_is(tmp_path, model):
    other = BallSystem(density=50.0, size=0.1)
    folder.save(model, other.state_dict(), CONFIG)
    assert folder.load(model).size.item() == pytest.approx(0.1) and [path.name for path in tmp_path.iterdir()] == [
        "model"
    ]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("precious")
    with pytest.raises(UserError, match="not a model folder"):
        folder.save(tmp_path / "photos", other.state_dict(), CONFIG)
    assert (tmp_path / "photos" / "cat.png").read_text() == "precious"


def test_a_failed_save_leaves_the_old_model(tmp_path, model):
    with pytest.raises(TypeError):
        folder.save(model, trained_system().state_dict(), {**CONFIG, "training": object()})
    assert folder.load(model).size.item() == 0.25 and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_file_that_training_started_from_is_not_needed_afterwards():
    given = {
        "encoder": {"class_path": "PixelNerf", "init_args": {"pretrained": "/home/someone/resnet34.pth", "width": 16}},
        "list": [1, 2],
    }
    kept = without_starting_weights(given)
    assert kept["encoder"]["init_args"] == {"pretrained": None, "width": 16} and kept["list"] == [1, 2]
