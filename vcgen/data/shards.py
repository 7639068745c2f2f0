"""Shard folders: plain tar files of scenes (WebDataset layout) plus ``index.json``, so that one seek and one read fetch any scene.

Members of a scene are adjacent: ``KEY.cameras.json``, ``KEY.000.png``, ``KEY.001.png``, ... The bytes depend on the records alone.
"""

import hashlib
import io
import itertools
import json
import os
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from webdataset.tariterators import tar_file_iterator

from vcgen.data.record import VERSION, SceneRecord
from vcgen.errors import UserError

INDEX = "index.json"


@dataclass(frozen=True)
class SampleEntry:
    """Where a scene lies: byte range [offset, offset + size) of its shard, its number of views, its statistical group."""

    key: str
    offset: int
    size: int
    views: int
    group: str


@dataclass(frozen=True)
class ShardEntry:
    """One tar file of a shard folder, its length in bytes, its checksum and its scenes in order."""

    name: str
    bytes: int
    sha256: str
    samples: tuple[SampleEntry, ...]


@dataclass(frozen=True)
class ShardIndex:
    """The table of contents of a shard folder. image_size: (height, width) in pixels of every picture."""

    folder: Path
    image_size: tuple[int, int]
    source: str
    split: str
    licence: str
    shards: tuple[ShardEntry, ...]

    @property
    def samples(self) -> list[tuple[str, SampleEntry]]:
        """(shard name, entry) of every scene, in stored order."""
        return [(shard.name, sample) for shard in self.shards for sample in shard.samples]

    def read(self, number: int) -> SceneRecord:
        """The scene at a position of :attr:`samples`."""
        name, sample = self.samples[number]
        return read_sample(self.folder, name, sample.offset, sample.size)

    def hold_out(self, count: int) -> tuple["ShardIndex", "ShardIndex"]:
        """Split by object: (the scenes that stay, those of ``count`` groups evenly spaced among all). Variants of an object stay together.

        Raises UserError unless 0 < count < number of groups.
        """
        groups = list(dict.fromkeys(sample.group for _, sample in self.samples))
        if not 0 < count < len(groups):
            raise UserError(f"{self.folder}: {count} of {len(groups)} objects cannot be held out; give 1 to {len(groups) - 1}")
        held = {groups[(2 * i + 1) * len(groups) // (2 * count)] for i in range(count)}

        def keep(inside: bool) -> "ShardIndex":
            shards = (replace(h, samples=tuple(s for s in h.samples if (s.group in held) == inside)) for h in self.shards)
            return replace(self, shards=tuple(shard for shard in shards if shard.samples))

        return keep(False), keep(True)

    def verify_checksums(self) -> None:
        """Read every shard and raise UserError where its SHA-256 is not the one in the index."""
        for shard in self.shards:
            if file_sha256(self.folder / shard.name) != shard.sha256:
                raise UserError(f"{self.folder / shard.name}: checksum differs from index.json; the file is damaged, copy or pack it again")


def write_shards(
    records: Iterable[SceneRecord],
    folder: Path | str,
    image_size: tuple[int, int],
    samples_per_shard: int = 64,
    source: str = "",
    split: str = "",
    licence: str = "",
) -> ShardIndex:
    """Validate and write ``records`` as a new shard folder, all or nothing: it appears under its name only when complete.

    Raises UserError if the folder exists and is not empty, no record comes, two keys are equal, or a record is not of ``image_size``.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already and is not an empty folder; choose another or remove it")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    create_folder(partial)
    try:
        iterator, shards = iter(records), []
        while batch := list(itertools.islice(iterator, samples_per_shard)):
            shards.append(write_shard(batch, partial / f"{len(shards):06d}.tar", image_size))
        write_index(ShardIndex(partial, tuple(image_size), source, split, licence, tuple(shards)))
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_index(folder)


def write_shard(records: Iterable[SceneRecord], path: Path, image_size: tuple[int, int]) -> ShardEntry:
    """Write one tar file atomically; its bytes are a function of the records. Raises UserError for an invalid record."""
    samples, temporary = [], path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for record in records:
                record = record.validate().with_group_default()
                if tuple(record.size) != tuple(image_size):
                    raise UserError(f"scene {record.key}: images are {record.size}, the shards hold {tuple(image_size)}; give one --size")
                offset = tar.offset
                _add(tar, f"{record.key}.cameras.json", json.dumps(record.cameras_json(), allow_nan=False).encode())
                for number, image in enumerate(record.images):
                    _add(tar, f"{record.key}.{number:03d}.png", image)
                samples.append(SampleEntry(record.key, offset, tar.offset - offset, len(record.images), record.group))
        entry = ShardEntry(path.name, temporary.stat().st_size, file_sha256(temporary), tuple(samples))
        os.replace(temporary, path)
        return entry
    finally:
        temporary.unlink(missing_ok=True)


def write_index(index: ShardIndex) -> None:
    """Write ``index.json`` into its folder, atomically. Raises UserError if it lists no scene or a key twice."""
    keys = [sample.key for _, sample in index.samples]
    if not keys:
        raise UserError(f"{index.folder}: no scene to write")
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"{index.folder}: the scene key {twice!r} occurs more than once")
    content = {"version": VERSION, **asdict(index)}
    del content["folder"]
    write_atomically(index.folder / INDEX, (json.dumps(content, indent=1) + "\n").encode())


def read_index(folder: Path | str) -> ShardIndex:
    """Read ``index.json`` and check that every shard is there at its full length; raises UserError otherwise."""
    folder = Path(folder)
    path = folder / INDEX
    if not path.is_file():
        raise UserError(f"{folder}: no {INDEX} here; give a folder made by `vcgen data pack` (which may lie one level deeper)")
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            raise UserError(f"{path}: version {content['version']}, this vcgen reads version {VERSION}; pack the data again")
        shards = tuple(shard_entry(shard) for shard in content["shards"])
        height, width = (int(x) for x in content["image_size"])
        index = ShardIndex(folder, (height, width), content["source"], content["split"], content["licence"], shards)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a valid shard index ({type(error).__name__}: {error}); pack the data again") from error
    for shard in index.shards:
        _check_shard(folder / shard.name, shard)
    if not index.samples:
        raise UserError(f"{path}: lists no scene; pack the data again")
    return index


def shard_entry(content: dict) -> ShardEntry:
    """The inverse of ``dataclasses.asdict`` after a trip through JSON."""
    return ShardEntry(
        str(content["name"]), int(content["bytes"]), str(content["sha256"]), tuple(SampleEntry(**s) for s in content["samples"])
    )


def read_sample(folder: Path | str, shard_name: str, offset: int, size: int) -> SceneRecord:
    """Fetch and validate one scene with one seek and one read. Raises UserError naming the shard (and the key, once known)."""
    path = Path(folder) / shard_name
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) != size or not size:
        raise UserError(f"{path}: truncated: wanted {size} bytes at {offset}, got {len(data)}; copy or pack it again")
    try:
        return _parse(data)
    except (UserError, tarfile.TarError, TypeError, ValueError) as error:
        raise UserError(f"{path}, scene at byte {offset}: {error}; copy or pack it again") from error


def _parse(data: bytes) -> SceneRecord:
    """The bytes of a scene's tar members -> its record; raises UserError, TarError, TypeError or ValueError."""
    members = {member["fname"]: member["data"] for member in tar_file_iterator(io.BytesIO(data))}
    names = list(members)
    key = names[0].split(".", 1)[0] if names else ""
    expected = [f"{key}.cameras.json", *(f"{key}.{number:03d}.png" for number in range(len(names) - 1))]
    if names != expected:
        raise UserError(f"damaged: scene {key!r} should hold cameras.json and numbered PNGs, found {', '.join(names[:3]) or 'nothing'}")
    cameras = json.loads(members[names[0]])
    return SceneRecord.from_cameras_json(key, cameras, [members[name] for name in names[1:]]).validate()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a member whose header holds nothing that varies between runs (time 0, user 0, mode 0644)."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


def _check_shard(path: Path, shard: ShardEntry) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing, but listed in {INDEX}; copy or pack the folder again")
    if path.stat().st_size != shard.bytes:
        raise UserError(f"{path}: {path.stat().st_size} bytes, {INDEX} says {shard.bytes}; the copy is incomplete, make it again")
    if not shard.samples or any(s.offset + s.size > shard.bytes for s in shard.samples):
        raise UserError(f"{path}: {INDEX} lists no scene, or scenes beyond its end; pack the folder again")


def create_folder(folder: Path) -> None:
    """Make a folder and its parents; a UserError says why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot create this folder ({error.strerror}); choose a writable place") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in its folder, then rename it: readers see the old or the new, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
