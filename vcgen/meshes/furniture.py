"""Furniture libraries of Sweet Home 3D (.sh3f: a zip archive of models with a catalogue that names their creators and
licences), read within bounds: what it holds, and under which licence."""

import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from vcgen.data.formats.scene import scene_key
from vcgen.errors import UserError
from vcgen.meshes.loading import KINDS, MAX_BYTES
from vcgen.terminal import one_line, printable

Licence = Literal["cc0", "cc-by"]
CATALOGUE = "PluginFurnitureCatalog.properties"
MOST_CATALOGUE = 16 << 20
ADVICE = "give a furniture library of Sweet Home 3D, or download it again"
#: An object is flat whose thinnest side measures less than this fraction of its longest: a picture, a rug, a pane.
FLAT = 0.04


@dataclass(frozen=True)
class Piece:
    """A model in a library. file: its path there. creator: as the catalogue says. licence: an SPDX identifier, "" for
    one that is not known. opening: a door, a window. sides: width, depth and height in cm. rotation: (9,) row by row,
    what the catalogue turns it by. source: address where its creator published it, "" where none is noted."""

    library: Path
    key: str
    name: str
    file: PurePosixPath
    creator: str
    licence: str
    opening: bool
    sides: tuple[float, ...]
    rotation: tuple[float, ...]
    source: str = ""

    def unusable(self, licences: Iterable[Licence]) -> str:
        """Why the piece is left out; "" where it is not."""
        if not any(self.licence.lower().startswith(licence) for licence in licences):
            return f"its licence is {self.licence or 'not known'}"
        if self.file.suffix[1:].lower() not in KINDS:
            return f"{self.file.name} is of no known kind"
        if self.opening:
            return "a door or window, part of a wall"
        return "flat" if min(self.sides) < FLAT * max(self.sides) else ""


def read_library(path: Path) -> list[Piece]:
    """All pieces of a library, in the order of its catalogue. Raises UserError in one line for a file that is none."""
    with opened(path) as archive:
        text = content(archive, CATALOGUE, MOST_CATALOGUE).decode("latin-1")
        whole, numbered = parse_catalogue(text)
        notes = {
            str(PurePosixPath(name).parent): name
            for name in archive.namelist()
            if name.endswith("BLENDSWAP_LICENSE.txt")
        }
        pieces = []
        for number, entry in sorted(numbered.items()):
            try:
                piece = piece_of(path, whole, entry)
            except (KeyError, ValueError) as error:
                raise UserError(
                    one_line(f"{path}: {CATALOGUE}: model {number} has no usable {error.args[0]}", ADVICE)
                ) from error
            note = notes.get(str(piece.file.parent))
            found = re.search(rb"https?://\S+/blends/view/\d+", content(archive, note)) if note else None
            pieces.append(Piece(**{**vars(piece), "source": found[0].decode("latin-1") if found else ""}))
    return pieces


def piece_of(path: Path, whole: dict[str, str], entry: dict[str, str]) -> Piece:
    """One entry of a catalogue, whose own licence and creator count before those of all. Raises KeyError or ValueError,
    which name what is missing or wrong."""
    file = PurePosixPath(entry["model"].lstrip("/"))
    creator = entry.get("creator") or whole.get("creator") or whole.get("provider") or "unknown"
    licence = licence_of(entry.get("license") or whole.get("license", ""))
    sides = tuple(number(entry, name) for name in ("width", "depth", "height"))
    rotation = turning(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1"))
    own = entry.get("id", file.stem).rpartition("#")[2]
    key = scene_key(f"{slug(creator)}_{slug(own)}")
    return Piece(
        path, key, entry.get("name", own), file, creator, licence, entry.get("doorOrWindow") == "true", sides, rotation
    )


def number(entry: dict[str, str], name: str) -> float:
    """A side of a piece, more than 0; ValueError with its name for anything else."""
    try:
        if 0 < (value := float(entry[name])) < 1e9:
            return value
    except (KeyError, ValueError):
        pass
    raise ValueError(name)


def turning(text: str) -> tuple[float, ...]:
    """The nine numbers of a rotation; ValueError for others."""
    try:
        matrix = np.array([float(word) for word in text.split()]).reshape(3, 3)
        if np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3):
            return tuple(matrix.ravel().tolist())
    except ValueError:
        pass
    raise ValueError("modelRotation")


def parse_catalogue(text: str) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """Java's properties: (what is said of the library, what is said of each piece by its number)."""
    whole: dict[str, str] = {}
    pieces: dict[int, dict[str, str]] = defaultdict(dict)
    for line in re.sub(r"\\\r?\n\s*", "", text).splitlines():
        if found := re.match(r"\s*(\w+)(?:#(\d{1,9}))?\s*[=:]\s*(.*)", line):
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), found[3]).strip()
            (pieces[int(found[2])] if found[2] else whole)[found[1]] = printable(value)
    return whole, dict(pieces)


def licence_of(text: str) -> str:
    """The SPDX identifier of a licence in a catalogue's words, "" for all but CC0 and CC BY: who forbids changes or
    profit, or wants the same licence for what is made of it, is not asked again."""
    words = text.lower()
    if re.search(r"non-?commercial|no-?deriv|share-?alike|\bby-(nc|nd|sa)", words):
        return ""
    if re.search(r"public domain|\bcc-?0\b|creative commons zero", words):
        return "CC0-1.0"
    if found := re.search(r"(?:creative commons.*attribution|cc[- ]by)\D*(\d\.\d)", words):
        return f"CC-BY-{found[1]}" + ("-US" if "united states" in words else "")
    return ""


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A library as an archive; what is wrong with it is a UserError in one line."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise UserError(one_line(f"{path} is missing", ADVICE)) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            one_line(f"{path}: not a readable zip archive ({error or type(error).__name__})", ADVICE)
        ) from error


def content(archive: zipfile.ZipFile, name: str, limit: int = MAX_BYTES) -> bytes:
    """A file of an archive; UserError where it is missing or unpacks to more than ``limit`` bytes."""
    try:
        with archive.open(name) as file:
            data = file.read(limit + 1)
    except KeyError as error:
        raise UserError(one_line(f"{archive.filename}: has no {name}", ADVICE)) from error
    if len(data) > limit:
        raise UserError(one_line(f"{archive.filename}: {name} is longer than {limit / 1e6:.0f} MB", ADVICE))
    return data


def slug(name: str) -> str:
    """A name as a part of a key: letters, digits and "-"."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "unnamed"
