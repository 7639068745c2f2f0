"""Reading and writing files: written whole or not at all, read within bounds. The one home of both for the package."""

import codecs
import errno
import fnmatch
import functools
import gzip
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from vcgen.errors import UserError, naming
from vcgen.terminal import one_line

T = TypeVar("T")
#: What file systems answer that cannot flush.
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)
#: The names that :func:`replacing` gives what it is writing.
TEMPORARY = re.compile(r"\.(?P<stem>.*)\.[0-9a-f]{16}\.partial(?P<suffix>(\.[^.]*)?)", re.DOTALL)
#: Nesting allowed in parts of a JSON file whose schema is open, such as a model's arguments.
MAX_DEPTH = 64
#: Values allowed at one depth of such parts.
MOST_VALUES = 10_000_000
#: Bytes allowed in a JSON file unless its reader says otherwise.
MAX_JSON = 64 << 20
#: Up to this length files are looked through for names that an object gives twice. Longer ones, and those that are read
#: for every scene, are not written by hand; of such names vcgen, as most readers, takes the last.
MAX_BY_HAND = 1 << 20


@contextmanager
def replacing(path: Path | str, flush: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` to write to; on success it becomes ``path``, on any error it is deleted.

    The temporary file is created here, exclusively and under an unguessable name: another user of a shared folder
    cannot plant a link for it, and two processes on different nodes never share it. It keeps the suffix of ``path``,
    because many writers choose the format by it. Missing parent folders are created. flush: reach the disk before the
    renaming, so that it survives a power cut."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        with naming(path, temporary):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
            yield temporary
            if flush:
                flush_to_disk(temporary)
            os.replace(temporary, path)
            if flush:
                flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def written_name(path: Path) -> str:
    """The name of the file that a temporary one was to become; that of any other file."""
    found = TEMPORARY.fullmatch(path.name)
    return found["stem"] + found["suffix"] if found else path.name


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove what killed processes were writing beside the files or folders ``name`` (a pattern, as *.ckpt) of a
    folder.

    Only for the one process that may write them: there is no other sign that a temporary file is not in use.
    """
    for path in folder.glob(".*.partial*"):
        if TEMPORARY.fullmatch(path.name) and fnmatch.fnmatchcase(written_name(path), name):
            (
                shutil.rmtree(path, ignore_errors=True)
                if path.is_dir() and not path.is_symlink()
                else path.unlink(missing_ok=True)
            )


def beside(path: Path) -> Path:
    """An unguessable name for a temporary file or folder beside ``path``; long names are cut, since names may have 255
    bytes.
    """
    stem = os.fsdecode(os.fsencode(path.stem)[:120])
    return path.with_name(f".{stem}.{secrets.token_hex(8)}.partial{path.suffix}")


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a small file whole or not at all. Raises UserError naming ``path`` when the place cannot be written."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose a writable place with free space"
        ) from error


def read_json(path: Path | str, schema: type[T], advice: str = "", limit: int = MAX_JSON) -> T:
    """The content of a JSON file, checked against ``schema``: a msgspec Struct, or any type that msgspec decodes.

    Raises UserError in one line for a file that is missing, no regular file, longer than ``limit`` bytes, not JSON, not
    of the schema (NaN, infinity, numbers out of range, other types), nested deeper than MAX_DEPTH, or with a name twice
    in one object. advice: what to do, the end of that line."""
    return parse_json(read_bytes(path, limit, advice), schema, str(path), advice)


def parse_json(data: bytes, schema: type[T], where: str, advice: str = "", by_hand: bool = True) -> T:
    """As :func:`read_json`, from bytes. where: what messages call them. by_hand: see MAX_BY_HAND."""
    data = data.removeprefix(codecs.BOM_UTF8)  # some editors on Windows begin with it
    try:
        content = msgspec.json.decode(data, type=schema)
        if by_hand and len(data) <= MAX_BY_HAND:
            json.loads(data, object_pairs_hook=_each_name_once, parse_int=len, parse_float=len)
        if _is_open(schema) and any(  # type: ignore[arg-type]  # types are hashable
            isinstance(item, int) and item.bit_length() > 64 for item in chain.from_iterable(levels(content))
        ):
            raise ValueError("holds a number of more than 64 bits")
    except RecursionError as error:
        raise UserError(one_line(f"{where}: nested deeper than {MAX_DEPTH} levels", advice)) from error
    except ValueError as error:  # of msgspec, the schema's own checks, or characters that are not UTF-8
        raise UserError(one_line(f"{where}: {error}", advice)) from error
    return content


def check(value: Any, schema: type[T], where: str, advice: str = "") -> T:
    """Plain data that was not read as JSON (a part of a checkpoint, a YAML file) as ``schema`` says; UserError as
    :func:`read_json`.
    """
    try:
        return msgspec.convert(value, schema)
    except (ValueError, RecursionError) as error:
        raise UserError(one_line(f"{where}: {error}", advice)) from error


def read_bytes(path: Path | str, limit: int, advice: str = "") -> bytes:
    """The bytes of a file, as :func:`open_regular` opens it."""
    with open_regular(path, limit, advice) as file:
        try:
            data = file.read(os.fstat(file.fileno()).st_size + 1)  # room is made for so many bytes before any is read
            while len(data) <= limit and (more := file.read(1 << 20)):  # it grew, or its size is not told, as in /proc
                data += more
        except OSError as error:
            raise UserError(one_line(f"{path}: cannot be read ({error.strerror})", advice)) from error
    if len(data) > limit:
        raise UserError(one_line(f"{path}: longer than {limit / 1e6:.0f} MB", advice))
    return data


def read_gzip(path: Path | str, limit: int, advice: str = "") -> bytes:
    """What a gzip file decompresses to. Raises UserError as :func:`open_regular`, for a damaged file, and where it is
    more than ``limit`` bytes, before they are held.
    """
    with open_regular(path, limit, advice) as file, gzip.GzipFile(fileobj=file) as unpacked:
        try:
            data = unpacked.read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(one_line(f"{path}: cannot be decompressed ({error})", advice)) from error
    if len(data) > limit:
        raise UserError(one_line(f"{path}: longer than {limit / 1e6:.0f} MB once decompressed", advice))
    return data


@contextmanager
def open_regular(path: Path | str, limit: int, advice: str = "") -> Iterator[BufferedReader]:
    """A file opened for reading bytes.

    Raises UserError when it is missing, something else (a folder, a pipe, a device), or longer than ``limit`` bytes.
    """
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  (returned open)
    except FileNotFoundError as error:
        raise UserError(one_line(f"{path} is missing", advice)) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UserError(
            one_line(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})", advice)
        ) from error
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UserError(one_line(f"{path}: not a regular file", advice))
        if found.st_size > limit:
            raise UserError(one_line(f"{path}: longer than {limit / 1e6:.0f} MB", advice))
        yield file


def open_lock(path: Path | str) -> BinaryIO:
    """A lock file, opened for reading and writing, created if need be, for fcntl.

    Raises UserError where something else stands in its place, such as a link that another user of a shared folder has
    planted."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        descriptor = None
    if descriptor is not None and stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "r+b")
    if descriptor is not None:
        os.close(descriptor)
    raise UserError(f"{path}: a link, or no file, stands where vcgen keeps a lock; remove it, or choose another place")


def flush_to_disk(path: Path) -> None:
    """Make a file's content, or the renamings in a folder, last through a power cut, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a named pipe must not wait for a writer


def _each_name_once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(
            f"the name {next(name for name in names if names.count(name) > 1)!r} is given twice in one object"
        )


@functools.cache
def _is_open(schema: Any) -> bool:
    """Whether any part may hold anything, to any depth; what the other parts hold is as deep as they say."""
    return "AnyType()" in repr(msgspec.inspect.type_info(schema))


def levels(value: Any, most: int = MOST_VALUES) -> Iterator[list[Any]]:
    """The values of nested plain data, depth by depth. Raises ValueError beyond MAX_DEPTH depths, or ``most`` values at
    one.

    In data that is not read from JSON, as in a checkpoint, a container may hold itself, or one stand in many places.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        yield level
        level = list(islice(chain.from_iterable(map(_items, level)), most + 1))
        if not level:
            return
        if len(level) > most:
            raise ValueError(f"more than {most} values at one depth")
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    return value if isinstance(value, (list, tuple)) else []


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
