"""Whether scenes that are kept for testing are trained on."""

from pathlib import Path

import numpy as np

from vcgen.data.shards.faults import fault_in
from vcgen.data.shards.files import ShardIndex
from vcgen.data.shards.remote import CachedIndex
from vcgen.errors import UserError
from vcgen.io import read_json
from vcgen.schema import Label

#: Scenes of which the images are compared.
SAMPLE = 8


def overlap(train: ShardIndex, val: ShardIndex | None) -> list[str]:
    """What is doubtful about training on one shard folder and validating on another; nothing for scenes held out of one
    folder.

    One capture that is parted by its views has one key in both, and other images.
    """
    texts = []
    if train.split == "test":
        texts.append(
            f"data.train {train.folder} is of split test: what is trained on cannot be tested on; give the training"
            " split"
        )
    if val is None:
        return texts
    known = {shard.sha256 for shard in train.shards}
    whole, total = sum(len(shard.samples) for shard in val.shards if shard.sha256 in known), len(val.samples)
    if count := whole or _equal_scenes(train, val):
        found = f"{count} of {total} scenes of data.val are in data.train with the same images"
        texts.append(f"{'' if whole else 'at least '}{found}: validation would measure memory")
    others = ~np.isin(val.scenes.column("key"), train.scenes.column("key"))
    variants = val.scenes.column("group")[others & np.isin(val.scenes.column("group"), train.scenes.column("group"))]
    if len(variants):
        found = f"{len(variants)} of {total} scenes of data.val are variants of objects in data.train"
        texts.append(f"{found}, of {variants[0].decode()} for one: validation would measure memory")
    return texts


def _equal_scenes(train: ShardIndex, val: ShardIndex) -> int:
    """How many of the first ``SAMPLE`` scenes of one key share an image; shards that lie elsewhere are not fetched for
    it.
    """
    if isinstance(train, CachedIndex) or isinstance(val, CachedIndex):
        return 0
    _, *places = np.intersect1d(train.scenes.column("key"), val.scenes.column("key"), return_indices=True)
    pairs = [(int(a), int(b)) for a, b in zip(*places, strict=True)][:SAMPLE]
    readable = [(a, b) for a, b in pairs if not fault_in(train, a) and not fault_in(val, b)]
    return sum(bool(set(train.read(a).images) & set(val.read(b).images)) for a, b in readable)


def read_families(*paths: Path) -> list[list[str]]:
    """Lists of objects (groups) that are near-copies of one another, from JSON files: a recolored model, the same
    model of another edition. Raises UserError for a file that is none, or names an object that was named before."""
    families: list[list[str]] = []
    named: dict[str, Path] = {}
    for path in paths:
        for family in read_json(path, list[list[Label]], "data.families takes a JSON list of lists of objects' names"):
            for name in family:
                if name in named:
                    also = "" if named[name] == path else f", first in {named[name]}"
                    raise UserError(f"{path}: {name} is named twice{also}; put all of its near-copies into one list")
                named[name] = path
            families += [family] if family else []
    return families
