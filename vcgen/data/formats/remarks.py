"""Remarks: what is noticed in data that is probably wrong, but no error. Said in one line of each kind, however many
scenes have it.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vcgen.terminal import complain


class Remark(UserWarning):
    """A warning about the user's data."""


def remark(text: str) -> None:
    """Note something about the data that is being read."""
    warnings.warn(text, Remark, stacklevel=2)


@contextmanager
def collect_remarks() -> Iterator[list[str]]:
    """The remarks made inside, instead of warnings."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Remark)
        try:
            yield texts
        finally:
            texts += [str(warning.message) for warning in caught if issubclass(warning.category, Remark)]


def print_remarks(remarks: Iterable[tuple[str, str]]) -> None:
    """Print (scene, text) to standard error; of texts that differ in numbers alone the first, and how many more scenes
    have it.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for scene, text in remarks:
        kinds.setdefault(re.sub(r"[\d.]+", "#", text), []).append((scene, text))
    for (scene, text), *more in kinds.values():
        others = f" (and so in {len(more)} more scene{'s' if len(more) > 1 else ''})" if more else ""
        complain(f"scene {scene}: {text}{others}", "warning")
