"""Shard folders: plain tar files of scenes (WebDataset layout) plus ``index.json``, so that one seek and one read fetch
any scene.

Members of a scene are adjacent. The bytes depend on the records alone."""

import itertools
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from vcgen.data.shards.index_file import MAX_BYTES, FileName, Length, parse_index
from vcgen.data.shards.record import VERSION, SceneRecord
from vcgen.data.shards.table import SampleEntry, SceneTable
from vcgen.data.shards.tar import add_member, members_of, read_members, record_of
from vcgen.errors import UserError
from vcgen.folders import create_folder, replacing_folder
from vcgen.io import file_sha256, read_bytes, replacing, write_bytes
from vcgen.schema import Sha256
from vcgen.terminal import one_line

INDEX = "index.json"


@dataclass(frozen=True)
class ShardEntry:
    """One tar file of a shard folder, its length in bytes, its checksum and its scenes in order."""

    name: FileName
    bytes: Length
    sha256: Sha256
    samples: Sequence[SampleEntry]


@dataclass(frozen=True)
class ShardIndex:
    """The table of contents of a shard folder. image_size: (height, width) in pixels of every image."""

    folder: Path
    image_size: tuple[int, int]
    source: str
    split: str
    licence: str
    shards: tuple[ShardEntry, ...]
    scenes: SceneTable = field(init=False, repr=False, compare=False)
    _ends: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # One table, of which each shard's samples are a slice: loader processes touch no other object per scene.
        tables = [
            shard.samples if isinstance(shard.samples, SceneTable) else SceneTable.of(shard.samples)
            for shard in self.shards
        ]
        ends = np.cumsum([len(table) for table in tables], dtype=np.int64)
        scenes = SceneTable.join(tables)
        slices = (scenes[end - len(table) : end] for table, end in zip(tables, ends, strict=True))
        shards = tuple(replace(shard, samples=samples) for shard, samples in zip(self.shards, slices, strict=True))
        for name, value in (("shards", shards), ("scenes", scenes), ("_ends", ends)):
            object.__setattr__(self, name, value)

    @property
    def samples(self) -> "Samples":
        """(shard name, entry) of every scene, in stored order: a sequence, in constant time. ``scenes`` has the entries
        alone.
        """
        return Samples(self)

    @property
    def groups(self) -> list[bytes]:
        """The statistical groups, each once, in stored order."""
        return list(dict.fromkeys(self.scenes.column("group").tolist()))

    def shard_of(self, number: int) -> ShardEntry:
        """The shard that holds the scene at a position of :attr:`samples`."""
        return self.shards[int(np.searchsorted(self._ends, number, side="right"))]

    def fault_of(self, shard: ShardEntry) -> str | None:
        """What is wrong with a shard's file, as far as its length tells, or with its entry; None if nothing is."""
        path, scenes = self.folder / shard.name, cast(SceneTable, shard.samples)
        if not path.is_file():
            return f"{path}: missing, but listed in {INDEX}; copy or pack the folder again"
        if path.stat().st_size != shard.bytes:
            return (
                f"{path}: {path.stat().st_size} bytes, {INDEX} says {shard.bytes}; the copy is incomplete, make it"
                " again"
            )
        if not scenes or (scenes.column("offset") + scenes.column("size")).max() > shard.bytes:
            return f"{path}: {INDEX} lists no scene, or scenes beyond its end; pack the folder again"
        return None

    def read(self, number: int) -> SceneRecord:
        """The scene at a position of :attr:`samples`."""
        name, sample = self.samples[number]
        return self.agreeing(read_sample(self.folder, name, sample.offset, sample.size), sample)

    def agreeing(self, record: SceneRecord, entry: SampleEntry) -> SceneRecord:
        """The record, if it is of the scene that the index lists there; else UserError."""
        found = {"key": record.key, "views": len(record.views), "group": record.group, "image_size": record.size}
        stated = {"key": entry.key, "views": entry.views, "group": entry.group, "image_size": self.image_size}
        if self.split and record.split:
            found["split"], stated["split"] = record.split, self.split
        if differing := [name for name in found if found[name] != stated[name]]:
            what = ", ".join(f"{name} {stated[name]}, the scene {found[name]}" for name in differing)
            raise UserError(
                one_line(
                    f"{self.folder}: {INDEX} lists {what}", "they do not belong together: copy or pack the folder again"
                )
            )
        return record

    def hold_out(self, count: int, families: Sequence[Sequence[str]] = ()) -> tuple["ShardIndex", "ShardIndex"]:
        """Split by object: (the scenes that stay, those of ``count`` objects). Variants of an object (a group) stay
        together, and so do the groups of one of the ``families``: near-copies of one another, which count as one.

        They are evenly spaced among the objects without near-copies, or where those are too few among all. Raises
        UserError unless 0 < count < number of all.
        """
        family = leaders(families)
        sizes = Counter(family.get(group, group) for group in self.groups)
        if not 0 < count < len(sizes):
            what = "families of objects" if families else "objects"
            raise UserError(
                f"{self.folder}: {count} of {len(sizes)} {what} cannot be held out; give 1 to {len(sizes) - 1}"
            )
        names = [name for name, size in sizes.items() if size == 1]
        names = names if count <= len(names) else list(sizes)
        chosen = {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
        held = [group for group in self.groups if family.get(group, group) in chosen]
        return self.only(held, False), self.only(held)

    def only(self, groups: Sequence[bytes], inside: bool = True) -> "ShardIndex":
        """The scenes of these groups, or all others."""
        parts = [
            SceneTable(t.rows[np.isin(t.column("group"), np.array(groups, bytes)) == inside])
            for t in (cast(SceneTable, shard.samples) for shard in self.shards)
        ]
        shards = (replace(shard, samples=part) for shard, part in zip(self.shards, parts, strict=True))
        return replace(self, shards=tuple(shard for shard in shards if shard.samples))

    def verify_checksums(self) -> None:
        """Read every shard and raise UserError where its SHA-256 is not the one in the index."""
        for shard in self.shards:
            if file_sha256(self.folder / shard.name) != shard.sha256:
                raise UserError(
                    f"{self.folder / shard.name}: checksum differs from index.json; the file is damaged, copy or pack"
                    " it again"
                )


class Samples(Sequence[tuple[str, SampleEntry]]):
    """See :attr:`ShardIndex.samples`."""

    def __init__(self, index: ShardIndex):
        self._of = index

    def __len__(self) -> int:
        return len(self._of.scenes)

    def __getitem__(self, number: int) -> tuple[str, SampleEntry]:  # type: ignore[override]  # slices: take those of `scenes`
        number = range(len(self))[number]
        return self._of.shard_of(number).name, self._of.scenes[number]

    def __iter__(self) -> Iterator[tuple[str, SampleEntry]]:
        return ((shard.name, sample) for shard in self._of.shards for sample in shard.samples)


def write_shards(
    records: Iterable[SceneRecord],
    folder: Path | str,
    image_size: tuple[int, int],
    samples_per_shard: int = 64,
    source: str = "",
    split: str = "",
    licence: str = "",
) -> ShardIndex:
    """Validate and write ``records`` as a new shard folder, all or nothing: it appears under its name only when
    complete.

    Raises UserError if the folder exists and is not empty, no record comes, two keys are equal, or a record is not of
    ``image_size``."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already and is not an empty folder; choose another or remove it")
    create_folder(folder.parent)
    with replacing_folder(folder) as partial:
        iterator, shards = iter(records), list[ShardEntry]()
        while batch := list(itertools.islice(iterator, samples_per_shard)):
            shards.append(write_shard(batch, partial / f"{len(shards):06d}.tar", image_size))
        write_index(ShardIndex(partial, image_size, source, split, licence, tuple(shards)))
    return read_index(folder)


def write_shard(records: Iterable[SceneRecord], path: Path, image_size: tuple[int, int]) -> ShardEntry:
    """Write one tar file atomically; its bytes are a function of the records. Raises UserError for an invalid
    record.
    """
    samples = []
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for record in (record.validate().with_group_default() for record in records):
                if tuple(record.size) != tuple(image_size):
                    raise UserError(
                        f"scene {record.key}: images are {record.size}, the shards hold {tuple(image_size)}; give one"
                        " --size"
                    )
                offset = tar.offset
                for name, data in members_of(record):
                    add_member(tar, name, data)
                samples.append(SampleEntry(record.key, offset, tar.offset - offset, len(record.images), record.group))
        return ShardEntry(path.name, temporary.stat().st_size, file_sha256(temporary), tuple(samples))


def write_index(index: ShardIndex) -> None:
    """Write ``index.json`` into its folder, atomically. Raises UserError if it lists no scene or a key twice."""
    keys = [sample.key for _, sample in index.samples]
    if not keys:
        raise UserError(f"{index.folder}: no scene to write")
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"{index.folder}: the scene key {twice!r} occurs more than once")
    shards = [
        {**vars(shard), "samples": [structs.asdict(sample) for sample in shard.samples]} for shard in index.shards
    ]
    content = {
        "version": VERSION,
        "image_size": index.image_size,
        "source": index.source,
        "split": index.split,
        "licence": index.licence,
    }
    content["shards"] = shards
    write_bytes(index.folder / INDEX, (json.dumps(content, indent=1) + "\n").encode())


def read_index(folder: Path | str, check: bool = True) -> ShardIndex:
    """Read ``index.json``; with ``check``, every shard must be there at its full length. Raises UserError otherwise."""
    folder = Path(folder)
    path = folder / INDEX
    if not path.is_file():
        raise UserError(
            f"{folder}: no {INDEX} here; give a folder made by `vcgen data pack`, `data render` or `data synthesize`"
            " (which may lie one level deeper)"
        )
    file, tables = parse_index(read_bytes(path, MAX_BYTES), str(path))
    shards = (
        ShardEntry(shard.name, shard.bytes, shard.sha256, table)
        for shard, table in zip(file.shards, tables, strict=True)
    )
    index = ShardIndex(folder, file.image_size, file.source, file.split, file.licence, tuple(shards))
    if not index.samples:
        raise UserError(f"{path}: lists no scene; pack the data again")
    for fault in map(index.fault_of, index.shards if check else ()):
        if fault:
            raise UserError(fault)
    return index


def read_sample(folder: Path | str, shard_name: str, offset: int, size: int) -> SceneRecord:
    """Fetch and validate one scene with one seek and one read. Raises UserError naming the shard (and the key, once
    known).
    """
    path = Path(folder) / shard_name
    try:
        with open(path, "rb") as file:
            there = os.fstat(file.fileno()).st_size - offset
            file.seek(offset)
            data = file.read(max(0, min(size, there)))  # room is made for as many bytes as are asked for
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) != size or not size:
        raise UserError(f"{path}: truncated: wanted {size} bytes at {offset}, got {len(data)}; copy or pack it again")
    try:
        return record_of(read_members(data))
    except (UserError, tarfile.TarError, TypeError, ValueError) as error:
        raise UserError(one_line(f"{path}, scene at byte {offset}: {error}", "copy or pack it again")) from error


def leaders(families: Sequence[Sequence[str]]) -> dict[bytes, bytes]:
    """The object that stands for a family, for each object of it, by their groups."""
    return {group.encode(): members[0].encode() for members in families for group in members}
