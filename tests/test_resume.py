"""A training that was stopped and goes on equals one that never stopped."""

import itertools
import os
import time

import pytest
import yaml

from pages import ROOT
from ranks import vcgen_ranks
from training import Witness, assert_same_end, equal, last_checkpoint, load, vcgen


@pytest.mark.integration
@pytest.mark.parametrize(
    ("workers", "batch_size", "stop", "epoch"),
    [
        pytest.param(0, 2, 3, 0, id="between validations"),
        pytest.param(2, 2, 4, 0, id="at a validation"),
        pytest.param(3, 51, 2, 1, id="in an epoch of three steps, over its end", marks=pytest.mark.slow),
        pytest.param(2, 51, 3, 1, id="at the end of an epoch", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_training_equals_one_that_never_stopped(
    config, tmp_path, monkeypatch, workers, batch_size, stop, epoch
):
    options = dict(
        trainer__max_steps=6,
        data__num_workers=workers,
        data__batch_size=batch_size,
        model__rays_per_view=4,
        model__optimizer__schedule="cosine",
        trainer__callbacks__plus="training.Witness",
    )
    monkeypatch.setattr(Witness, "seen", [])
    assert vcgen("fit", config, tmp_path / "whole", **options) == 0
    whole_order, Witness.seen = Witness.seen, []
    assert vcgen("fit", config, tmp_path / "parts", **options, trainer__callbacks__stop=stop) == 0
    assert last_checkpoint(tmp_path / "parts")["global_step"] == stop
    assert vcgen("fit", config, tmp_path / "parts", **options, ckpt_path="last") == 0
    assert Witness.seen == whole_order and len(whole_order) == 6
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    position = last_checkpoint(tmp_path / "parts")["ShardData"]
    assert position["epoch"] * 153 + position["scenes"] == 6 * batch_size or epoch == 0
    assert position["epoch"] >= epoch


@pytest.mark.slow
def test_a_resumed_training_draws_the_numbers_of_input_views_of_one_that_never_stopped(config, tmp_path):
    options = dict(trainer__max_steps=4, data__contexts="[1,3]", data__val="null", data__num_workers=2)
    assert vcgen("fit", config, tmp_path / "whole", **options) == 0
    halt = dict(trainer__callbacks__plus="training.Witness", trainer__callbacks__stop=2)
    assert vcgen("fit", config, tmp_path / "parts", **options, **halt) == 0
    assert vcgen("fit", config, tmp_path / "parts", **options, ckpt_path="last") == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_two_ranks_that_were_stopped_end_as_two_that_were_not(config, tmp_path):
    # three steps are an epoch
    options = dict(trainer__max_steps=6, data__num_workers=2, data__batch_size=26, model__rays_per_view=4)
    assert vcgen_ranks(2, "fit", config, tmp_path / "whole", **options) == [0, 0]
    for stop in (2, 5):
        halt = dict(trainer__callbacks__plus="training.Witness", trainer__callbacks__stop=stop)
        assert vcgen_ranks(2, "fit", config, tmp_path / "parts", **options, **halt, ckpt_path="last") == [0, 0]
        assert last_checkpoint(tmp_path / "parts")["global_step"] == stop
    assert vcgen_ranks(2, "fit", config, tmp_path / "parts", **options, ckpt_path="last") == [0, 0]
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.integration
def test_neither_the_clock_nor_the_times_of_files_decide_anything(config, tmp_path, monkeypatch):
    options = dict(trainer__max_time="00:01:00:00", trainer__max_steps=4, model__optimizer__schedule="cosine")
    assert vcgen("fit", config, tmp_path / "whole", **options) == 0
    clock = itertools.count(2e9, -3600)
    monkeypatch.setattr(time, "time", lambda: next(clock))  # an hour earlier at every look
    witness = dict(trainer__callbacks__plus="training.Witness", trainer__callbacks__stop=3)
    assert vcgen("fit", config, tmp_path / "parts", **options, **witness) == 0
    for name, seconds in (("last.ckpt", 0), ("best.ckpt", 4e9)):
        os.utime(tmp_path / "parts" / "checkpoints" / name, (seconds, seconds))
    assert vcgen("fit", config, tmp_path / "parts", **options, ckpt_path="last") == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.integration
def test_processes_go_by_one_clock_where_a_run_is_limited_by_time(config, tmp_path):
    """Each by its own would have learning rates of its own, and weights that drift apart."""
    options = dict(trainer__max_time="00:00:00:04", trainer__max_steps=-1, model__optimizer__schedule="cosine")
    ranks = dict(trainer__callbacks__plus="training.Ranks", trainer__callbacks__folder=tmp_path, data__val="null")
    assert vcgen_ranks(2, "fit", config, tmp_path / "run", **options, **ranks) == [0, 0]
    first, second = (load(tmp_path / f"rank{rank}.pt")["weights"] for rank in range(2))
    assert equal(first, second)


@pytest.mark.parametrize("muon", ["null", "0.01"])
def test_a_learning_rate_that_was_changed_holds_when_the_run_goes_on(config, tmp_path, caplog, muon):
    options = dict(data__val="null", model__optimizer__schedule="wsd", model__optimizer__muon_lr=muon)
    assert vcgen("fit", config, tmp_path / "run", **options, trainer__max_steps=2) == 0
    assert "going on with" not in caplog.text
    options |= dict(ckpt_path="last", model__optimizer__lr=1e-5, model__optimizer__weight_decay=0.1)
    assert (
        vcgen(
            "fit",
            config,
            tmp_path / "run",
            **options,
            trainer__max_steps=100,
            trainer__limit_train_batches=3,
            trainer__max_epochs=1,
        )
        == 0
    )
    assert "going on with learning rate 1e-05 instead of 0.001, weight decay 0.1 instead of 0.0, with" in caplog.text
    state = last_checkpoint(tmp_path / "run")
    rates = [1e-5] if muon == "null" else [1e-5, 0.01]
    groups = state["optimizer_states"][0]["param_groups"]
    assert [group["lr"] for group in groups] == rates == state["lr_schedulers"][0]["base_lrs"]
    assert {group["weight_decay"] for group in groups} == {0.1}


def test_a_run_that_was_killed_at_its_end_comes_to_it_when_it_goes_on(config, tmp_path):
    """Where a system writes what it has become."""
    options = dict(trainer__callbacks__plus="training.Ranks", trainer__callbacks__folder=tmp_path, trainer__max_steps=2)
    assert vcgen("fit", config, tmp_path / "run", **options) == 0
    written, state = load(tmp_path / "rank0.pt"), last_checkpoint(tmp_path / "run")
    (tmp_path / "rank0.pt").unlink()
    assert vcgen("fit", config, tmp_path / "run", **options, ckpt_path="last") == 0
    assert equal(load(tmp_path / "rank0.pt")["weights"], written["weights"])
    assert equal(last_checkpoint(tmp_path / "run"), state)


def test_ckpt_path_last_starts_afresh_when_there_is_none_and_is_stored_as_it_was_given(config, tmp_path, monkeypatch):
    """The path of a checkpoint in its place would have whoever repeats the run begin at that one's end. In a
    configuration no shell replaces "~".
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    for step in (1, 2):
        assert vcgen("fit", config, "~/run", ckpt_path="last", trainer__max_steps=step, data__val="null") == 0
        assert last_checkpoint(tmp_path / "run")["global_step"] == step
        stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        assert stored["ckpt_path"] == "last" and stored["trainer"]["default_root_dir"] == str(tmp_path / "run")
    assert not (tmp_path / "~").exists()
