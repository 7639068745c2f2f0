"""Endless training batches from a shard folder, in the order of ``sampler.py``, and the fixed examples of validation.

Worker w of W makes batches w, w + W, ... of its rank, so DataLoader's round-robin keeps the order whatever their
number. Any worker of any rank can read any scene: shards may be fewer than workers."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vcgen.data.datamodules.augment import Augmentation
from vcgen.data.datamodules.sampler import batch_starts, contexts_of, epoch_order, scene_generator
from vcgen.data.shards.files import ShardIndex
from vcgen.data.views import scene_views, stack_views
from vcgen.errors import UserError
from vcgen.types import Example, Position, Views

OnError = Literal["stop", "skip"]
#: So many unreadable scenes at one place of the order mean that nothing can be read: no sane data set has every second
#: scene damaged.
MOST_ATTEMPTS = 20


class SceneStream(IterableDataset[Example]):
    """Batches of :class:`vcgen.types.Example`: shuffled scenes with ``context`` (batch, contexts) and other ``target``
    (batch, targets) views.

    batch_size: scenes per batch and rank. targets: target views per scene. start: where iterators begin; it may be
        changed between them. contexts: input views per scene, or [low, high]: drawn for each batch, alike on all ranks.
    held_out_views: numbers of views of each scene that are never drawn.
    rank, world: this process among all. augment: random changes made to whole scenes. on_error: "stop" at a scene that
    cannot be read, or "skip" it: another one, drawn for its place, stands in for it, so that all ranks keep equal
    batches. Every rank gets equally many batches per epoch. Raises UserError when there are fewer scenes than ranks *
    batch_size, or a scene has too few views."""

    def __init__(
        self,
        index: ShardIndex,
        batch_size: int,
        targets: int,
        seed: int,
        start: Position = Position(),
        rank: int = 0,
        world: int = 1,
        augment: Augmentation = Augmentation(),
        on_error: OnError = "stop",
        contexts: int | Sequence[int] = 1,
        held_out_views: Collection[int] = (),
    ):
        self.held_out_views = frozenset(held_out_views)
        self.index, self.batch_size, self.targets, self.contexts = index, batch_size, targets, contexts
        self.seed, self.start, self.rank, self.world = seed, start, rank, world
        self.augment, self.on_error = augment, on_error
        self.total = len(index.samples)
        if self.total < batch_size * world:
            found = f"{self.total} scenes cannot fill a batch of {batch_size} on {world} ranks"
            raise UserError(f"{index.folder}: {found}; lower data.batch_size")
        needed = targets + (contexts if isinstance(contexts, int) else contexts[1])
        views = index.scenes.column("views")
        left = views - sum((views > view for view in self.held_out_views), np.zeros_like(views))
        short = np.flatnonzero(left < needed)
        if len(short):
            found = f"{len(short)} scenes, e.g. {index.scenes[short[0]].key}, have fewer than {needed} views"
            if self.held_out_views:
                found += " beside data.held_out_views: hold out fewer"
            raise UserError(f"{index.folder}: {found}; lower data.targets, or data.contexts where it is above 1")

    def __iter__(self) -> Iterator[Example]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        starts = batch_starts(self.total, self.batch_size * self.world, self.start)
        return map(self.batch, itertools.islice(starts, worker, None, workers))

    def batch(self, start: Position = Position()) -> Example:
        """This rank's part of the batch that begins at a position."""
        first = start.scenes + self.rank * self.batch_size
        contexts = contexts_of(self.contexts, self.seed, start)
        skipped: dict[str, str] = {}
        drawn = (
            self._scene(start.epoch, place, contexts + self.targets, skipped)
            for place in range(first, first + self.batch_size)
        )
        scenes, keys = zip(*drawn, strict=True)
        views = stack_views(scenes)
        after = Position(start.epoch, start.scenes + self.batch_size * self.world)
        return Example(views[:, :contexts], views[:, contexts:], keys, after, skipped=skipped)

    def _scene(self, epoch: int, place: int, count: int, skipped: dict[str, str]) -> tuple[Views, str]:
        """(``count`` views, key) of the scene at a place of an epoch's order, or of one that stands in for it."""
        number = int(epoch_order(self.total, self.seed, epoch)[place])
        attempt = 0
        while True:
            draw = scene_generator(self.seed, epoch, place, attempt)
            if attempt:
                number = int(torch.randint(self.total, (), generator=draw))
            try:
                record = self.index.read(number)
                free = [view for view in range(len(record.views)) if view not in self.held_out_views]
                chosen = torch.randperm(len(free), generator=draw)[:count].tolist()
                return self.augment(scene_views(record, [free[i] for i in chosen]), draw), record.key
            except UserError as error:
                if self.on_error == "stop" or attempt == MOST_ATTEMPTS:
                    raise
                skipped[self.index.scenes[number].key] = str(error)
            attempt += 1


class FixedScenes(Dataset[Example]):
    """Validation examples, the same every time: of ``scenes`` evenly spaced scenes, the view or views ``context`` and
    ``targets`` spaced others.

    rank, world: this process among all. Scene i goes to rank i mod world. Every rank gets equally many, for they must
    validate in step: where the scenes do not go round, the last round is filled with repetitions of weight 0. on_error:
    "stop" at a scene that cannot be read, or "skip" it: the next one in stored order stands in for it."""

    def __init__(
        self,
        index: ShardIndex,
        scenes: int,
        targets: int,
        context: int | Sequence[int] = 0,
        rank: int = 0,
        world: int = 1,
        on_error: OnError = "stop",
    ):
        self.index, self.targets, self.on_error = index, targets, on_error
        self.context = input_views(context)
        total, last = len(index.samples), max(self.context)
        short = np.flatnonzero(index.scenes.column("views") < max(len(self.context), last) + 1)
        if len(short):
            entry = index.scenes[short[0]]
            found = (
                f"scene {entry.key} has {entry.views} views, from 0 on: none is view {last}, or none is left beside"
                " the input"
            )
            raise UserError(f"{index.folder}: {found}; change data.context, or validate on other scenes (data.val)")
        count = min(scenes, total)
        # Evenly spaced, because neighbors in a shard are often variants of one model.
        numbers = [i * total // count for i in range(count)]
        rounds = -(-count // world)
        self.dealt = [(numbers[i % count], 1.0 if i < count else 0.0) for i in range(rank, rounds * world, world)]

    def __len__(self) -> int:
        return len(self.dealt)

    def __getitem__(self, position: int) -> Example:
        number, weight = self.dealt[position]
        skipped: dict[str, str] = {}
        attempt = 0
        while True:
            stand_in = (number + attempt) % len(self.index.samples)
            try:
                return replace(self._scene(stand_in), weight=weight, skipped=skipped)
            except UserError as error:
                if self.on_error == "stop" or attempt == MOST_ATTEMPTS:
                    raise
                skipped[self.index.scenes[stand_in].key] = str(error)
            attempt += 1

    def _scene(self, number: int) -> Example:
        record = self.index.read(number)
        others = [i for i in range(len(record.views)) if i not in self.context]
        chosen = [others[i * len(others) // self.targets] for i in range(self.targets)]
        views, count = scene_views(record, [*self.context, *chosen])[None], len(self.context)
        return Example(views[:, :count], views[:, count:], (record.key,))


def input_views(context: int | Sequence[int]) -> tuple[int, ...]:
    """The view numbers of ``data.context``, which names one or several. Raises UserError for one that is named
    twice.
    """
    views = (context,) if isinstance(context, int) else tuple(context)
    if not views or len(set(views)) < len(views):
        raise UserError(f"data.context is {list(views)}: give one view, or a list of different ones")
    return views
