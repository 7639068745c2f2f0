"""The fit command: what it refuses, how configurations merge, precision, gradients."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from training import CONFIG, last_checkpoint, refusal, vcgen
from vcgen.optim.ema import EMA
from vcgen.systems.base import System
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.training.refusals import parse_refusal, process_refusal, worker_refusal

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "data" / "cars64" / "train"


# --- refusals ---


@pytest.mark.parametrize(
    ("option", "value", "place"),
    [
        ("model__nope", 1, "nope"),
        ("model__encoder__decoder__nope", 1, "model.encoder.decoder"),
        ("trainer__max_step", 3, "--trainer.max_step "),
        ("model__rays_per_view", "many", "model.rays_per_view: NerfDiff: expected int. Got value: many"),
        ("model__background", "green", "model.background"),
        ("model__background", "${nothing.here}", "nothing.here"),
        ("model__encoder", "Unknown", "model.encoder"),
        ("data__train", "/nowhere", "/nowhere: no index.json"),
        ("data__batch_size", 1000, "cannot fill a batch of 1000"),
        ("data__targets", 500, "fewer than 501 views"),
        ("ema__decay", 2, "ema.decay"),
        ("trainer__precision", 7, "trainer.precision"),
        ("trainer__strategy", "nope", "nope"),
        (
            "ckpt_path",
            "/nowhere.ckpt",
            "/nowhere.ckpt: no such checkpoint; give a .ckpt file that `vcgen fit` wrote, `best` or `last`",
        ),
    ],
)
def test_wrong_options_are_refused_in_one_line_that_names_the_place(capsys, config, tmp_path, option, value, place):
    assert place in refusal(capsys, vcgen("fit", config, tmp_path / "run", **{option: value}))
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("nope: 1", "'nope'"),
        ("trainer: {max_stepz: 3}", "'trainer.max_stepz'"),
        ("data: {class_path: ShardData, init_args: {batchsize: 1}}", "data: ShardData: Option 'batchsize'"),
        ("model: {class_path: NerfDiff, init_args: {optimizer: {learning_rate: 1}}}", "'learning_rate'"),
        ("trainer: {max_steps: 3", "line 2"),
    ],
)
def test_wrong_files_are_refused_with_the_key(capsys, config, tmp_path, text, place):
    second = tmp_path / "second.yaml"
    second.write_text(text + "\n")
    assert place in refusal(capsys, vcgen("fit", config, tmp_path / "run", config=second))


def test_a_folder_that_cannot_be_made_is_refused(capsys, config, tmp_path):
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refusal(capsys, vcgen("fit", config, tmp_path / "file" / "run"))


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_shards_are_refused_from_the_main_process_and_from_workers(capsys, config, tmp_path, workers):
    shutil.copytree(TRAIN, tmp_path / "cars")
    for shard in (tmp_path / "cars").glob("*.tar"):
        shard.write_bytes(bytes(len(shard.read_bytes())))
    line = refusal(
        capsys, vcgen("fit", config, tmp_path / "run", data__train=tmp_path / "cars", data__num_workers=workers)
    )
    assert re.search(r"cars/\d{6}\.tar, scene at byte \d+: .*pack it again$", line)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(
    capsys, config, tmp_path, monkeypatch
):
    losses, scenes = NerfDiff.losses, []

    def poisoned(self, example, generator):
        found = losses(self, example, generator)
        if self.global_step != 3:
            return found
        scenes.extend(example.keys)
        return {**found, "rgb": found["rgb"] * math.nan}

    monkeypatch.setattr(NerfDiff, "losses", poisoned)
    line = refusal(capsys, vcgen("fit", config, tmp_path / "run"))
    known = {
        sample["key"]
        for shard in json.loads((TRAIN / "index.json").read_text())["shards"]
        for sample in shard["samples"]
    }
    assert len(scenes) == 2 and known.issuperset(scenes)
    assert f"not finite at step 3 (rgb = nan); learning from {scenes[0]}, {scenes[1]}: " in line
    assert last_checkpoint(tmp_path / "run")["global_step"] == 2


# --- merging and printing ---


def test_later_files_and_flags_win_and_the_printed_configuration_is_one_that_trains(capsys, config, tmp_path):
    second = tmp_path / "second.yaml"
    second.write_text("model: {class_path: NerfDiff, init_args: {rays_per_view: 24}}\nema: {decay: 0.5}\n")
    with pytest.raises(SystemExit) as exit:
        vcgen("fit", config, tmp_path / "run", config=second, ema__decay=0.25, print_config="")
    printed = capsys.readouterr().out
    assert exit.value.code in (0, None)
    shown = yaml.safe_load(printed)
    assert (
        shown["model"]["init_args"]["rays_per_view"] == 24
        and shown["model"]["init_args"]["encoder"]["init_args"]["plane_size"] == 16
    )
    assert shown["ema"]["decay"] == 0.25
    (tmp_path / "printed.yaml").write_text(printed)
    assert vcgen("fit", tmp_path / "printed.yaml", tmp_path / "run", trainer__max_steps=1) == 0


def test_interpolations_follow_flags(config, tmp_path):
    config.write_text(CONFIG.replace("plane_size: 16", "plane_size: ${model.init_args.rays_per_view}"))
    assert vcgen("fit", config, tmp_path / "run", model__rays_per_view=24, trainer__max_steps=1) == 0
    model = last_checkpoint(tmp_path / "run")["vcgen"]["init_args"]
    assert model["encoder"]["init_args"]["plane_size"] == model["rays_per_view"] == 24


# --- training ---


def test_a_fault_in_validation_leaves_the_trained_weights_in_place(config, tmp_path, monkeypatch):
    kept, swap_out = {}, EMA._swap_out

    def watched(self, module):
        trained = self._trained
        swap_out(self, module)
        if trained is not None:
            kept["restored"] = all(
                torch.equal(p, trained[name]) for name, p in module.named_parameters() if p.requires_grad
            )

    monkeypatch.setattr(EMA, "_swap_out", watched)
    with pytest.raises(RuntimeError, match="a fault in validation"):
        vcgen("fit", config, tmp_path / "run", trainer__callbacks__plus="training.Fault")
    assert kept == {"restored": True}


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_gradients_are_clipped_in_every_precision(config, tmp_path, precision, monkeypatch):
    norms = []

    def measure(self, optimizer):
        gradients = [p.grad.flatten() for p in self.parameters() if p.grad is not None]
        norms.append((torch.cat(gradients).norm().item(), {g.dtype for g in gradients}))

    monkeypatch.setattr(System, "on_before_optimizer_step", measure)
    limit = 1e-3
    options = dict(trainer__precision=precision, trainer__max_steps=2, data__val="null")
    assert vcgen("fit", config, tmp_path / "run", **options) == 0
    free = [norm for norm, _ in norms]
    norms.clear()
    clipped = []

    def clip(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip_gradients(
            optimizer, gradient_clip_val=gradient_clip_val, gradient_clip_algorithm=gradient_clip_algorithm
        )
        measure(self, optimizer)
        clipped.append(norms.pop()[0])

    monkeypatch.setattr(System, "configure_gradient_clipping", clip)
    assert vcgen("fit", config, tmp_path / "run", **options, trainer__gradient_clip_val=limit) == 0
    assert min(free) > 2 * limit and clipped == pytest.approx([limit] * 2, rel=1e-2)
    assert all(dtypes == {torch.float32} for _, dtypes in norms)


# --- the helpers ---


def test_nested_refusals_become_one_line():
    message = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'vcgen.systems.base.System'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'vcgen.systems.nerfdiff.NerfDiff':
        Parser key "rays_per_view":
          Expected a <class 'int'>. Got value: many
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {}"""
    assert parse_refusal(message) == "model.rays_per_view: NerfDiff: expected int. Got value: many"
    assert parse_refusal("unrecognized arguments: --x 1") == "unrecognized arguments: --x 1"


def test_a_workers_traceback_is_reduced_to_its_error():
    message = (
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback\n  File x\nvcgen.errors.UserError: a.tar:"
        " broken\n"
    )
    assert worker_refusal(message) == "a.tar: broken"
    assert worker_refusal("a.tar: broken") == "a.tar: broken"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "DataLoader worker (pid 77) is killed by signal: Killed. It is possible",
            "was killed (Killed), most often for lack of memory",
        ),
        ("DataLoader worker (pid(s) 77, 78) exited unexpectedly", "ended unexpectedly"),
    ],
)
def test_lost_processes_are_told_apart_from_other_failures(message, words):
    assert words in process_refusal(message)
    assert process_refusal("shape mismatch") is None
