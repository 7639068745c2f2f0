"""What ``index.json`` may hold: every entry in its range, no scene twice, no two scenes in the same bytes."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Raw, Struct

from vcgen.data.shards.table import SampleEntry, SceneTable
from vcgen.errors import UserError
from vcgen.io import parse_json
from vcgen.schema import Name, Sha256, Side, Text
from vcgen.terminal import one_line

#: Ten million scenes.
MAX_BYTES = 1 << 31
ADVICE = "not a valid shard index: copy it again, or pack the data again"
#: A name that can go into a command or a path, as names from elsewhere do, and is none that vcgen gives to other files
#: there.
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.tar\Z")]
Length = Annotated[int, Meta(ge=0, le=1 << 50)]


class ShardFile(Struct, forbid_unknown_fields=True):
    """One tar file. samples: JSON of its scenes, a list of :class:`SampleEntry`, in the order in which they lie in the
    file.
    """

    name: FileName
    bytes: Length
    sha256: Sha256
    samples: Raw


class IndexFile(Struct, forbid_unknown_fields=True):
    """The whole file. image_size: (height, width) in pixels."""

    version: Literal[1]
    image_size: tuple[Side, Side]
    source: Text
    split: Name
    licence: Text
    shards: list[ShardFile]


def parse_index(data: bytes, where: str) -> tuple[IndexFile, list[SceneTable]]:
    """The content of ``index.json``, and the table of each shard's scenes. Raises UserError for anything that packing
    does not write.

    Objects exist for one shard's scenes at a time: those of a million would take a quarter of a gigabyte, for a moment.
    """
    file = parse_json(data, IndexFile, where, ADVICE)
    tables, keys = [], []
    for shard in file.shards:
        entries = parse_json(
            bytes(shard.samples), list[SampleEntry], f"{where}, samples of {shard.name}", ADVICE, by_hand=False
        )
        tables.append(SceneTable.of(entries))
        keys.append(np.fromiter((hash(entry.key) for entry in entries), np.int64, len(entries)))
        if overlapping(tables[-1]):
            raise UserError(
                one_line(f"{where}: two scenes of {shard.name} lie in the same bytes, or in another order", ADVICE)
            )
    refuse_equal([shard.name for shard in file.shards], where, "shard")
    hashes = np.sort(np.concatenate(keys)) if keys else np.empty(0, np.int64)
    if (hashes[1:] == hashes[:-1]).any():
        refuse_equal([key.decode() for table in tables for key in table.column("key").tolist()], where, "scene")
    return file, tables


def overlapping(table: SceneTable) -> bool:
    """Whether a scene begins before the one before it ends."""
    offsets, sizes = table.column("offset"), table.column("size")
    return bool((offsets[1:] < offsets[:-1] + sizes[:-1]).any())


def refuse_equal(names: Sequence[str], where: str, what: str) -> None:
    """Raise UserError where a name occurs twice."""
    if len(set(names)) != len(names):
        raise UserError(one_line(f"{where}: lists the {what} {Counter(names).most_common(1)[0][0]!r} twice", ADVICE))
