"""The training stream: a pure function of (seed, position), whatever the number of workers and ranks."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader

from scenes import make_record
from vcgen.data.datamodules.augment import Augmentation
from vcgen.data.datamodules.shards import ShardData
from vcgen.data.datamodules.stream import FixedScenes, SceneStream
from vcgen.data.shards.files import read_index, write_shards
from vcgen.errors import UserError
from vcgen.types import Position

CARS = "data/cars64/train"


@pytest.fixture(scope="module")
def index():
    return read_index(CARS)


def take(stream, count, workers=0):
    return list(itertools.islice(DataLoader(stream, batch_size=None, num_workers=workers), count))


@pytest.mark.parametrize("workers", [2, 3])
def test_the_order_does_not_depend_on_the_number_of_workers(index, workers):
    alone, shared = (take(SceneStream(index, 2, 1, seed=3), 7, w) for w in (0, workers))
    for a, b in zip(alone, shared):
        assert a.keys == b.keys and a.cursor == b.cursor
        assert torch.equal(a.target.images, b.target.images) and torch.equal(
            a.context.cameras.c2w, b.context.cameras.c2w
        )


def test_starting_in_the_middle_equals_never_having_stopped(index):
    whole = take(SceneStream(index, 2, 1, seed=3), 6)
    rest = take(SceneStream(index, 2, 1, seed=3, start=whole[3].cursor), 2)
    for a, b in zip(whole[4:], rest, strict=True):
        assert a.keys == b.keys and a.cursor == b.cursor and torch.equal(a.context.images, b.context.images)


@pytest.mark.integration
def test_any_number_of_ranks_makes_the_same_global_batch_of_the_same_images(index):
    """Shuffled views and augmentation included: the last batches are of the second epoch."""
    change = Augmentation(mirror=True, permute_colors=True)
    steps = len(index.samples) // 8 + 2
    whole = take(SceneStream(index, 8, 1, seed=5, augment=change), steps)
    for world in (2, 4):
        ranks = [
            take(SceneStream(index, 8 // world, 1, 5, Position(), rank, world, change), steps) for rank in range(world)
        ]
        for step, parts in enumerate(zip(*ranks, strict=True)):
            assert sum((part.keys for part in parts), ()) == whole[step].keys
            assert torch.equal(torch.cat([part.target.images for part in parts]), whole[step].target.images)
            assert {part.cursor for part in parts} == {whole[step].cursor}
    assert whole[-1].cursor == Position(1, 16)


@pytest.mark.parametrize(("ranks", "workers"), [(2, 3), (3, 2)])
def test_one_shard_feeds_more_loader_processes_than_there_are_shards(tmp_path, ranks, workers):
    index = write_shards((make_record(f"k{i}") for i in range(12)), tmp_path / "one", (8, 6))
    assert len(index.shards) == 1
    streams = [SceneStream(index, 1, 1, seed=0, rank=rank, world=ranks) for rank in range(ranks)]
    keys = [key for stream in streams for example in take(stream, 12 // ranks, workers) for key in example.keys]
    assert sorted(keys) == sorted(entry.key for _, entry in index.samples)


def test_context_and_targets_are_different_views_with_straight_color(index):
    example = SceneStream(index, 3, 4, seed=1).batch()
    assert example.context.images.shape == (3, 1, 3, 64, 64) and example.target.alpha.shape == (3, 4, 1, 64, 64)
    poses = torch.cat([example.context.cameras.c2w, example.target.cameras.c2w], 1)
    for scene in poses:
        assert len({tuple(pose.flatten().tolist()) for pose in scene}) == 5
    assert example.target.images.min() >= 0 and example.target.images.max() <= 1


def test_validation_scenes_are_fixed_and_leave_the_input_view_out(index):
    scenes = FixedScenes(index, scenes=4, targets=3, context=2)
    assert len(scenes) == 4 and len({scenes[i].keys for i in range(4)}) == 4
    assert torch.equal(scenes[1].target.images, scenes[1].target.images)
    assert not (scenes[1].target.cameras.c2w == scenes[1].context.cameras.c2w).all((-1, -2)).any()


@pytest.mark.parametrize(
    ("change", "words"), [(dict(batch_size=1000), "cannot fill a batch"), (dict(targets=20), "fewer than 21 views")]
)
def test_impossible_requests_are_refused_with_the_numbers(index, change, words):
    with pytest.raises(UserError, match=words):
        SceneStream(index, **(dict(batch_size=2, targets=1, seed=0) | change))


def test_objects_are_held_out_only_where_there_is_no_validation_folder(index):
    data = ShardData(CARS, hold_out=3)
    data.setup("fit")
    groups = [{entry.group for _, entry in part.samples} for part in (data.train_index, data.val_index)]
    assert len(groups[1]) == 3 and not groups[0] & groups[1]
    both = ShardData(CARS, "data/cars64/test", hold_out=3)
    both.setup("fit")
    assert len(both.train_index.samples) == len(index.samples) and both.val_index.split == "test"
    neither = ShardData(CARS)
    neither.setup("fit")
    assert neither.val_index is None and neither.val_dataloader() == []
