"""The training stream: a pure function of (seed, position), whatever the number of workers and ranks."""

import hashlib
import itertools
from collections.abc import Iterable

import pytest
import torch
from torch.utils.data import DataLoader

from scenes import make_record
from vcgen.data.datamodules.augment import Augmentation
from vcgen.data.datamodules.shards import ShardData
from vcgen.data.datamodules.stream import FixedScenes, SceneStream
from vcgen.data.shards.files import read_index, write_shards
from vcgen.data.views import scene_views
from vcgen.errors import UserError
from vcgen.types import Example, Position

CARS = "data/cars64/train"
SOME = [1, 3]


@pytest.fixture(scope="module")
def index():
    return read_index(CARS)


def take(stream, count, workers=0):
    return list(itertools.islice(DataLoader(stream, batch_size=None, num_workers=workers), count))


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 of all that examples hold."""
    found = hashlib.sha256()
    for example in examples:
        found.update(repr((example.keys, tuple(example.cursor))).encode())
        for views in (example.context, example.target):
            camera = views.cameras
            for values in (views.images, views.alpha, camera.c2w, camera.K, camera.near, camera.far):
                found.update(values.numpy().tobytes())
    return found.hexdigest()


def test_one_input_view_streams_the_batches_of_versions_that_knew_no_other_number(index):
    """The hashes are theirs, of three batches about the end of an epoch and of three scenes for validation."""
    start = Position(0, len(index.samples) - 7)
    for contexts in (1, [1, 1]):
        stream = SceneStream(index, 3, 2, 7, start, augment=Augmentation(True, True), contexts=contexts)
        expected = "2b8590bd14b61992b71541b3a9f0ca42b59793fcad2b88ed8defefa23696111c"
        assert digest(itertools.islice(stream, 3)) == expected
    for context in (5, [5]):
        scenes = FixedScenes(index, 3, 2, context)
        expected = "c643a43b361a4e2ba68c88011f902c6dd419a3682d73f49d5683a09ccc8f96eb"
        assert digest(scenes[number] for number in range(3)) == expected


def test_a_drawn_number_of_input_views_takes_both_ends_and_leaves_the_targets_alone(index):
    batches = take(SceneStream(index, 2, 2, seed=3, contexts=SOME), 12)
    assert {batch.context.cameras.shape for batch in batches} == {(2, 1), (2, 2), (2, 3)}
    assert {batch.target.cameras.shape for batch in batches} == {(2, 2)}
    fixed = take(SceneStream(index, 2, 2, seed=3, contexts=3), 12)
    for batch, three in zip(batches, fixed, strict=True):
        assert batch.keys == three.keys
        both = (torch.cat([part.context.images, part.target.images], 1) for part in (batch, three))
        count = batch.context.cameras.shape[1] + 2
        assert torch.equal(*(images[:, :count] for images in both))  # the first views of one permutation


@pytest.mark.parametrize("workers", [2, 3])
def test_the_order_does_not_depend_on_the_number_of_workers(index, workers):
    alone, shared = (take(SceneStream(index, 2, 1, seed=3, contexts=SOME), 7, w) for w in (0, workers))
    for a, b in zip(alone, shared):
        assert a.keys == b.keys and a.cursor == b.cursor
        assert torch.equal(a.target.images, b.target.images) and torch.equal(
            a.context.cameras.c2w, b.context.cameras.c2w
        )


def test_starting_in_the_middle_equals_never_having_stopped(index):
    """With a drawn number of input views, too."""
    for contexts in (1, SOME):
        whole = take(SceneStream(index, 2, 1, seed=3, contexts=contexts), 8)
        rest = take(SceneStream(index, 2, 1, seed=3, start=whole[3].cursor, contexts=contexts), 4)
        assert digest(whole[4:]) == digest(rest)


@pytest.mark.integration
def test_any_number_of_ranks_makes_the_same_global_batch_of_the_same_images(index):
    """Shuffled views, their number and augmentation included: the last batches are of the second epoch."""
    change = Augmentation(mirror=True, permute_colors=True)
    steps = len(index.samples) // 8 + 2
    whole = take(SceneStream(index, 8, 1, seed=5, augment=change, contexts=SOME), steps)
    for world in (2, 4):
        ranks = [
            take(SceneStream(index, 8 // world, 1, 5, Position(), rank, world, change, contexts=SOME), steps)
            for rank in range(world)
        ]
        for step, parts in enumerate(zip(*ranks, strict=True)):
            assert sum((part.keys for part in parts), ()) == whole[step].keys
            assert torch.equal(torch.cat([part.context.images for part in parts]), whole[step].context.images)
            assert torch.equal(torch.cat([part.target.images for part in parts]), whole[step].target.images)
            assert {part.cursor for part in parts} == {whole[step].cursor}
    assert whole[-1].cursor == Position(1, 16)


def test_held_out_views_are_never_drawn_and_all_others_are(tmp_path):
    index = write_shards((make_record(f"k{i}", count=6) for i in range(4)), tmp_path / "six", (8, 6))
    poses = torch.from_numpy(index.read(0).c2w).float()
    for held, left in (([1, 4], {0, 2, 3, 5}), ([0, 9], {1, 2, 3, 4, 5}), ([], set(range(6)))):
        drawn = set()
        for batch in take(SceneStream(index, 2, 2, seed=3, contexts=[1, 2], held_out_views=held), 30):
            for cameras in (batch.context.cameras, batch.target.cameras):
                same = (cameras.c2w.reshape(-1, 1, 4, 4) == poses).all((-1, -2))
                assert (same.sum(-1) == 1).all()
                drawn |= set(same.int().argmax(-1).tolist())
        assert drawn == left


def test_with_held_out_views_too_a_stopped_run_goes_on_and_ranks_make_the_same_batch(index):
    held = dict(seed=3, contexts=SOME, held_out_views=[7, 13])
    whole = take(SceneStream(index, 4, 1, **held), 5)
    assert digest(whole[3:]) == digest(take(SceneStream(index, 4, 1, start=whole[2].cursor, **held), 2, workers=2))
    ranks = [take(SceneStream(index, 2, 1, rank=rank, world=2, **held), 5) for rank in range(2)]
    for one, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        assert torch.equal(torch.cat([part.target.images for part in parts]), one.target.images)


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
    scenes, several = (FixedScenes(index, scenes=4, targets=3, context=context) for context in (2, [2, 9, 0]))
    assert len(scenes) == 4 and len({scenes[i].keys for i in range(4)}) == 4
    assert torch.equal(scenes[1].target.images, scenes[1].target.images)
    views = scene_views(index.read(scenes.dealt[1][0]), [2, 9, 0])
    assert torch.equal(scenes[1].context.images, views.images[None, :1])
    assert torch.equal(several[1].context.images, views.images[None])
    for example in (scenes[1], several[1]):
        assert example.target.cameras.shape == (1, 3)
        poses = example.target.cameras.c2w[:, :, None] == example.context.cameras.c2w[:, None]
        assert not poses.all((-1, -2)).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(batch_size=1000), "cannot fill a batch"),
        (dict(targets=20), "fewer than 21 views; lower data.targets"),
        (dict(targets=17, contexts=[1, 4]), "fewer than 21 views; lower data.targets, or data.contexts"),
        (
            dict(targets=18, held_out_views=[7, 13]),
            "fewer than 19 views beside data.held_out_views: hold out fewer; lower",
        ),
        (dict(held_out_views=range(20)), "fewer than 2 views beside data.held_out_views"),
    ],
)
def test_impossible_requests_are_refused_with_the_numbers(index, change, words):
    with pytest.raises(UserError, match=words):
        SceneStream(index, **(dict(batch_size=2, targets=1, seed=0) | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(contexts=[3, 1]), r"data.contexts is \[3, 1\]: give the fewest input views first"),
        (dict(context=[0, 4, 0]), r"data.context is \[0, 4, 0\]: give one view, or a list of different ones"),
        (dict(context=[]), r"data.context is \[\]: give one view"),
    ],
)
def test_input_views_that_are_none_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        ShardData(CARS, **change)


def test_validation_needs_a_view_beside_the_input(index):
    with pytest.raises(UserError, match="none is view 20, or none is left beside the input"):
        FixedScenes(index, 1, 1, [0, 20])
    with pytest.raises(UserError, match="none is left beside the input"):
        FixedScenes(index, 1, 1, range(20))


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
