"""Furniture libraries -> a folder of mesh files for ``vcgen data render``, parted by maker, and a page of creators."""

import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from vcgen.errors import UserError
from vcgen.folders import replacing_folder
from vcgen.meshes.furniture import Licence, Piece, content, opened, read_library

#: Who converted models of others, which makes their makers no relatives.
CONVERTERS = ("etek", "eteks")
#: In a line of an .obj file.
NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def unpack(
    libraries: list[Path], out: Path, licences: list[Licence], test_every: int
) -> tuple[list[Piece], dict[str, list[str]]]:
    """Write ``out``/train and ``out``/test, ATTRIBUTION.md and families.json, whole or not at all.

    Makers are parted: those that a piece names together count as one, and about one of ``test_every`` is tested on. A
    family is what one maker made. Returns the pieces written, and the keys of others by the reason why they were not.
    """
    chosen: dict[str, Piece] = {}
    left_out = defaultdict(list)
    found = [piece for path in libraries for piece in read_library(path)]
    for piece in found:
        reason = piece.unusable(licences) or ("another is called the same" if piece.key in chosen else "")
        if reason:
            left_out[reason].append(piece.key)
        else:
            chosen[piece.key] = piece
    if not chosen:
        raise UserError(f"{', '.join(map(str, libraries))}: no model has a licence among {', '.join(licences)}")
    pieces = sorted(chosen.values(), key=lambda piece: piece.key)
    makers = makers_of(piece.creator for piece in found)
    made = defaultdict(list)
    with replacing_folder(out) as folder:
        for piece in pieces:
            maker = makers[piece.creator]
            made[maker].append(piece.key)
            write_piece(piece, folder / split_of(maker, test_every) / piece.key)
        families = [keys for keys in made.values() if len(keys) > 1]
        (folder / "families.json").write_text(json.dumps(families, indent=1) + "\n")
        (folder / "ATTRIBUTION.md").write_text(attribution(pieces, makers, test_every))
    return pieces, dict(left_out)


def makers_of(creators: Iterable[str]) -> dict[str, str]:
    """Creators, as catalogues name them -> the maker, the same for all who ever worked together."""
    leader: dict[str, str] = {}

    def lead(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    creators = list(creators)
    people = {creator: people_of(creator) for creator in creators}
    for names in people.values():
        for name in names[1:]:
            first, second = sorted((lead(names[0]), lead(name)))
            leader[second] = first
    return {creator: lead(people[creator][0]) for creator in creators}


def people_of(creator: str) -> list[str]:
    """The names in "Tastykle3d & eTeks", as small letters and digits, without those who converted it."""
    words = (re.sub(r"\W|_", "", name).lower() for name in re.split(r"[&,/]|\band\b", creator))
    names = [name for name in words if name]
    return [name for name in names if name not in CONVERTERS] or names or ["unknown"]


def split_of(maker: str, test_every: int) -> str:
    """The split of a maker, test or train, by the name alone: more libraries move nobody but those whom a new piece
    unites.
    """
    return "train" if zlib.crc32(maker.encode()) % test_every else "test"


def write_piece(piece: Piece, folder: Path) -> None:
    """The model's file, named after its folder, and what lies beside it in the library, which it may name."""
    with opened(piece.library) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        beside = [file for file in map(PurePosixPath, names) if file.parent == piece.file.parent != PurePosixPath(".")]
        files = {file: content(archive, str(file)) for file in dict.fromkeys([piece.file, *beside])}
    folder.mkdir(parents=True)
    for file, data in files.items():
        if file == piece.file:
            turned = turn(data, np.array(piece.rotation).reshape(3, 3)) if file.suffix.lower() == ".obj" else data
            (folder / f"{folder.name}{file.suffix.lower()}").write_bytes(turned)
        elif re.fullmatch(r"[^\x00-\x1f/\\]{1,200}", file.name) and file.name != "..":
            (folder / file.name).write_bytes(data)


def turn(data: bytes, rotation: np.ndarray) -> bytes:
    """An .obj file with its points and normals turned; as it is where the rotation is none."""
    if np.array_equal(rotation, np.eye(3)):
        return data

    def turned(found: re.Match[bytes]) -> bytes:
        point = rotation @ np.array([float(word) for word in found[2].split()[:3]])
        return found[1] + b" " + " ".join(f"{value:.6g}" for value in point).encode()

    return re.sub(rb"^(vn?)[ \t]+(%b(?:[ \t]+%b){2})" % (NUMBER, NUMBER), turned, data, flags=re.MULTILINE)


def attribution(pieces: list[Piece], makers: dict[str, str], test_every: int) -> str:
    """The page that names every model, its creator, licence and source, as CC BY asks for."""
    count = Counter(piece.licence for piece in pieces)
    counted = ", ".join(f"{count[name]} {name}" for name in sorted(count))
    libraries = ", ".join(sorted({piece.library.name for piece in pieces}))
    lines = [
        "# Models and their creators",
        "",
        f"{len(pieces)} models ({counted}) of furniture libraries for Sweet Home 3D (sweethome3d.com): {libraries}.",
        "Changes: converted to OBJ by Emmanuel Puybaret (eTeks), turned upright, scaled to one size, lit and rendered.",
        "",
        "| object | name | creator | licence | split | source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for piece in pieces:
        split = split_of(makers[piece.creator], test_every)
        cells = (piece.key, piece.name, piece.creator, piece.licence, split, piece.source)
        lines.append("| " + " | ".join(re.sub(r"([|\\<>`\[\]*])", r"\\\1", cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"
