"""The order of the training data, checked against a plain enumeration: nothing comes twice in an epoch, nothing is left
out.
"""

import itertools

import pytest
import torch

from vcgen.data.datamodules.sampler import batch_starts, epoch_order, identity, resume_position, scene_generator
from vcgen.errors import UserError
from vcgen.types import Position

HERE = {"epoch": 0, "scenes": 0, "seed": 4, "data": "0" * 64, "ranks": 1, "batch_size": 8}


def places(start: Position, batch: int) -> list[tuple[int, int]]:
    """(epoch, place in its order) of every scene of a batch."""
    return [(start.epoch, place) for place in range(start.scenes, start.scenes + batch)]


@pytest.mark.parametrize(("total", "batch"), [(1, 1), (7, 1), (7, 2), (7, 7), (12, 4), (13, 4)])
def test_batches_walk_through_every_epoch_in_order_and_leave_out_less_than_a_batch(total, batch):
    full = total // batch * batch
    expected = [(epoch, place) for epoch in range(3) for place in range(full)]
    found = [
        place
        for start in itertools.islice(batch_starts(total, batch), 3 * total // batch)
        for place in places(start, batch)
    ]
    assert found[: len(expected)] == expected


def test_another_batch_in_the_middle_of_an_epoch_repeats_and_skips_nothing():
    """Ranks and batch size change at every stop, as when a job gets fewer nodes; only the remainder of the last batch
    is left out.
    """
    total, found, start = 101, [], Position()
    for batch, steps in ((8, 3), (4, 2), (6, 4), (1, 7), (16, 1)):
        for place in itertools.islice(batch_starts(total, batch, start), steps):
            found += places(place, batch)
        start = Position(place.epoch, place.scenes + batch)
    assert found == [(0, place) for place in range(start.scenes)]
    for place in itertools.takewhile(lambda place: place.epoch == 0, batch_starts(total, 5, start)):
        found += places(place, 5)
    assert found == [(0, place) for place in range(len(found))] and 0 <= total - len(found) < 5


def test_a_batch_larger_than_what_is_left_begins_the_next_epoch():
    assert list(itertools.islice(batch_starts(10, 4, Position(2, 7)), 3)) == [(3, 0), (3, 4), (4, 0)]
    assert list(itertools.islice(batch_starts(10, 3, Position(2, 7)), 2)) == [(2, 7), (3, 0)]


def test_epochs_and_seeds_shuffle_all_scenes_differently():
    orders = [epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 6
    assert torch.equal(epoch_order(50, 1, 2), epoch_order.__wrapped__(50, 1, 2))


def test_draws_differ_between_seeds_epochs_and_places_and_repeat():
    """2^32 places apart, too: a generator that looked at the low bits of a sum alone would repeat itself."""
    places = list(itertools.product((0, 1), (0, 1), (0, 1, 2, 1 << 20, 1 << 32)))
    draws = [tuple(torch.rand(4, generator=scene_generator(*place)).tolist()) for place in places]
    assert len(set(draws)) == len(places)
    assert draws == [tuple(torch.rand(4, generator=scene_generator(*place)).tolist()) for place in places]


def test_a_position_counts_for_the_same_scenes_and_seed_alone():
    assert resume_position({**HERE, "epoch": 3, "scenes": 24, "ranks": 4, "batch_size": 1}, HERE, 24) == Position(3, 24)
    with pytest.raises(UserError, match=r"other scenes than data.train.*--model.pretrained"):
        resume_position({**HERE, "data": identity(["a", "b"])}, HERE, 24)
    with pytest.raises(UserError, match=r"with seed 5, here it is 4.*--seed_everything 5.*--model.pretrained"):
        resume_position({**HERE, "seed": 5}, HERE, 24)
    with pytest.raises(UserError, match=r"counted batches.*--model.pretrained"):
        resume_position({"cursor": 17}, HERE, 24)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": 1 << 40},
        {"epoch": 1.0},
        {"epoch": True},
        {"scenes": 25},
        {"scenes": "8"},
        {"scenes": [8]},
        {"seed": -1},
        {"seed": None},
        {"data": 3},
        {"ranks": 0},
        {"batch_size": 1 << 40},
    ],
)
def test_a_position_that_no_run_has_is_refused(change):
    with pytest.raises(UserError, match=r"position.*--model.pretrained"):
        resume_position({**HERE, **change}, HERE, 24)


def test_scenes_are_told_apart_by_keys_and_by_order():
    assert len({identity(keys) for keys in (["a", "b"], ["b", "a"], ["a"], ["ab"], ["a", "b", "c"])}) == 5
