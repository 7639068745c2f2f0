"""Text on its way to a terminal. Names and messages come from files of anybody: none may steer a terminal, or be taken
for markup.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcgen.redaction import hide

if TYPE_CHECKING:
    from rich.text import Text

#: Characters of a message that are shown.
LONGEST = 2000


def one_line(message: str, advice: str = "") -> str:
    """A message that can go to a terminal, whatever a file put into it: control characters escaped, long text cut.
    advice: its end.
    """
    shown = printable(message)
    return f"{shown if len(shown) <= 500 else shown[:497] + '...'}; {advice}" if advice else shown[:500]


def printable(text: str) -> str:
    r"""Text from a file as one line for a terminal: what is not printable (escapes, line ends, direction marks) becomes
    \\x1b or so.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def counted(number: int, noun: str) -> str:
    """A number of things: "1 scene", "2 scenes"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def first_few(names: Sequence[str], count: int) -> str:
    """The first ``count`` names, with commas; three dots stand for the others."""
    return ", ".join(names[:count]) + ", ..." * (len(names) > count)


def say(*lines: str) -> None:
    """Print lines to standard output."""
    print("\n".join(map(printable, lines)))


def complain(text: str, kind: str = "error") -> None:
    """Print ``vcgen: error: TEXT`` to standard error, in one line; of a text that is very long, the middle is left
    out.
    """
    shown = printable(hide(text))
    if len(shown) > LONGEST:
        shown = f"{shown[: LONGEST // 2]} ... {shown[-LONGEST // 2 :]}"
    print(f"vcgen: {kind}: {shown}", file=sys.stderr, flush=True)


def unstyled(*lines: str) -> "Text":
    """Lines for rich's tables, which take square brackets in plain strings for markup."""
    from rich.text import Text

    return Text("\n".join(map(printable, lines)))
