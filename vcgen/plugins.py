"""Classes of the user's own packages, by import path or by the short name of an entry point.

Only for names that a user gives on the command line: what a file names goes through :mod:`vcgen.checkpoints.build`."""

import importlib
import inspect
from importlib.metadata import entry_points
from typing import TypeVar

from vcgen.errors import UserError, suggestion

T = TypeVar("T")


def names(group: str) -> list[str]:
    """Short names that installed packages have registered under an entry point group, such as ``vcgen.formats``."""
    return sorted({entry.name for entry in entry_points(group=group)})


def find(kind: type[T], name: str, group: str) -> T:
    """An object of the class that ``name`` means: ``package.module.Class``, or a short name registered under ``group``.

    Raises UserError where there is none, or where it is no concrete subclass of ``kind``.
    """
    try:
        if "." in name:
            module, _, last = name.rpartition(".")
            found = getattr(importlib.import_module(module), last)
        elif registered := list(entry_points(group=group, name=name)):
            found = registered[0].load()
        else:
            known = names(group)
            near = suggestion(name, known) or "; give package.module.Class, or install the package that registers it"
            raise UserError(f"there is no {kind.__name__} {name!r}{near}")
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{name}: {error}; is its package installed, or its folder in PYTHONPATH?") from error
    if not inspect.isclass(found) or not issubclass(found, kind) or inspect.isabstract(found):
        wanted = f"{kind.__module__}.{kind.__name__}"
        raise UserError(f"{name} is no class that derives from {wanted} and has all of its methods")
    return found()
