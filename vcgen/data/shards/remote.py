"""Shards that lie elsewhere: behind a command (``pipe:``) or a URL, kept in a cache on the node that many processes
share.

A scene is read by its place in a file, so whole shards are fetched. The cache is bounded, and a data set that it cannot
hold whole is refused at the start. Room is made where several data sets compete for it, or one has been packed anew:
the least recently used shard goes first, never one that is being read. One lock file per shard orders the processes:
readers share it, whoever downloads or removes the shard has it alone."""

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vcgen.data.shards.files import INDEX, ShardEntry, ShardIndex, read_index, read_sample
from vcgen.data.shards.index_file import MAX_BYTES
from vcgen.data.shards.record import SceneRecord
from vcgen.data.shards.table import SampleEntry
from vcgen.errors import UserError
from vcgen.folders import create_folder, create_own_folder
from vcgen.io import file_sha256, open_lock, remove_leftovers, replacing, written_name
from vcgen.redaction import identity, is_hidden, remember_address

BLOCK = 1 << 20
#: Names of the folders that :class:`Cache` makes.
FOLDER = re.compile(r"[0-9a-f]{16}")


def is_remote(source: str) -> bool:
    """Whether ``data.train`` or ``data.val`` names a command or URL instead of a folder."""
    return source.startswith("pipe:") or "://" in source


def open_remote(source: str, name: str) -> IO[bytes]:
    """A file of a remote shard folder, to be read from front to back.

    source: "pipe:" and a shell command with {} for the file's name, run by WebDataset's gopen; or a URL, to which the
    name is appended (or put in place of {}), opened by fsspec.
    """
    if source.startswith("pipe:"):
        from webdataset.gopen import gopen

        return gopen(source.replace("{}", shlex.quote(name)))
    import fsspec

    return fsspec.open(source.replace("{}", name) if "{}" in source else f"{source.rstrip('/')}/{name}", "rb").open()


@dataclass(frozen=True)
class Cache:
    """A folder on this node for shards from elsewhere. limit: bytes that all shards in it may take together."""

    folder: Path
    limit: int

    def index(self, source: str) -> "CachedIndex":
        """Fetch the table of contents of a remote shard folder; shards are fetched when they are read. Raises UserError
        where that fails, and where the cache cannot hold them all.
        """
        if is_hidden(source):
            raise UserError(
                f"{source}: passwords are not stored in config.yaml; give the whole address, best as ${{oc.env:NAME}}"
            )
        remember_address(source)
        if source.startswith("pipe:") and "{}" not in source:
            raise UserError(
                f"{source}: a command needs {{}} where the file's name belongs, such as pipe:cat /data/{{}}"
            )
        folder = self.folder / hashlib.sha256(identity(source).encode()).hexdigest()[:16]
        create_folder(self.folder)
        create_own_folder(self.folder.resolve())  # it may be the user's own link
        create_own_folder(folder)
        with _locked(folder / f"{INDEX}.lock", fcntl.LOCK_EX):
            remove_leftovers(folder, INDEX)
            with replacing(folder / INDEX) as temporary:
                _download(source, INDEX, temporary, MAX_BYTES)
        index = read_index(folder, check=False)
        described = index.image_size, index.source, index.split, index.licence, index.shards
        found = CachedIndex(folder, *described, self, source)
        self.refuse_too_small([found])
        return found

    def refuse_too_small(self, indices: list["CachedIndex"]) -> None:
        """Raise UserError unless the cache can hold these data sets: scenes are shuffled over all shards, and where a
        cache holds a part of them almost every scene would be another download."""
        # Those of which scenes are held out occur in two of them.
        total = sum({(index.folder, shard.name): shard.bytes for index in indices for shard in index.shards}.values())
        if total > self.limit:
            found = f"the data has {total / 1e9:.3g} GB, data.cache_gb is {self.limit / 1e9:.3g}"
            raise UserError(
                f"{found}, and the cache must hold all of it; raise it, or read from a shared folder without a cache"
            )

    def read(self, source: str, folder: Path, shard: ShardEntry, sample: SampleEntry) -> SceneRecord:
        """A scene, from the cache; its shard is downloaded when it is not there, and once more when the copy there is
        damaged.
        """
        attempt = 0
        while True:
            attempt += 1
            with _locked(folder / f"{shard.name}.lock", fcntl.LOCK_SH):
                try:
                    os.utime(folder / shard.name, follow_symlinks=False)  # the time of last use
                    if (folder / shard.name).is_symlink():
                        raise UserError(f"{folder / shard.name}: a link, which vcgen does not put there")
                    return read_sample(folder, shard.name, sample.offset, sample.size)
                except (OSError, UserError) as error:
                    # A good copy of a damaged shard: fetching it again would not help.
                    if attempt == 3 or (attempt == 2 and _is_whole(folder / shard.name, shard)):
                        raise UserError(f"{source}: {error}") from error
            self.fetch(source, folder, shard)

    def fetch(self, source: str, folder: Path, shard: ShardEntry) -> None:
        """Download a shard unless a whole copy is there by now: other processes may have been waiting for the same
        one.
        """
        with _locked(folder / f"{shard.name}.lock", fcntl.LOCK_EX):
            if not _is_whole(folder / shard.name, shard):
                (folder / shard.name).unlink(missing_ok=True)
                remove_leftovers(folder, shard.name)
                with replacing(folder / shard.name) as temporary:
                    self._make_room(shard, temporary)
                    _download(source, shard.name, temporary, shard.bytes)
                    if not _is_whole(temporary, shard):
                        found = f"arrived with {_size(temporary)} bytes that are not those of {INDEX}"
                        raise UserError(f"{source}: {shard.name} {found}; copy or pack it again there")

    def _make_room(self, shard: ShardEntry, temporary: Path) -> None:
        """Reserve a shard's bytes: remove least recently used shards that nobody reads until they fit."""
        with _locked(self.folder / "lock", fcntl.LOCK_EX):
            kept = sorted(filter(_is_cached, self.folder.glob("*/*")), key=_last_use)
            excess = sum(_size(path) for path in kept) + shard.bytes - self.limit
            for path in kept:
                if excess <= 0:
                    break
                excess -= _remove_unused(path)
            if excess > 0:
                found = f"no room for {shard.name} ({shard.bytes / 1e9:.2f} GB) beside what is being read"
                raise UserError(f"{self.folder}: {found}; raise data.cache_gb, or give another data.cache")
            # counts for those who make room from now on
            os.truncate(temporary, shard.bytes)


def _download(source: str, name: str, temporary: Path, limit: int) -> None:
    """Fetch a file, or what it has up to a block beyond ``limit`` bytes."""
    try:
        with open_remote(source, name) as stream, open(temporary, "r+b") as file:  # what is reserved stays reserved
            while file.tell() <= limit and (block := stream.read(BLOCK)):
                file.write(block)
            file.truncate()
    except Exception as error:  # every protocol fails in its own way
        reason = " ".join(str(error).split()) or type(error).__name__
        # without its cause, whose text may repeat the address
        raise UserError(f"{source}: {name} cannot be fetched ({reason}); check the address and the network") from None


@dataclass(frozen=True)
class CachedIndex(ShardIndex):
    """The index of a remote shard folder. cache, remote: what its scenes are read through, and from where."""

    cache: Cache
    remote: str

    def read(self, number: int) -> SceneRecord:
        """The scene at a position of ``samples``."""
        return self.agreeing(
            self.cache.read(self.remote, self.folder, self.shard_of(number), self.scenes[number]), self.scenes[number]
        )

    def fault_of(self, shard: ShardEntry) -> str | None:
        """Nothing is known of a shard before it is fetched."""
        return None


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with open_lock(path) as file:
        fcntl.flock(file, kind)
        yield


def _is_cached(path: Path) -> bool:
    """Whether a file below the cache is a shard, or what was arriving of one: what else lies there is none of the
    cache's business.
    """
    if (
        not FOLDER.fullmatch(path.parent.name)
        or path.parent.is_symlink()
        or not (path.parent / f"{INDEX}.lock").is_file()
    ):
        return False
    return (
        path.suffix != ".lock" and not written_name(path).startswith(INDEX) and path.is_file() and not path.is_symlink()
    )


def _remove_unused(path: Path) -> int:
    """Remove a shard, or what an interrupted download left, unless someone holds its lock; returns the bytes that
    became free.
    """
    with open_lock(path.with_name(f"{written_name(path)}.lock")) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        size = _size(path)
        path.unlink(missing_ok=True)
        return size


def _is_whole(path: Path, shard: ShardEntry) -> bool:
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == shard.bytes
        and file_sha256(path) == shard.sha256
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has just got its name, or was just removed, by another process
        return 0


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
