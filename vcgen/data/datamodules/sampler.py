"""The order of the training data: pure functions of (seed, position), so that the state of a stream is two integers.

Each epoch is a fresh permutation of all scenes. A position counts the scenes of it that all ranks together have taken,
so it means the same to any number of ranks and workers and to any batch size. What is drawn at random for a scene (its
views, its augmentation) depends on the seed, the epoch and its place in the epoch's order alone: two ranks with four
scenes each make the batch that one makes of eight."""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct
from torch import Tensor

from vcgen.errors import UserError
from vcgen.io import check
from vcgen.random import seeded
from vcgen.schema import Count, Sha256
from vcgen.types import Position


def batch_starts(total: int, batch: int, start: Position = Position()) -> Iterator[Position]:
    """Where each batch of ``batch`` scenes (of all ranks together) begins, endlessly, from ``start`` on.

    Scenes that do not fill a last batch wait for the shuffle of the next of the epochs of ``total`` scenes.
    """
    epoch, scenes = start
    while True:
        if scenes + batch > total:
            epoch, scenes = epoch + 1, 0
        yield Position(epoch, scenes)
        scenes += batch


# A batch needs the order of its epoch only; making it anew for each would take longer than reading, with many scenes.
@functools.lru_cache(maxsize=2)
def epoch_order(total: int, seed: int, epoch: int) -> Tensor:
    """(total,) int64: the numbers of all scenes in the order of an epoch. Shared between calls: do not write into
    it.
    """
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def scene_generator(seed: int, epoch: int, place: int, attempt: int = 0) -> torch.Generator:
    """The random draws for the scene at a place of an epoch's order. attempt: how many scenes there could not be
    read.
    """
    return seeded(seed, epoch, attempt, place)


def contexts_of(contexts: int | Sequence[int], seed: int, start: Position) -> int:
    """Input views of each scene in the batch that begins at a position: fixed, or drawn from [low, high], both
    included. Ranks make parts of one batch, so that they agree, and no draw of a scene depends on it.
    """
    if isinstance(contexts, int):
        return contexts
    low, high = contexts
    # five numbers, the last not 0: no scene's generator
    return int(torch.randint(low, high + 1, (), generator=seeded(seed, start.epoch, 0, start.scenes, 1)))


def identity(keys: Iterable[str]) -> str:
    """What scenes, in what order, the numbers of a stream refer to: hexadecimal SHA-256 of their keys."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


class StreamState(Struct):
    """What a checkpoint says of a stream: its position and what that refers to."""

    epoch: Annotated[int, Meta(ge=0, le=1 << 31)]
    scenes: Count
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)]
    data: Sha256
    ranks: Annotated[int, Meta(ge=1, le=1 << 20)]
    batch_size: Annotated[int, Meta(ge=1, le=1 << 20)]


def resume_position(stored: dict[str, Any], here: dict[str, Any], total: int) -> Position:
    """The position in a checkpoint's state of a stream.

    stored, here: that state and this run's, by ``ShardData.state_dict``. total: scenes of an epoch. Raises UserError
    where the position means nothing here: another order of other scenes."""
    advice = "to start from its weights instead, `vcgen export` it and give --model.pretrained FOLDER"
    if not isinstance(stored, dict) or not {"epoch", "scenes", "seed", "data"} <= stored.keys():
        raise UserError(f"the checkpoint's position in the data is of an older vcgen, which counted batches; {advice}")
    check(stored, StreamState, "the checkpoint's position in the data", advice)
    if stored["data"] != here["data"]:
        raise UserError(
            "the checkpoint was trained on other scenes than data.train and data.hold_out give; give those, or"
            f" {advice}"
        )
    if stored["seed"] != here["seed"]:
        found = f"the checkpoint was trained with seed {stored['seed']}, here it is {here['seed']}"
        raise UserError(f"{found}; give --seed_everything {stored['seed']}, or {advice}")
    if stored["scenes"] > total:
        raise UserError(
            f"the checkpoint's position is after {stored['scenes']} scenes of an epoch, which has {total}; {advice}"
        )
    return Position(stored["epoch"], stored["scenes"])
