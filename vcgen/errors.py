"""The one exception that reaches users as a single line, and what the operating system's own refusals become."""

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vcgen.redaction import hide

#: What a disk says that is full, or on which the user may not take more.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: The place is not one to write in, or to read from. A missing file is not among them: whoever opens a user's file says
#: what it is for.
CLOSED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EIO,
)


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do, in one line.

    ``vcgen`` prints it as ``vcgen: error: MESSAGE`` and exits with status 2, without a traceback. Secrets are left out,
    see :mod:`vcgen.redaction`."""

    def __init__(self, *words: object):
        super().__init__(*(hide(word) if isinstance(word, str) else word for word in words))


@contextmanager
def naming(path: Path | str, temporary: Path | str) -> Iterator[None]:
    """System errors inside name ``path``, where they name the temporary file, which users do not know, or nothing, as a
    full disk does.
    """
    try:
        yield
    except OSError as error:
        # one without a number is nobody's but the program's
        unnamed = error.filename is None and error.errno is not None
        if unnamed or (error.filename is not None and Path(str(error.filename)).is_relative_to(temporary)):
            error.filename = str(path)
        raise


def system_refusal(error: OSError) -> str | None:
    """The line for a full disk or a place that is closed to us; None for any other error, which is likelier a mistake
    in the program.
    """
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in FULL:
        return f"{place}{error.strerror}; make room there, or choose another place"
    if error.errno in CLOSED and place:
        return (
            f"{place}{error.strerror}; check that it, and the folder that holds it, can be used, or choose another"
            " place"
        )
    return None


def suggestion(word: str, known: Iterable[str]) -> str:
    """The text " (did you mean ...?)" with the known word nearest to a misspelled one, dashes apart, or ""."""
    names = {name.lstrip("-"): name for name in known}
    near = difflib.get_close_matches(word.lstrip("-"), list(names), 1, 0.6)
    return f" (did you mean {names[near[0]]}?)" if near else ""
