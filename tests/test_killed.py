"""A training that is killed again and again, wherever it is, ends with the very checkpoint of one that was left
alone.
"""

import random

import pytest

from killing import PHASES, train
from training import equal, load
from vcgen.training.run_folder import LOCK, alone_in

KILLS = 28
# 90 steps: an epoch of the data, and a part of the next
OPTIONS = dict(
    trainer__max_steps=90,
    trainer__val_check_interval=3,
    checkpoint__every_n_steps=2,
    model__optimizer__schedule="cosine",
    data__num_workers=2,
    data__val_targets=2,
    samples__scenes=0,
)


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_as_one_that_was_left_alone(config, tmp_path):
    draw, found, steps = random.Random(0), [], [0]
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    for number in range(KILLS):
        target = PHASES[number % len(PHASES)]
        count = 1 if target == "starting" else draw.randint(1, 9)
        end = train(config, tmp_path / "parts", tmp_path / "log.txt", target, count, draw.random(), **OPTIONS)
        assert end.status == -9, (tmp_path / "log.txt").read_text()[-3000:]
        found.append("writing" if end.phase == "written" else end.phase)
        steps.append(load(last)["global_step"] if last.exists() else 0)
        assert steps[-1] >= max(steps[-2], end.saved)
    print({phase: found.count(phase) for phase in PHASES}, steps)
    assert set(found) == set(PHASES) and steps[-1] > 0

    assert train(config, tmp_path / "parts", tmp_path / "log.txt", **OPTIONS).status == 0, (
        tmp_path / "log.txt"
    ).read_text()[-3000:]
    assert train(config, tmp_path / "whole", tmp_path / "log.txt", **OPTIONS).status == 0
    for name in ("best.ckpt", "last.ckpt"):
        whole, parts = (load(tmp_path / run / "checkpoints" / name) for run in ("whole", "parts"))
        for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "ShardData", "callbacks"):
            assert equal(whole[part], parts[part]), (name, part)
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    with alone_in(tmp_path / "parts", patience=0) as alone:
        assert alone
    assert (tmp_path / "parts" / LOCK).read_text() == ""
