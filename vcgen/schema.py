"""Types that the schemas of several files share: what a number or a text in a file may be.

A schema is a msgspec Struct beside the code that owns the file. Bounds are wide enough for every use and narrow enough
that what follows (a float32, an array of that many pixels, a line in a report) can hold the value."""

from typing import Annotated

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
