"""Types that the schemas of several files share: what a number or a text in a file may be.

A schema is a msgspec Struct beside the code that owns the file. Bounds are wide enough for every use and narrow enough
that what follows (a float32, an array of that many pixels, a line in a report) can hold the value.
What the sizes of a U-Net's levels must be, in the models of several rooms, stands here, too.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

_PRINTABLE = "^[^\\x00-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]*\\Z"
#: Neither NaN nor infinite, and a float32 without loss of meaning.
Finite = Annotated[float, Meta(ge=-1e12, le=1e12)]
Positive = Annotated[float, Meta(gt=0, le=1e12)]
#: A distance in a scene, in world units: float32 has seven digits.
Length = Annotated[float, Meta(ge=1e-6, le=1e6)]
NotNegative = Annotated[float, Meta(ge=0, le=1e12)]
#: A gray level, a coverage, a fraction.
Unit = Annotated[float, Meta(ge=0, le=1)]
#: The fraction of a frame that an object's longer side fills.
Fill = Annotated[float, Meta(ge=0.1, le=1)]
#: Degrees above the horizon.
Elevation = Annotated[float, Meta(ge=-90, le=90)]
#: A fraction of less than all: of a decay, a momentum.
BelowOne = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
AtLeastOne = Annotated[int, Meta(ge=1, le=1 << 31)]
#: The position of a view among those of its scene, from 0.
ViewNumber = Annotated[int, Meta(ge=0, lt=100_000)]
#: The view, or views, of a scene that a model is shown.
InputViews = ViewNumber | Annotated[list[ViewNumber], Meta(min_length=1)]
#: A number, or [low, high]: a list, since msgspec 0.23 crashes at a tuple beside a bounded number.
NumberOrRange = AtLeastOne | Annotated[list[AtLeastOne], Meta(min_length=2, max_length=2)]
#: One side of an image, in pixels.
Side = Annotated[int, Meta(ge=1, le=16384)]
#: One side of a model's images, and of the planes and latents that it computes with, which take as much memory as they
#: say.
ModelSide = Annotated[int, Meta(ge=1, le=4096)]
PlaneSide = Annotated[int, Meta(ge=1, le=1024)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
#: The key of a scene: it names files in a tar, where a dot ends the name.
Key = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,80}\\Z")]
#: A name that people read, of a group, a view, a model, in one line: no control or direction marks.
Name = Annotated[str, Meta(max_length=200, pattern=_PRINTABLE)]
Label = Annotated[str, Meta(min_length=1, max_length=200, pattern=_PRINTABLE)]
#: Free text.
Text = Annotated[str, Meta(max_length=100_000)]
#: Channels that diffusers' group normalization shares a mean over, in all of our U-Nets.
GROUPS = 16
#: Channels of an attention head.
HEAD = 32


def excluded(hint: Any, value: Any) -> str:
    """Why an annotation excludes a value, plain data, to be said after its name; "" where it does not."""
    if any(not math.isfinite(number) for number in _floats(value)):
        return f" must be finite, not {value}"
    if is_bounded(hint):
        try:
            msgspec.convert(value, hint)
        except msgspec.ValidationError as error:
            wanted, _, at = str(error).replace("`", "").removeprefix("Expected ").partition(" - at $")
            return f"{at}: expected {wanted}; not {value}"
    return ""


def check_options(options: Any) -> None:
    """Raise ValueError where a field of a dataclass lies outside the range that its annotation states.

    Its ``__post_init__`` calls this, for objects that are made in Python: what a configuration holds has been checked
    under the options' full names.
    """
    for name, hint in _bounded_fields(type(options)).items():  # type: ignore[arg-type]  # types are hashable
        if why := excluded(hint, getattr(options, name)):
            raise ValueError(f"{type(options).__name__}.{name}{why}")


def check_levels(
    name: str, size: int, patch: int, channels: Sequence[int], attention: Sequence[bool] | None, heads: bool = True
) -> None:
    """Raises ValueError unless a U-Net on cells of ``patch`` x ``patch`` pixels fits images of side ``size``, an option
    called ``name``.

    channels: its widths, finest level first. attention: whether each level attends; None: as the U-Net itself decides.
    heads: whether attention has heads of HEAD channels, which a level must then have at least, and the last one
        always, since what lies between the way down and the way up attends.
    """
    if not channels:
        raise ValueError("channels is empty; give the width of at least one level")
    if attention is not None and len(attention) != len(channels):
        raise ValueError(f"attention has {len(attention)} entries, channels {len(channels)}; give one per level")
    if odd := [width for width in channels if width % GROUPS]:
        raise ValueError(f"channels must be multiples of {GROUPS}; {odd[0]} is none")
    if thin := [
        width for width, attends in zip(channels, attention or (), strict=False) if heads and attends and width < HEAD
    ]:
        raise ValueError(
            f"a level with attention needs at least {HEAD} channels, not {thin[0]}; widen it, or set its attention to"
            " false"
        )
    if heads and attention is not None and channels[-1] < HEAD:
        raise ValueError(f"the last level needs at least {HEAD} channels, not {channels[-1]}: what follows it attends")
    if patch < 1:
        raise ValueError(f"patch must be at least 1, not {patch}")
    cells = patch * 2 ** (len(channels) - 1)
    if size % cells:
        below, above = size - size % cells, size - size % cells + cells
        nearest = f"{below} and {above} are" if below else f"{above} is"
        raise ValueError(
            f"{name} {size} is no multiple of {cells}, which {len(channels)} levels and patch {patch} need; {nearest}"
        )


def is_bounded(hint: Any) -> bool:
    """Whether an annotation, or a part of it, states a range."""
    return hasattr(hint, "__metadata__") or any(map(is_bounded, get_args(hint)))


@cache
def _bounded_fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind) if is_bounded(hints[field.name])}


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    for item in value if isinstance(value, (list, tuple)) else ():
        yield from _floats(item)
