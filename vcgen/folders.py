"""Making folders: whole or not at all, and none that another user has put under a name that can be foreseen."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vcgen.errors import UserError, naming
from vcgen.io import beside


@contextmanager
def replacing_folder(path: Path | str) -> Iterator[Path]:
    """As :func:`vcgen.io.replacing`, a folder to write into, which then takes the place of an older folder of that
    name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        with naming(path, temporary):
            temporary.mkdir()  # exclusive, too
            yield temporary
            put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def adding_to(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; what it then holds takes its names in ``folder``, each whole, once all is
    written.
    """
    temporary = beside(folder / "new")
    try:
        temporary.mkdir()
        yield temporary
        for path in sorted(temporary.iterdir()):
            put_in_place(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(source: Path, target: Path) -> None:
    """Give a finished file or folder its name. What has that name is deleted afterwards; if that fails in between, it
    keeps its name.
    """
    try:
        os.replace(source, target)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise
    aside = beside(target)  # a folder cannot be replaced in one step unless it is empty
    os.replace(target, aside)
    try:
        os.replace(source, target)
    except OSError:
        os.replace(aside, target)
        raise
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def create_folder(folder: Path | str) -> None:
    """Make a folder and its parents; a UserError says why it cannot be."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot create this folder ({error.strerror}); choose a writable place") from error


def create_own_folder(folder: Path | str) -> None:
    """As :func:`create_folder`; raises UserError, too, where a link or another user's folder has a name that anyone can
    foresee.

    Whoever owns a folder decides what its names stand for at any time. Folders of the administrator are trusted.
    """
    create_folder(folder)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise UserError(
            f"{folder}: a link stands where vcgen keeps a folder of its own; remove it, or choose another place"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise UserError(f"{folder}: belongs to another user; remove it, or choose a place of your own")
