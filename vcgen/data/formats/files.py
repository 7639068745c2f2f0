"""Files of a source folder: which of them count, which one a name in a transforms file means, and what a view is called
after it.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from vcgen.data.images.reading import SUFFIXES
from vcgen.errors import UserError
from vcgen.terminal import first_few, printable

#: What systems and archives leave in folders, beside hidden files such as .DS_Store and macOS's ._NAME.
LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")
#: How a name begins that does not depend on the folder, on Unix and on Windows.
ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]")
#: What was tried where an image is missing.
TRIED = f"{', '.join(SUFFIXES)} in small and capital letters"


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without hidden files and ``LITTER``."""
    return sorted(path for path in folder.iterdir() if is_visible(path.name))


def is_visible(name: str) -> bool:
    """Whether a file of this name is the user's."""
    return not name.startswith(".") and name not in LITTER


class ImageFiles:
    """The images that a file in ``folder`` names; folders are listed once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._listings: dict[Path, dict[str, Path]] = {}

    def find(self, name: str) -> Path | None:
        """The file meant by a name: as it stands, with Windows' backslashes, its extension in other letters, or one of
        ``SUFFIXES``.
        """
        for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
            path = self.folder / spelled
            if not path.name or path == self.folder:
                continue
            if path.is_file():
                return path
            listing = self._listing(path.parent)
            wanted = (path.stem + path.suffix.lower(), *(path.name + extension for extension in SUFFIXES))
            if found := next((listing[key] for key in wanted if key in listing), None):
                return found
        return None

    def _listing(self, folder: Path) -> dict[str, Path]:
        """Images by name, their extensions in small letters; of two that differ in that alone, the one in small
        letters.
        """
        if folder not in self._listings:
            images = (path for path in visible(folder) if path.suffix.lower() in SUFFIXES) if folder.is_dir() else ()
            self._listings[folder] = {path.stem + path.suffix.lower(): path for path in images}
        return self._listings[folder]


def checked_name(name: str, path: Path) -> str:
    """A name in the file ``path`` that stays below the folder of images. Raises UserError for others."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or not name.isprintable():
        raise UserError(f"{path}: the image name {printable(name)[:80]!r} leads outside the folder of images")
    return name


def find_images(names: list[str], folder: Path, where: str, advice: str = "") -> list[Path]:
    """The image that each name means in a folder; raises UserError, which begins with ``where``, listing those that are
    missing.
    """
    files = ImageFiles(folder)
    found = [files.find(name) for name in names]
    if missing := [name or "(no file_path)" for name, image in zip(names, found, strict=True) if image is None]:
        listed = first_few(missing, 5)
        if all(map(ABSOLUTE.match, missing)):
            advice = "; the names are another computer's: make them relative to the file"
        raise UserError(
            f"{where}: {len(missing)} of {len(names)} images are missing: {listed} (tried as named, and with"
            f" {TRIED}){advice}"
        )
    return [image for image in found if image]


def view_names(images: Iterable[Path], folder: Path) -> list[str]:
    """What views are called after their files: without extension, relative to ``folder``, or to what they share where
    one lies outside.

    Names from another machine's root would change with the place of the data, and tell who packed it.
    """
    below = [_below(Path(os.path.abspath(image)), folder) for image in images]
    if any(path.is_absolute() for path in below):
        absolute = [folder.resolve() / path for path in below]
        shared = os.path.commonpath([path.parent for path in absolute])
        below = [path.relative_to(shared) for path in absolute]
    short = [path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else path.as_posix() for path in below]
    return short if len(set(short)) == len(set(below)) else [path.as_posix() for path in below]


def _below(image: Path, folder: Path) -> Path:
    """Relative to ``folder`` where it lies below, as it is written or where links lead; else absolute."""
    for base, path in ((Path(os.path.abspath(folder)), image), (folder.resolve(), image.parent.resolve() / image.name)):
        if path.is_relative_to(base):
            return path.relative_to(base)
    return image.parent.resolve() / image.name
