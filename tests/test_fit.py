"""The fit command: what it refuses, that it resumes exactly, what it writes, precision, and several processes."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from training import CONFIG, Witness, equal, load, refusal, vcgen

from vcgen.callbacks.ema import EMA
from vcgen.errors import UserError
from vcgen.systems.base import System
from vcgen.systems.checkpoint_files import CheckpointFiles, config_differences
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.systems.refusals import parse_refusal, worker_refusal

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "data" / "cars64" / "train"


@pytest.fixture
def config(tmp_path):
    """The tiny configuration as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of four steps."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(CONFIG)
    assert vcgen("fit", folder / "tiny.yaml", folder / "run") == 0
    return folder / "run"


# --- refusals ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option, value, place", [
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
    ("ckpt_path", "/nowhere.ckpt", "/nowhere.ckpt: no such checkpoint"),
])  # fmt: skip
def test_wrong_options_are_refused_in_one_line_that_names_the_place(capsys, config, tmp_path, option, value, place):
    assert place in refusal(capsys, vcgen("fit", config, tmp_path / "run", **{option: value}))
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("text, place", [
    ("nope: 1", "'nope'"),
    ("trainer: {max_stepz: 3}", "'trainer.max_stepz'"),
    ("data: {class_path: ShardData, init_args: {batchsize: 1}}", "data: ShardData: Option 'batchsize'"),
    ("model: {class_path: NerfDiff, init_args: {optimizer: {learning_rate: 1}}}", "'learning_rate'"),
    ("trainer: {max_steps: 3", "line 2"),
])  # fmt: skip
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
    line = refusal(capsys, vcgen("fit", config, tmp_path / "run", data__train=tmp_path / "cars", data__num_workers=workers))
    assert re.search(r"cars/\d{6}\.tar, scene at byte \d+: .*pack it again$", line)


def test_foreign_and_truncated_checkpoints_are_refused(capsys, config, finished, tmp_path):
    whole = (finished / "checkpoints" / "last.ckpt").read_bytes()
    for content in (b"hello\n", b"", whole[: len(whole) // 2]):
        (tmp_path / "bad.ckpt").write_bytes(content)
        line = refusal(capsys, vcgen("fit", config, tmp_path / "run", ckpt_path=tmp_path / "bad.ckpt"))
        assert "bad.ckpt: damaged or not a checkpoint" in line
    torch.save({"weights": torch.zeros(3)}, tmp_path / "bad.ckpt")
    assert "bad.ckpt: damaged or not a checkpoint" in refusal(
        capsys, vcgen("fit", config, tmp_path / "run", ckpt_path=tmp_path / "bad.ckpt")
    )


def test_a_checkpoint_of_another_model_is_refused_with_the_keys_that_differ(capsys, config, finished, tmp_path):
    path = finished / "checkpoints" / "last.ckpt"
    config_of_run = (finished / "config.yaml").read_bytes()
    line = refusal(capsys, vcgen("fit", config, finished, ckpt_path=path, model__encoder__plane_channels=16))
    assert "encoder.plane_channels = 8, here 16;" in line and "optimizer" not in line
    assert "weights: encoder." in line
    assert (finished / "config.yaml").read_bytes() == config_of_run


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(capsys, config, tmp_path, monkeypatch):
    losses = NerfDiff.losses

    def poisoned(self, example, generator):
        found = losses(self, example, generator)
        return {**found, "rgb": found["rgb"] * math.nan} if self.global_step == 3 else found

    monkeypatch.setattr(NerfDiff, "losses", poisoned)
    line = refusal(capsys, vcgen("fit", config, tmp_path / "run"))
    assert "not finite at step 3 (rgb = nan)" in line
    assert load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2


# --- merging and printing -----------------------------------------------------------------------------------------------------------------


def test_later_files_and_flags_win_and_the_printed_configuration_is_one_that_trains(capsys, config, tmp_path):
    second = tmp_path / "second.yaml"
    second.write_text("model: {class_path: NerfDiff, init_args: {rays_per_view: 24}}\nema: {decay: 0.5}\n")
    with pytest.raises(SystemExit) as exit:
        vcgen("fit", config, tmp_path / "run", config=second, ema__decay=0.25, print_config="")
    printed = capsys.readouterr().out
    assert exit.value.code in (0, None)
    shown = yaml.safe_load(printed)
    assert shown["model"]["init_args"]["rays_per_view"] == 24 and shown["model"]["init_args"]["encoder"]["init_args"]["plane_size"] == 16
    assert shown["ema"]["decay"] == 0.25
    (tmp_path / "printed.yaml").write_text(printed)
    assert vcgen("fit", tmp_path / "printed.yaml", tmp_path / "run", trainer__max_steps=1) == 0


def test_interpolations_follow_flags(config, tmp_path):
    config.write_text(CONFIG.replace("plane_size: 16", "plane_size: ${model.init_args.rays_per_view}"))
    assert vcgen("fit", config, tmp_path / "run", model__rays_per_view=24, trainer__max_steps=1) == 0
    model = load(tmp_path / "run" / "checkpoints" / "last.ckpt")["vcgen"]["init_args"]
    assert model["encoder"]["init_args"]["plane_size"] == model["rays_per_view"] == 24


# --- checkpoints and resuming -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [3, 4], ids=["between validations", "at a validation"])
def test_a_resumed_training_equals_one_that_never_stopped(config, tmp_path, workers, stop):
    options = dict(trainer__max_steps=6, data__num_workers=workers, model__optimizer__schedule="cosine")
    witness = dict(trainer__callbacks__plus="training.Witness")
    Witness.seen = []
    assert vcgen("fit", config, tmp_path / "whole", **options, **witness) == 0
    whole_order, Witness.seen = Witness.seen, []
    halt = dict(trainer__callbacks__stop=stop)
    assert vcgen("fit", config, tmp_path / "parts", **options, **witness, **halt) == 0
    assert load(tmp_path / "parts" / "checkpoints" / "last.ckpt")["global_step"] == stop
    assert vcgen("fit", config, tmp_path / "parts", **options, **witness, ckpt_path="last") == 0
    assert Witness.seen == whole_order and len(whole_order) == 6
    a, b = (load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts"))
    assert a["global_step"] == b["global_step"] == 6
    for part in ("state_dict", "optimizer_states", "ShardData"):
        assert equal(a[part], b[part]), part
    assert equal(a["callbacks"]["EMA"], b["callbacks"]["EMA"])
    assert a["lr_schedulers"][0]["_last_lr"] == b["lr_schedulers"][0]["_last_lr"]


def test_ckpt_path_last_starts_afresh_when_there_is_none(config, tmp_path):
    assert vcgen("fit", config, tmp_path / "run", ckpt_path="last", trainer__max_steps=1) == 0
    assert load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 1


def test_the_last_checkpoint_is_of_the_last_step_even_when_no_validation_follows(config, tmp_path):
    assert vcgen("fit", config, tmp_path / "run", trainer__max_steps=3) == 0
    assert load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert load(tmp_path / "run" / "checkpoints" / "best.ckpt")["global_step"] == 2


def test_without_validation_data_there_is_a_last_checkpoint_only(config, tmp_path):
    assert vcgen("fit", config, tmp_path / "run", data__val="null") == 0
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_checkpoints_hold_what_export_needs_and_no_temporary_file_is_left(finished):
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    checkpoint = load(finished / "checkpoints" / "last.ckpt")
    assert checkpoint["vcgen"]["class_path"] == "vcgen.systems.nerfdiff.NerfDiff"
    assert checkpoint["vcgen"]["image_size"] == [64, 64] and checkpoint["vcgen"]["camera"]["distance"] == pytest.approx(1.3, abs=0.01)
    weights = checkpoint["callbacks"]["EMA"]["weights"]
    assert set(weights) == set(checkpoint["state_dict"])
    assert any(not torch.equal(weights[name], checkpoint["state_dict"][name]) for name in weights)


def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    files, path = CheckpointFiles(torch.nn.Linear(1, 1), {}), tmp_path / "last.ckpt"
    files.save_checkpoint({"state_dict": {"old": torch.zeros(1)}}, path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="last.ckpt: cannot be written .No space left"):
        files.save_checkpoint({"state_dict": {"new": torch.zeros(1)}}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"] and list(load(path)["state_dict"]) == ["old"]


def test_validation_of_the_best_checkpoint_uses_its_averaged_weights(capsys, config, finished, tmp_path):
    checkpoint = load(finished / "checkpoints" / "best.ckpt")
    config_of_run = (finished / "config.yaml").read_bytes()
    assert vcgen("validate", config, finished, ckpt_path="best", ema__decay=0.5) == 0
    assert (finished / "config.yaml").read_bytes() == config_of_run
    usual = float(re.search(r"val/psnr\D+([\d.]+)", capsys.readouterr().out)[1])
    best = checkpoint["callbacks"]["Checkpoints"]["best_model_score"]
    assert usual == pytest.approx(float(best), abs=1e-4)
    changed = tmp_path / "run" / "checkpoints"
    changed.mkdir(parents=True)
    # averaged weights of zero draw another picture, though the trained weights are the same
    for weight in checkpoint["callbacks"]["EMA"]["weights"].values():
        weight.zero_()
    torch.save(checkpoint, changed / "best.ckpt")
    assert vcgen("validate", config, tmp_path / "run", ckpt_path="best") == 0
    assert float(re.search(r"val/psnr\D+([\d.]+)", capsys.readouterr().out)[1]) != pytest.approx(usual, abs=1e-3)


def test_a_fault_in_validation_leaves_the_trained_weights_in_place(config, tmp_path, monkeypatch):
    kept, swap_out = {}, EMA._swap_out

    def watched(self, module):
        trained = self._trained
        swap_out(self, module)
        if trained is not None:
            kept["restored"] = all(torch.equal(p, trained[name]) for name, p in module.named_parameters() if p.requires_grad)

    monkeypatch.setattr(EMA, "_swap_out", watched)
    with pytest.raises(RuntimeError, match="a fault in validation"):
        vcgen("fit", config, tmp_path / "run", trainer__callbacks__plus="training.Fault")
    assert kept == {"restored": True}


# --- precision and processes --------------------------------------------------------------------------------------------------------------


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
        self.clip_gradients(optimizer, gradient_clip_val=gradient_clip_val, gradient_clip_algorithm=gradient_clip_algorithm)
        measure(self, optimizer)
        clipped.append(norms.pop()[0])

    monkeypatch.setattr(System, "configure_gradient_clipping", clip)
    assert vcgen("fit", config, tmp_path / "run", **options, trainer__gradient_clip_val=limit) == 0
    assert min(free) > 2 * limit and clipped == pytest.approx([limit] * 2, rel=1e-2)
    assert all(dtypes == {torch.float32} for _, dtypes in norms)


@pytest.mark.slow
def test_two_processes_train_with_different_noise_and_end_with_equal_weights(config, tmp_path):
    command = [
        sys.executable, "-m", "vcgen.cli", "fit", "-c", str(config), "--trainer.default_root_dir", str(tmp_path / "run"),
        "--trainer.max_steps", "2", "--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp",
        "--trainer.callbacks+", "training.Ranks", "--trainer.callbacks.folder", str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert equal(first["weights"], second["weights"])
    assert not torch.equal(first["noise"], second["noise"])
    assert not set(first["scenes"]) & set(second["scenes"])
    assert not set(first["validated"]) & set(second["validated"]) and first["validated"] and second["validated"]


# --- the helpers --------------------------------------------------------------------------------------------------------------------------


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
    message = "Caught UserError in DataLoader worker process 0.\nOriginal Traceback\n  File x\nvcgen.errors.UserError: a.tar: broken\n"
    assert worker_refusal(message) == "a.tar: broken"
    assert worker_refusal("a.tar: broken") == "a.tar: broken"


def test_configurations_are_compared_key_by_key():
    stored = {"class_path": "A", "init_args": {"encoder": {"class_path": "E", "init_args": {"size": 8}}, "rays": 2}}
    here = {"class_path": "A", "init_args": {"encoder": {"class_path": "E", "init_args": {"size": 16}}, "rays": 2}}
    assert config_differences(stored, here) == "encoder.size = 8, here 16"
    assert config_differences(stored, stored) == "" and config_differences({}, here) == ""
