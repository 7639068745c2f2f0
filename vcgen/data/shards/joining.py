"""Several shard folders as one data set: joined, and parted by object."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vcgen.data.shards.files import ShardIndex, leaders
from vcgen.data.shards.remote import CachedIndex
from vcgen.errors import UserError


def joined(indices: Sequence[ShardIndex]) -> ShardIndex:
    """The scenes of all, one folder after the other; what is alone stays as it is.

    Raises UserError where images differ in size, two scenes have one key, or shards lie elsewhere."""
    first, *others = indices
    if not others:
        return first
    if remote := [index for index in indices if isinstance(index, CachedIndex)]:
        raise UserError(f"{remote[0].remote}: shards that lie elsewhere are a data set alone; copy them to a folder")
    if odd := [index for index in others if index.image_size != first.image_size]:
        raise UserError(
            f"{odd[0].folder}: images are {odd[0].image_size}, those of {first.folder} {first.image_size} (height,"
            " width); pack or render them in one --size"
        )
    folders = [Path(os.path.abspath(index.folder)) for index in indices]
    common = Path(os.path.commonpath(folders))
    shards = tuple(
        replace(shard, name=str(folder.relative_to(common) / shard.name))
        for folder, index in zip(folders, indices, strict=True)
        for shard in index.shards
    )
    source, split, licence = (
        " + ".join(dict.fromkeys(filter(None, (getattr(index, name) for index in indices))))
        for name in ("source", "split", "licence")
    )
    one = all(index.split == first.split for index in others)
    whole = ShardIndex(common, first.image_size, source, split if one else "", licence, shards)
    keys, counts = np.unique(whole.scenes.column("key"), return_counts=True)
    if (counts > 1).any():
        raise UserError(
            f"{', '.join(str(index.folder) for index in indices)}: the scene {keys[counts > 1][0].decode()} is in more"
            " than one of them, or a folder is given twice; leave one out"
        )
    return whole


def held_out(
    indices: Sequence[ShardIndex], counts: Sequence[int], families: Sequence[Sequence[str]] = ()
) -> tuple[list[ShardIndex], ShardIndex]:
    """:meth:`ShardIndex.hold_out` of each folder: (the scenes that stay, folder by folder, those that are held out).

    What one folder holds out is held out of the others, too: variants of one object, and near-copies (``families``).
    counts: of each folder, 0 for none of its own choice. Raises UserError as the method does.
    """
    leader = leaders(families)
    chosen = [index.hold_out(count, families)[1] for index, count in zip(indices, counts, strict=True) if count]
    gone = {leader.get(group, group) for held in chosen for group in held.groups}
    related = [[group for group in index.groups if leader.get(group, group) in gone] for index in indices]
    stay = [index.only(groups, False) for index, groups in zip(indices, related, strict=True)]
    return stay, joined([index.only(groups) for index, groups in zip(indices, related, strict=True) if groups])


def parted(
    indices: Sequence[ShardIndex], number: int, parts: int, families: Sequence[Sequence[str]] = ()
) -> list[ShardIndex]:
    """The scenes of every ``parts``-th object of each folder, from the one with that number.

    Variants of one object stay together, and so do near-copies (``families``), whichever folders they are in. Raises
    UserError unless a folder has as many objects as parts."""
    leader = leaders(families)
    part_of: dict[bytes, int] = {}
    found = []
    for index in indices:
        objects = dict.fromkeys(leader.get(group, group) for group in index.groups)
        if parts > len(objects):
            few = f"{index.folder}: {len(objects)} objects do not make {parts} parts"
            raise UserError(f"{few}; give fewer in data.part")
        for place, name in enumerate(objects):
            part_of.setdefault(name, place % parts)
        found.append(index.only([group for group in index.groups if part_of[leader.get(group, group)] == number]))
    return found
