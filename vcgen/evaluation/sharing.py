"""How an evaluation is shared among processes: each scores its shard of the objects (not to be confused with the data's
tar files), and ``--merge`` writes the report when all are done. Only records are written in parallel, each object's by
one process and atomically."""

import json
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from vcgen.data.shards.files import ShardIndex
from vcgen.errors import UserError
from vcgen.evaluation.records import ObjectScore, RecordFolder
from vcgen.folders import create_folder
from vcgen.io import read_json, write_bytes
from vcgen.terminal import first_few

#: In the results' folder: into how many shards the objects were split.
FILE = "shards.json"


class Shards(Struct, forbid_unknown_fields=True):
    """What that file holds."""

    shards: Annotated[int, Meta(ge=1, le=1_000_000)]


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` -> (2, 8); UserError unless 0 <= 2 < 8."""
    first, slash, count = text.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        raise UserError(f"--shard {text}: must be i/n with i from 0 to n - 1, such as 0/4")
    return int(first), int(count)


def objects_of(index: ShardIndex, shard: tuple[int, int] = (0, 1)) -> list[tuple[str, int]]:
    """The objects of shard (i, n), every n-th from the i-th on: by key, with their numbers in the index."""
    samples = sorted((entry.key, number) for number, (_, entry) in enumerate(index.samples))
    return [sample for position, sample in enumerate(samples) if position % shard[1] == shard[0]]


def note_count(out: Path, shards: int) -> None:
    """Remember the number of shards, for :func:`merged` to say which one is missing. All processes write the same."""
    create_folder(out)
    write_bytes(out / FILE, (json.dumps({"shards": shards}) + "\n").encode())


def merged(out: Path, records: RecordFolder, keys: list[str], dealt: list[str]) -> list[ObjectScore]:
    """The scores of the objects ``keys``. Raises UserError, with what to run again, if some are missing.

    dealt: all objects in the order of ``objects_of``, those too that are left out: their places say whose shard an
        object is in.
    """
    scores = [records.read(key) for key in keys]
    missing = [dealt.index(key) for key, score in zip(keys, scores, strict=True) if score is None]
    if missing:
        shown = first_few([dealt[position] for position in missing], 3)
        found = f"{out}: {len(missing)} of {len(keys)} objects are not scored yet ({shown})"
        raise UserError(f"{found}; run {remedy(out, missing)}, then --merge")
    return [score for score in scores if score is not None]


def remedy(out: Path, missing: list[int]) -> str:
    """The shards to run again, such as "--shard 1/4 and 3/4"."""
    try:
        count = read_json(out / FILE, Shards).shards
    except UserError:
        return "the evaluation, whole or with --shard i/n"
    names = [f"{shard}/{count}" for shard in sorted({position % count for position in missing})]
    return "--shard " + " and ".join([*filter(None, [", ".join(names[:-1])]), names[-1]])
