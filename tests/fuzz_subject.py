"""One kind of file that the fuzzer spoils, and what all kinds need."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from fuzz_mutations import plain, spoil_json

Files = dict[str, bytes]


@dataclasses.dataclass
class Subject:
    """One kind of file. files: by their paths, as vcgen wrote them. spoil: changes some. load: what a folder with them
    means to vcgen. valid: whether spoiled files may mean something else than the whole ones. fraction: of all cases."""

    name: str
    files: Files
    spoil: Callable[[Random, Files], Files]
    load: Callable[[Path], Any]
    valid: Callable[[Files], bool] = lambda files: False
    fraction: float = 1.0
    folder: Path | None = None
    meaning: Any = None

    def prepare(self, root: Path) -> None:
        """Write the whole files, and note what they mean."""
        self.folder = root / self.name.replace(" ", "_").replace("/", "_")
        write(self.folder, self.files)
        self.meaning = self.load(self.folder)


def write(folder: Path, files: Files) -> None:
    """Write files, and their folders."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def spoil_one(
    name: str, how: Callable[[Random, bytes, list[bytes]], bytes] = spoil_json
) -> Callable[[Random, Files], Files]:
    """Spoil one file by one way."""

    def spoil(random: Random, files: Files) -> Files:
        return {name: how(random, files[name], list(files.values()))}

    return spoil


def by_rule(name: str, *rules: Callable[[Any], bool]) -> Callable[[Files], bool]:
    """Valid where the file is JSON and every rule allows it."""

    def valid(files: Files) -> bool:
        try:
            tree = plain(files[name])
        except (ValueError, RecursionError):
            return False
        return all(rule(tree) for rule in rules)

    return valid
