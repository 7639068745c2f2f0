"""Every output says how it came about: its settings, the versions of all that can move a number, and the commit."""

import json
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from torch import nn

from ball_model import CONFIG, QUICK, red_box
from scenes import write_srn_object
from small_evaluation import gray_shards, run
from stand_in import BallSystem
from vcgen import __version__, provenance, redaction
from vcgen.checkpoints import model_folder
from vcgen.cli import main as cli
from vcgen.training.callbacks.provenance import Provenance


def training(folder):
    trainer = SimpleNamespace(is_global_zero=True, fast_dev_run=False, default_root_dir=folder, world_size=1)
    module = nn.Linear(2, 3)
    module.device = "cpu"
    Provenance({}).on_fit_start(trainer, module)
    assert (folder / "run.json").is_file()  # its settings are config.yaml, see test_loggers.py
    return folder / "run.json", "parameters"


def export(folder):
    return model_folder.save(folder / "ball", BallSystem(size=0.3).state_dict(), CONFIG) / "config.json", "class_path"


def rendering(folder):
    model, image = export(folder)[0].parent, red_box(folder / "box.png")
    assert cli.main(["render", "--model", str(model), "--image", str(image), "--out", str(folder / "out"), *QUICK]) == 0
    return folder / "out" / "render.json", "arguments"


def packing(folder):
    write_srn_object(folder / "in" / "car")
    assert cli.main(["data", "pack", "srn", str(folder / "in"), str(folder / "out")]) == 0
    return folder / "out" / "pack.json", "settings"


def evaluation(folder):
    run(gray_shards(folder / "shards"), folder / "out")
    return folder / "out" / "results.json", "protocol"


@pytest.mark.parametrize("output", [training, export, rendering, packing, evaluation])
def test_every_output_holds_its_settings_versions_and_commit(tmp_path, output):
    path, settings = output(tmp_path)
    content = json.loads(path.read_text())
    assert content[settings] and content["versions"] == provenance.versions()


def test_versions_are_those_in_use_and_the_commit_is_that_of_the_source():
    found = provenance.versions()
    assert (found["vcgen"], found["torch"]) == (__version__, version("torch"))
    assert found["torchmetrics"] == version("torchmetrics"), "it brings the weights of DISTS"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if commit.returncode == 0:  # not from a source archive
        assert found["git"].rstrip("+") == commit.stdout.strip()


def test_no_commit_is_invented_outside_a_checkout(monkeypatch):
    monkeypatch.setattr(provenance, "_git", lambda *words: "")
    provenance.git_commit.cache_clear()
    try:
        assert "git" not in provenance.versions()
    finally:
        provenance.git_commit.cache_clear()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/bin/vcgen", "vcgen fit --data.train 'https://***@host/a b'"),
        ("/x/vcgen/__main__.py", "vcgen fit"),
        ("/x/own.py", "own.py"),
    ],
)
def test_commands_can_be_given_again_but_for_their_secrets(monkeypatch, program, expected):
    redaction.begin()
    monkeypatch.setattr(sys, "argv", [program, "fit", "--data.train", "https://me:secret@host/a b"])
    assert provenance.command().startswith(expected) and "secret" not in provenance.command()
