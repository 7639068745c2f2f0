"""Images far from the training data are known by a few statistics: of which images that is true, where they come from,
and what is said.
"""

import json
from dataclasses import asdict, replace
from functools import cache

import pytest
import torch

import vcgen
from ball_model import CONFIG, QUICK, red_box
from small_model import ENTRY, checkpoint
from stand_in import BallSystem
from vcgen.cameras import orbit
from vcgen.checkpoints import model_folder
from vcgen.cli.main import main
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.familiar import Familiar, features
from vcgen.data.familiar_statistics import familiar
from vcgen.data.shards.files import read_index
from vcgen.errors import UserError
from vcgen.types import Views

SHIPPED = "data/pretrained/cars64"


@cache
def known() -> Familiar:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vcgen.data.familiar_statistics.ENOUGH", 600)
        return familiar(read_index("data/cars64/train"))


@cache
def inputs() -> list[Views]:
    scenes = FixedScenes(read_index("data/cars64/test"), 15, 1)
    return [scenes[number].context for number in range(15)]


def share(change, known: Familiar) -> float:
    """Of the test cars' first views, changed, that are warned of."""
    return sum(bool(known.warning(change(view))) for view in inputs()) / len(inputs())


def seen_from(view: Views, elevation: float) -> Views:
    camera = orbit(torch.zeros(1), torch.tensor([elevation]), 1.3, view.cameras.K[0, 0], 0.8, 1.8)
    return replace(view, cameras=camera.reshape(1, 1))


def test_test_cars_are_rarely_warned_of():
    shipped = Familiar.of(model_folder.read_config(SHIPPED))
    assert share(lambda view: view, known()) <= 0.14 and share(lambda view: view, shipped) <= 0.2


@pytest.mark.parametrize(
    "change",
    [
        lambda view: replace(view, images=view.images * 0.2),
        lambda view: Views(view.on(0.5), view.cameras, torch.ones_like(view.alpha)),
        lambda view: seen_from(view, -60.0),
        lambda view: replace(view, images=torch.rand(view.images.shape, generator=torch.manual_seed(0))),
    ],
    ids=["dark", "gray behind it", "from below", "noise"],
)
def test_what_training_never_showed_is_warned_of(change):
    assert share(change, known()) >= 0.85


def test_the_warning_names_what_is_far():
    view = inputs()[0]
    assert "most of all in elevation (" in known().warning(seen_from(view, -75.0))
    gray = Views(view.on(0.5), view.cameras, torch.ones_like(view.alpha))
    assert "\n" not in known().warning(gray) and "in size in the frame (" in known().warning(gray)


def test_the_limit_holds_on_the_training_images_and_opaque_images_have_an_object():
    index = read_index("data/cars64/train")
    scenes = FixedScenes(index, 40, 1, context=3)
    near = [known().distance(scenes[number].context) < known().limit for number in range(40)]
    assert sum(near) >= 36
    view = inputs()[0][0]
    opaque = features(Views(view.on(1.0), view.cameras), torch.zeros(1))
    assert (features(view, torch.zeros(1)) - opaque).abs().max() < 0.3


def exported(tmp_path, data: str, *words: str) -> dict:
    path = checkpoint(tmp_path / "last.ckpt", vcgen={**ENTRY, "data": data})
    assert main(["export", "--checkpoint", str(path), "--out", str(tmp_path / "model"), *words]) == 0
    return json.loads((tmp_path / "model" / "config.json").read_text())


def test_export_notes_what_the_training_images_are_like(tmp_path, capsys, monkeypatch):
    assert (
        exported(tmp_path, "data/cars64/foreign")["familiar"]["limit"] > 0 and "--data" not in capsys.readouterr().out
    )
    assert exported(tmp_path, "gone/train")["familiar"] is None
    monkeypatch.chdir("data/cars64/foreign")  # a checkpoint that names no data means none, not the folder at hand
    assert exported(tmp_path, "")["familiar"] is None
    monkeypatch.undo()
    assert "say where they are with --data" in capsys.readouterr().out
    assert exported(tmp_path, "gone/train", "--data", "data/cars64/foreign")["familiar"]["limit"] > 0
    words = ["--checkpoint", str(tmp_path / "last.ckpt"), "--out", str(tmp_path / "model"), "--data", "gone"]
    assert main(["export", *words]) == 2


def test_too_few_images_make_no_statistics(tmp_path):
    index = read_index("data/cars64/test")
    shard = index.shards[0]
    with pytest.raises(UserError, match="too few"):
        familiar(replace(index, shards=(replace(shard, samples=tuple(shard.samples)[:1]),)))


@pytest.mark.parametrize("limit", [0.0, 1e9, None])
def test_rendering_and_python_warn_in_one_line_of_folders_that_know(tmp_path, capsys, recwarn, limit):
    config = CONFIG if limit is None else {**CONFIG, "familiar": asdict(replace(known(), limit=limit))}
    model = str(model_folder.save(tmp_path / "model", BallSystem().state_dict(), config))
    image = str(red_box(tmp_path / "box.png"))
    assert main(["render", "--model", model, "--image", image, "--out", str(tmp_path / "out"), *QUICK]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "unlike the images" in line]
    assert len(lines) == (limit == 0.0) and all(line.startswith(f"vcgen: warning: {image}: ") for line in lines)
    vcgen.load(model).reconstruct(image)
    told = [warning for warning in recwarn if "unlike the images" in str(warning.message)]
    assert len(told) == (limit == 0.0)
