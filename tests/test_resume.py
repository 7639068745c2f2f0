"""A training that was stopped and goes on equals one that never stopped."""

import itertools
import os
import time

import pytest
from training import Witness, equal, load, vcgen


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
