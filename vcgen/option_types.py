"""The types of options as ``--help`` prints them: ``int in [1, 64]`` and ``float > 0 | null``."""

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Meta

#: Bounds from here on keep absurd values out and tell a reader nothing.
ABSURD = 1e5


def type_text(hint: Any) -> str:
    """A type hint in words: its range where it states one, the choices of a Literal, ``null`` for None."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([type_text(parts[0]), *(bounds(part) for part in parts[1:] if isinstance(part, Meta))]).strip()
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(part) for part in parts)
    if origin is Literal:
        return " | ".join("null" if part is None else str(part) for part in parts)
    if origin is tuple:
        return f"({', '.join('...' if part is Ellipsis else type_text(part) for part in parts)})"
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(parts) == 2:
        return f"{type_text(parts[1])} by name"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"list of {type_text(parts[0])}"
    if hint is None or hint is types.NoneType:
        return "null"
    return getattr(hint, "__name__", None) or str(hint)


def bounds(meta: Meta) -> str:
    """``in [low, high]``, or the one bound that tells something; "" for none."""
    low, high = meta.gt if meta.ge is None else meta.ge, meta.lt if meta.le is None else meta.le
    low, high = (None if bound is None or abs(bound) >= ABSURD else bound for bound in (low, high))
    if low is not None and high is not None:
        return f"in {'(' if meta.ge is None else '['}{low:g}, {high:g}{')' if meta.le is None else ']'}"
    if low is not None:
        return f"{'>' if meta.ge is None else '>='} {low:g}"
    return "" if high is None else f"{'<' if meta.le is None else '<='} {high:g}"


def print_types_in_words() -> None:
    """Let jsonargparse's help print :func:`type_text`; twice does no harm."""
    from jsonargparse import DefaultHelpFormatter
    from jsonargparse._typehints import ActionTypeHint

    plain = DefaultHelpFormatter._get_type_str

    def in_words(self: DefaultHelpFormatter, action: Any) -> str | None:
        return type_text(action._typehint) if isinstance(action, ActionTypeHint) else plain(self, action)

    if plain.__name__ != in_words.__name__:
        DefaultHelpFormatter._get_type_str = in_words  # type: ignore[method-assign]  # jsonargparse has no other place
