"""Values of a configuration against the annotations of the classes that they are for: every option out of its range, by
its full name.
"""

import importlib
import inspect
from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from vcgen.errors import UserError
from vcgen.schema import excluded


def check_ranges(kind: type, arguments: Mapping[str, Any], place: str) -> None:
    """Raises UserError for the first argument of a class that its annotation excludes, and for numbers that are none,
    at any depth.

    Args:
        kind: The class.
        arguments: By name, plain data with {"class_path", "init_args"} for objects.
        place: What the command line calls the object, such as "model".
    """
    hints = get_type_hints(inspect.getattr_static(kind, "__init__"), include_extras=True)
    for name, value in arguments.items():
        check_value(hints.get(name, Any), value, f"{place}.{name}")


def check_value(hint: Any, value: Any, place: str) -> None:
    """The same for one value with an annotation."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if isinstance(value, Mapping) and "class_path" in value:
        check_ranges(named_class(value["class_path"]), value.get("init_args") or {}, place)
    elif isinstance(value, Mapping) and (
        ours := [kind for kind in kinds if getattr(kind, "__module__", "").startswith("vcgen.")]
    ):
        check_ranges(ours[0], value, place)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            check_value(
                next((get_args(kind)[1] for kind in kinds if get_origin(kind) is dict), Any), item, f"{place}.{name}"
            )
    elif why := excluded(hint, value):
        raise UserError(f"{place}{why}")


def check_pair(model: str, data: str) -> None:
    """Raises UserError where one of vcgen's data modules is none that the system learns from. model, data: paths of the
    classes.
    """
    takes, (package, _, name) = getattr(named_class(model), "takes", ()), data.rpartition(".")
    if takes and package.startswith("vcgen.") and name not in takes:
        raise UserError(f"{model.rpartition('.')[2]} does not learn from {name}; set data to {' or '.join(takes)}")


def named_class(path: str) -> type:
    """The class of a configuration's ``class_path``, which the parser has found."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
