"""Several shard folders as one data set."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vcgen.data.shards.files import ShardIndex
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
