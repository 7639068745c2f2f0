"""Which views go in and which are predicted, object by object: lists inside a protocol file, and the files that others
have published.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from msgspec import Meta, Struct

from vcgen.data.formats.scene import scene_key
from vcgen.errors import UserError
from vcgen.io import MAX_JSON, parse_json, read_bytes
from vcgen.schema import Key, Label, Sha256, Text, ViewNumber
from vcgen.terminal import one_line

Format = Literal["pixelnerf", "pixelsplat", "co3d"]


class ListFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The entry ``lists`` of a protocol: a file of lists that lies beside it.

    format: "pixelnerf" (lines CATEGORY OBJECT VIEW ..., input views), "pixelsplat" (JSON: scene -> context and target),
        "co3d" (JSON batches of frames by name: the first is predicted from the others). sha256: of the published file.
        address: where to get it.
    """

    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")]
    format: Format
    sha256: Sha256 | None = None
    address: Text = ""


class OwnList(Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the entry ``objects`` of a protocol."""

    context: tuple[ViewNumber, ...] = ()
    targets: tuple[ViewNumber, ...] = ()


@dataclass(frozen=True)
class Listed:
    """Views of one object, by number or by name. Empty: the list does not say."""

    context: tuple[int | str, ...] = ()
    targets: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class ViewLists:
    """What a list says of each object: reconstructions, of which most lists have one per object; none for an object
    that the list leaves out.

    objects: full name, such as CATEGORY_OBJECT -> reconstructions. short: last part of a name -> full names. where:
    what messages call the list.
    """

    objects: Mapping[str, tuple[Listed, ...]]
    short: Mapping[str, tuple[str, ...]]
    where: str
    by_name: bool

    @staticmethod
    def of(lists: Mapping[tuple[str, ...], tuple[Listed, ...]], where: str) -> "ViewLists":
        """lists: parts of an object's name -> reconstructions."""
        objects: dict[str, tuple[Listed, ...]] = {}
        short: dict[str, tuple[str, ...]] = {}
        for parts, found in lists.items():
            name, last = scene_key("_".join(parts)), scene_key(parts[-1])
            objects[name] = found
            short[last] = (*short.get(last, ()), name)
        views = (view for found in objects.values() for one in found for view in (*one.context, *one.targets))
        return ViewLists(objects, short, where, any(isinstance(view, str) for view in views))

    def name_of(self, key: str) -> str | None:
        """The full name of the object with a shard's key, which is that name or its last part; None for an object that
        is not listed. UserError where several are.
        """
        if key in self.objects:
            return key
        names = self.short.get(key, ())
        if len(names) > 1:
            raise UserError(
                f"object {key}: {self.where} lists {', '.join(names)}; pack the data with the category in its keys"
            )
        return names[0] if names else None

    def absent(self, keys: list[str]) -> tuple[int, int]:
        """How many objects, of those that the list does not leave out, are not among ``keys``, and how many there
        are.
        """
        present = {self.name_of(key) for key in keys}
        wanted = [name for name, found in self.objects.items() if found]
        return sum(name not in present for name in wanted), len(wanted)


def own_lists(objects: Mapping[Key, OwnList], where: str) -> ViewLists:
    """The lists that stand in the protocol itself."""
    return ViewLists.of({(key,): (Listed(one.context, one.targets),) for key, one in objects.items()}, where)


def read_lists(path: Path, kind: Format) -> tuple[ViewLists, bytes]:
    """A published file, and its bytes. Raises UserError for one that is missing, or not of the format."""
    data = read_bytes(path, MAX_JSON)
    return ViewLists.of(_READERS[kind](data, str(path)), path.name), data


def _pixelnerf(data: bytes, where: str) -> dict[tuple[str, ...], tuple[Listed, ...]]:
    found: dict[tuple[str, ...], tuple[Listed, ...]] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 3 or not all(word.isascii() and word.isdigit() and len(word) < 6 for word in words[2:]):
            raise UserError(
                one_line(f"{where}, line {number}: {line[:80]!r} is not CATEGORY OBJECT VIEW", "get the file again")
            )
        if (name := (words[0], words[1])) in found:
            raise UserError(one_line(f"{where}, line {number}: {'_'.join(name)} is listed twice", "get the file again"))
        found[name] = (Listed(tuple(map(int, words[2:]))),)
    return found


class _PixelSplat(Struct, frozen=True):
    context: tuple[ViewNumber, ...]
    target: tuple[ViewNumber, ...]


def _pixelsplat(data: bytes, where: str) -> dict[tuple[str, ...], tuple[Listed, ...]]:
    scenes = parse_json(data, dict[Label, _PixelSplat | None], where, "get the file again")
    # null: their sampler found no pair of views that overlap enough
    return {(name,): (Listed(one.context, one.target),) if one else () for name, one in scenes.items()}


def _co3d(data: bytes, where: str) -> dict[tuple[str, ...], tuple[Listed, ...]]:
    found: dict[tuple[str, ...], list[Listed]] = {}
    for number, batch in enumerate(parse_json(data, list[list[tuple[Label, int, Label]]], where, "get the file again")):
        paths = [PurePosixPath(path) for _, _, path in batch]
        sequences = {path.parts[:2] for path in paths} | {
            (*path.parts[:1], name) for (name, _, _), path in zip(batch, paths, strict=True)
        }
        if len(sequences) != 1 or any(len(path.parts) < 3 for path in paths):
            wanted = "frames of one sequence, as [SEQUENCE, NUMBER, CATEGORY/SEQUENCE/images/FRAME.jpg]"
            raise UserError(one_line(f"{where}, batch {number}: should be {wanted}", "get the file again"))
        target, *context = [path.stem for path in paths]
        found.setdefault(sequences.pop(), []).append(Listed(tuple(context), (target,)))
    return {name: tuple(batches) for name, batches in found.items()}


_READERS: dict[Format, Callable[[bytes, str], dict[tuple[str, ...], tuple[Listed, ...]]]] = {
    "pixelnerf": _pixelnerf,
    "pixelsplat": _pixelsplat,
    "co3d": _co3d,
}
