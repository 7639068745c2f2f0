"""When checkpoints are saved, and which are kept."""

import lightning.pytorch as pl
import pytest
import torch

from training import Witness, assert_same_end, equal, last_checkpoint, load, refusal, vcgen
from vcgen.checkpoints.files import CheckpointFiles
from vcgen.systems.nerfdiff import NerfDiff


@pytest.fixture
def saved(monkeypatch):
    """(file, step) of every checkpoint written."""
    found, save = [], CheckpointFiles.save_checkpoint

    def note(self, checkpoint, path, storage_options=None):
        found.append((path.name, checkpoint["global_step"]))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(CheckpointFiles, "save_checkpoint", note)
    return found


@pytest.fixture
def scores(monkeypatch):
    """Step -> what its validation measures; to be filled."""
    given = {}

    def validation_step(self, example, batch_index):
        self.log("val/psnr", torch.tensor(given[self.global_step]), batch_size=1)

    monkeypatch.setattr(NerfDiff, "validation_step", validation_step)
    return given


def steps_in(folder) -> dict[str, int]:
    """File -> the step it is of."""
    return {path.name: load(path)["global_step"] for path in folder.glob("checkpoints/*.ckpt")}


def test_the_last_checkpoint_is_of_the_last_step_even_when_no_validation_follows(config, tmp_path):
    assert vcgen("fit", config, tmp_path / "run", trainer__max_steps=3) == 0
    assert steps_in(tmp_path / "run") == {"last.ckpt": 3, "best.ckpt": 2}


class Later(pl.Callback):
    """Makes every step last 20 hours, for the clock of validations."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        trainer._last_val_time -= 20 * 3600


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (dict(data__val="null"), [2, 4]),
        (dict(trainer__limit_val_batches=0), [2, 4]),
        (dict(data__val="null", trainer__accumulate_grad_batches=2, trainer__val_check_interval=3), [2, 3, 4]),
        (
            dict(data__val="null", trainer__val_check_interval="01:06:00:00", trainer__callbacks="test_saving.Later"),
            [2, 4],
        ),
    ],
    ids=["no data", "none of it", "between accumulated batches", "by the clock"],
)
def test_without_validations_there_is_a_last_checkpoint_when_one_was_due(config, tmp_path, saved, options, steps):
    assert vcgen("fit", config, tmp_path / "run", **options) == 0
    assert steps_in(tmp_path / "run") == {"last.ckpt": 4}
    assert saved == [("last.ckpt", step) for step in steps]


@pytest.mark.integration
def test_extra_saves_come_between_validations_and_change_nothing(config, tmp_path, saved):
    options = dict(trainer__max_steps=7, trainer__val_check_interval=3, model__optimizer__schedule="cosine")
    assert vcgen("fit", config, tmp_path / "plain", **options) == 0
    assert [step for name, step in saved if name == "last.ckpt"] == [3, 6, 7]
    saved.clear()
    assert vcgen("fit", config, tmp_path / "often", **options, checkpoint__every_n_steps=2) == 0
    assert [step for name, step in saved if name == "last.ckpt"] == [2, 3, 4, 6, 7]
    a, b = (last_checkpoint(tmp_path / name) for name in ("plain", "often"))
    assert equal({**a, "callbacks": a["callbacks"]["EMA"]}, {**b, "callbacks": b["callbacks"]["EMA"]})


@pytest.mark.integration
@pytest.mark.parametrize(
    ("mode", "measured", "kept"),
    [
        ("max", [1.0, 5.0, 3.0, float("nan"), 4.0, 2.0], {"best.ckpt": 4, "step-4.ckpt": 4, "step-10.ckpt": 10}),
        ("min", [6.0, 5.0, 3.0, float("nan"), 3.0, 2.0], {"best.ckpt": 12, "step-12.ckpt": 12, "step-6.ckpt": 6}),
    ],
)
def test_the_best_are_kept_and_of_equals_the_first(config, tmp_path, scores, mode, measured, kept):
    scores.update({2 * i + 2: value for i, value in enumerate(measured)})
    options = dict(checkpoint__keep_best=2, checkpoint__mode=mode, ema__decay=0)
    assert vcgen("fit", config, tmp_path, trainer__max_steps=6, **options) == 0
    assert vcgen("fit", config, tmp_path, trainer__max_steps=12, **options, ckpt_path="last") == 0
    assert steps_in(tmp_path) == {"last.ckpt": 12, **kept}
    state = last_checkpoint(tmp_path)["callbacks"]["Checkpoints"]
    assert list(state["best"]) == sorted(state["best"], key=lambda step: measured[step // 2 - 1], reverse=mode == "max")
    assert state["current_score"] == 2.0


@pytest.mark.integration
def test_the_best_is_not_forgotten_when_the_folder_moves_or_more_are_to_be_kept(config, tmp_path, scores):
    scores.update({2: 5.0, 4: 1.0, 6: 3.0, 8: 2.0})
    assert vcgen("fit", config, tmp_path / "here", trainer__max_steps=4) == 0
    (tmp_path / "here").rename(tmp_path / "there")
    assert (
        vcgen("fit", config, tmp_path / "there", trainer__max_steps=6, checkpoint__keep_best=2, ckpt_path="last") == 0
    )
    assert steps_in(tmp_path / "there") == {"last.ckpt": 6, "best.ckpt": 2, "step-2.ckpt": 2, "step-6.ckpt": 6}
    assert vcgen("fit", config, tmp_path / "there", trainer__max_steps=8, ckpt_path="last") == 0
    assert steps_in(tmp_path / "there") == {"last.ckpt": 8, "best.ckpt": 2}


def test_another_runs_best_is_not_this_ones(config, tmp_path, scores):
    scores.update({2: 5.0, 4: 1.0})
    assert vcgen("fit", config, tmp_path / "one", trainer__max_steps=2) == 0
    last = tmp_path / "one" / "checkpoints" / "last.ckpt"
    assert vcgen("fit", config, tmp_path / "two", trainer__max_steps=4, ckpt_path=last) == 0
    assert steps_in(tmp_path / "two") == {"last.ckpt": 4, "best.ckpt": 4}


def test_a_metric_that_is_not_logged_is_refused_with_those_that_are(capsys, config, tmp_path):
    line = refusal(capsys, vcgen("fit", config, tmp_path, checkpoint__monitor="val/ssim"))
    assert (
        "checkpoint.monitor: validation logged no 'val/ssim'; logged were val/psnr: set it to one of them and go on"
        in line
    )


@pytest.mark.parametrize(("option", "value"), [("keep_best", 0), ("every_n_steps", 0), ("mode", "most")])
def test_impossible_options_are_refused(capsys, config, tmp_path, option, value):
    assert f"checkpoint.{option}" in refusal(capsys, vcgen("fit", config, tmp_path, **{f"checkpoint__{option}": value}))


class StopAtBatch(pl.Callback):
    """Asks the trainer to stop after so many batches."""

    def __init__(self, batch: int):
        self.batch, self.count = batch, 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.count += 1
        if self.count == self.batch:
            trainer.should_stop = True


@pytest.mark.integration
def test_a_stop_between_accumulated_batches_waits_for_their_step(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Witness, "seen", [])
    callbacks = [dict(class_path="test_saving.StopAtBatch", init_args=dict(batch=5)), "training.Witness"]
    options = dict(trainer__accumulate_grad_batches=3, trainer__val_check_interval=300, trainer__max_steps=4)
    assert vcgen("fit", config, tmp_path / "whole", **options) == 0
    assert vcgen("fit", config, tmp_path / "parts", **options, trainer__callbacks=str(callbacks)) == 0
    assert steps_in(tmp_path / "parts")["last.ckpt"] == 2 and len(Witness.seen) == 6
    assert vcgen("fit", config, tmp_path / "parts", **options, ckpt_path="last") == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.integration
def test_a_validation_between_accumulated_batches_is_saved_after_their_step(config, tmp_path, saved, scores):
    scores.update({1: 2.0, 2: 1.0, 3: 0.5, 4: 0.0})
    options = dict(trainer__accumulate_grad_batches=2, trainer__val_check_interval=3, trainer__max_steps=4)
    assert vcgen("fit", config, tmp_path / "whole", **options) == 0
    # after batches 3, 4, 6 and 8
    assert saved == [("best.ckpt", 1), ("last.ckpt", 2), ("last.ckpt", 3), ("last.ckpt", 4)]
    best = tmp_path / "whole" / "checkpoints" / "best.ckpt"
    assert vcgen("fit", config, tmp_path / "parts", **options, ckpt_path=best) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
