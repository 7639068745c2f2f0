"""Where the scenes of a shard folder lie, in one NumPy array: a million of them in some hundred megabytes, found in
constant time.

Loader processes are forks that share their parent's memory until it is written to, and looking at a Python object
writes to it (its reference count). A list of a million entries would so be copied, page by page, into every loader
process over an epoch; an array is not."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, overload

import numpy as np
from msgspec import Meta, Struct

from vcgen.schema import Key, Label

#: Tar files consist of blocks.
BLOCK = 512


class SampleEntry(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Where a scene lies: byte range [offset, offset + size) of its shard, its number of views, its statistical
    group.
    """

    key: Key
    offset: Annotated[int, Meta(ge=0, le=1 << 50, multiple_of=BLOCK)]
    size: Annotated[int, Meta(gt=0, le=1 << 40, multiple_of=BLOCK)]
    views: Annotated[int, Meta(ge=2, le=100_000)]
    group: Label


class SceneTable(Sequence[SampleEntry]):
    """Read-only sequence of entries. rows: structured array with the fields of :class:`SampleEntry`, text as UTF-8
    bytes.
    """

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    @staticmethod
    def of(entries: Iterable[SampleEntry]) -> "SceneTable":
        """Pack entries, as wide as the longest key and group need."""
        entries = list(entries)
        key, group = (
            max((len(getattr(entry, name).encode()) for entry in entries), default=1) or 1 for name in ("key", "group")
        )
        rows = ((e.key.encode(), e.offset, e.size, e.views, e.group.encode()) for e in entries)
        kinds = [("key", f"S{key}"), ("offset", "i8"), ("size", "i8"), ("views", "i4"), ("group", f"S{group}")]
        return SceneTable(np.fromiter(rows, kinds, len(entries)))

    @staticmethod
    def join(tables: Sequence["SceneTable"]) -> "SceneTable":
        """One after the other."""
        return SceneTable(np.concatenate([table.rows for table in tables])) if tables else SceneTable.of([])

    def column(self, name: str) -> np.ndarray:
        """All values of a field; a view, not a copy."""
        return self.rows[name]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, number: int) -> SampleEntry: ...

    @overload
    def __getitem__(self, number: slice) -> "SceneTable": ...

    def __getitem__(self, number: int | slice) -> "SampleEntry | SceneTable":
        if isinstance(number, slice):
            return SceneTable(self.rows[number])
        return _entry(self.rows[number].item())

    def __iter__(self) -> Iterator[SampleEntry]:
        for start in range(0, len(self), 4096):
            yield from map(_entry, self.rows[start : start + 4096].tolist())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )


def _entry(row: tuple[bytes, int, int, int, bytes]) -> SampleEntry:
    key, offset, size, views, group = row
    return SampleEntry(key.decode(), offset, size, views, group.decode())
