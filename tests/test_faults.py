"""Damaged data: a run stops at it with its name, or leaves it out, deterministically, named and counted."""

import itertools
import os
import shutil
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from scenes import make_record
from training import CONFIG, Witness, last_checkpoint, refusal, vcgen
from vcgen.data.datamodules.sampler import epoch_order
from vcgen.data.datamodules.shards import ShardData
from vcgen.data.datamodules.stream import FixedScenes, SceneStream
from vcgen.data.shards.faults import Faults, check_shards, fault_in
from vcgen.data.shards.files import read_index, write_shards
from vcgen.errors import UserError
from vcgen.types import Position


def damage(index, number: int, what: bytes = b"IDAT") -> str:
    """Spoil the first image of a scene (its pixels, or with b"IEND" its end) without changing the shard's length;
    returns its key.
    """
    name, sample = index.samples[number]
    data = bytearray((index.folder / name).read_bytes())
    start = data.index(what, sample.offset)
    data[start : start + 12] = bytes(12)
    (index.folder / name).write_bytes(data)
    return sample.key


@pytest.fixture
def index(tmp_path):
    """Forty scenes of two views in shards of eight; scenes 3 (cannot be read) and 17 (cannot be decoded) are
    damaged.
    """
    index = write_shards(
        (make_record(f"k{i}", count=2) for i in range(40)), tmp_path / "out", (8, 6), samples_per_shard=8
    )
    damage(index, 3, b"IEND")
    damage(index, 17, b"IDAT")
    return index


def epoch(index, rank=0, world=1, batch=4, workers=0, start=Position()):
    stream = SceneStream(index, batch, 1, 2, start, rank, world, on_error="skip")
    steps = (40 - start.scenes) // (batch * world)
    return list(itertools.islice(DataLoader(stream, batch_size=None, num_workers=workers), steps))


def test_a_run_stops_at_damage_by_default(index):
    with pytest.raises(UserError, match=r"000000.tar.*scene k3.*truncated"):
        FixedScenes(index, 40, 1)[3]
    with pytest.raises(UserError, match="scene k17, view 000000: the PNG is damaged"):
        FixedScenes(index, 40, 1)[17]
    with pytest.raises(UserError, match=r"scene k3|scene k17"):
        list(itertools.islice(SceneStream(index, 4, 1, seed=2), 10))
    assert fault_in(index, 2) is None and "k3" in fault_in(index, 3) and "k17" in fault_in(index, 17)


def test_what_is_skipped_is_replaced_at_its_place_and_nothing_else_moves(index):
    keys = [key for example in epoch(index) for key in example.keys]
    expected = [f"k{number}" for number in epoch_order(40, 2, 0).tolist()]
    moved = [place for place in range(40) if keys[place] != expected[place]]
    assert [expected[place] for place in moved] == [key for key in expected if key in ("k3", "k17")] and len(moved) == 2
    assert not {"k3", "k17"} & set(keys)
    skipped = {key: reason for example in epoch(index) for key, reason in example.skipped.items()}
    assert skipped.keys() == {"k3", "k17"} and "000000.tar" in skipped["k3"] and "PNG is damaged" in skipped["k17"]


def test_skipping_depends_neither_on_ranks_nor_workers_nor_where_the_run_resumed(index):
    whole = epoch(index)
    assert [e.keys for e in epoch(index, workers=2)] == [e.keys for e in whole]
    ranks = [epoch(index, rank, 2, batch=2) for rank in range(2)]
    assert [a.keys + b.keys for a, b in zip(*ranks, strict=True)] == [e.keys for e in whole]
    assert [e.keys for e in epoch(index, start=Position(0, 12))] == [e.keys for e in whole[3:]]


def test_validation_takes_the_next_scene(index):
    example = FixedScenes(index, 40, 1, on_error="skip")[3]
    assert example.keys == ("k4",) and example.skipped.keys() == {"k3"}


def test_when_nothing_can_be_read_the_last_reason_is_given(index):
    for shard in index.shards:
        (index.folder / shard.name).write_bytes(bytes(shard.bytes))
    with pytest.raises(UserError, match="scene at byte"):
        SceneStream(index, 4, 1, seed=2, on_error="skip").batch()
    with pytest.raises(UserError, match="scene at byte"):
        FixedScenes(index, 4, 1, on_error="skip")[0]


def test_more_than_a_twentieth_is_refused_and_every_scene_is_named_once(index, capsys):
    faults = Faults(index)
    faults.add({"k3": "why"})
    faults.add({"k3": "why", "k17": "because"})
    assert capsys.readouterr().err.splitlines() == [
        "vcgen: warning: scene k3 is skipped: why",
        "vcgen: warning: scene k17 is skipped: because",
    ]
    with pytest.raises(
        UserError, match=r"3 of 40 scenes cannot be read, more than on_error: skip leaves out .5%.; one of them: again"
    ):
        faults.add({"k5": "again"})


def test_missing_and_truncated_shards_are_skipped_or_refused_by_their_fraction(tmp_path, capsys):
    index = write_shards(
        (make_record(f"k{i}", count=2) for i in range(40)), tmp_path / "out", (8, 6), samples_per_shard=1
    )
    (index.folder / "000004.tar").unlink()
    (index.folder / "000020.tar").write_bytes(b"short")
    with pytest.raises(UserError, match=r"000004.tar: missing"):
        read_index(index.folder)
    check_shards(read_index(index.folder, check=False))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "000004.tar: missing" in lines[0] and "000020.tar: 5 bytes" in lines[1]
    keys = [key for example in epoch(index) for key in example.keys]
    assert len(keys) == 40 and not {"k4", "k20"} & set(keys)
    (index.folder / "000021.tar").unlink()
    with pytest.raises(UserError, match="3 of 40 scenes cannot be read"):
        check_shards(read_index(index.folder, check=False))


@pytest.fixture
def cars(tmp_path):
    """A copy of the bundled training set, to damage, beside the tiny configuration."""
    shutil.copytree("data/cars64/train", tmp_path / "cars")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path / "cars"


@pytest.mark.slow
def test_a_training_goes_on_past_damaged_scenes_and_counts_them(cars, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Witness, "seen", [])
    index = read_index(cars)
    bad = [damage(index, int(number), b"IEND") for number in epoch_order(155, 0, 0)[:3]]
    options = dict(data__train=cars, data__val="null", data__batch_size=3, trainer__max_steps=2, data__num_workers=1)
    line = refusal(capsys, vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "stop", **options))
    assert bad[0] in line and "truncated" in line
    options |= dict(data__on_error="skip", trainer__callbacks__plus="training.Witness")
    assert vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "run", **options) == 0
    assert len(Witness.seen) == 2 and not set(bad) & set(sum(Witness.seen, ()))
    warnings = [line for line in capsys.readouterr().err.splitlines() if "is skipped" in line]
    assert sorted(line.split()[3] for line in warnings) == sorted(bad)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [event.value for event in events.Scalars("data/skipped")] == [3, 3]
    assert last_checkpoint(tmp_path / "run")["ShardData"]["scenes"] == 6


def test_data_is_set_up_without_a_trainer_whatever_becomes_of_damaged_scenes(index):
    data = ShardData(str(index.folder), on_error="skip")
    data.setup("fit")
    assert len(data.keys) == 40


def test_a_training_on_a_folder_that_lacks_a_shard_is_refused_when_it_held_too_much(cars, tmp_path, capsys):
    (cars / "000004.tar").unlink()
    options = dict(data__train=cars, data__val="null", data__on_error="skip")
    line = refusal(capsys, vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "run", **options))
    assert "of 155 scenes cannot be read" in line and "000004.tar: missing" in line


@pytest.mark.slow
def test_an_error_in_a_loader_process_ends_the_command(cars, tmp_path):
    """The loader is still open then, and its processes ignore the signal by which Python ends them; in this very
    process it would not show.
    """
    for shard in cars.glob("*.tar"):
        shard.write_bytes(bytes(shard.stat().st_size))
    command = [sys.executable, "-m", "vcgen", "fit", "-c", str(tmp_path / "tiny.yaml"), "--data.train", str(cars)]
    command += ["--data.num_workers", "2", "--trainer.default_root_dir", str(tmp_path / "run")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("vcgen: error: ")
