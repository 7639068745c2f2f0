"""What a check has found, and checks that cannot bring the others down."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vcgen.errors import UserError
from vcgen.terminal import printable


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: a problem stops vcgen from working, a warning from working well. text: with the
    remedy, if need be.
    """

    state: Literal["ok", "warning", "problem"]
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.subject:<12} {printable(' '.join(self.text.split()))}"


def attempt(subject: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a check. What it raises is a finding, too: a package that is missing or broken can fail in any
    way.
    """
    try:
        return list(check())
    except UserError as error:
        return [Finding("problem", subject, str(error))]
    except ImportError as error:
        return [
            Finding("problem", subject, f"cannot be checked, a package is missing or broken ({error}); mend that first")
        ]
    except Exception as error:
        return [Finding("problem", subject, f"cannot be checked ({type(error).__name__}: {error})")]
