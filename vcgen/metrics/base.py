"""The base class of metrics of images."""

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta, Struct
from torch import Tensor

from vcgen.schema import Finite, Text

#: Identical images have infinite PSNR; they count as this many dB, and results say how many reached it. At 128 x 128
#: pixels the smallest possible difference of two 8-bit images, one level in one channel of one pixel, is 95 dB.
PSNR_CAP = 100.0


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """What a metric's numbers mean, and how they are printed.

    title: heading, with the unit. definition: in one line, beside every number. low, high: the least and the largest
    value there is. decimals: printed digits after the point.
    """

    title: Text
    definition: Text
    higher_is_better: bool
    low: Finite
    high: Finite
    decimals: Annotated[int, Meta(ge=0, le=12)] = 3


class Metric(ABC):
    """A number for each image; has one written definition, which travels with the numbers."""

    #: Of the column in results: letters, digits and underscores, the first a small letter; not beginning with lpips.
    name: str
    column: Column
    #: SHA-256 of weights that it needs, part of what an evaluation is recognized by.
    sha256: str = ""
    #: Whether the images are clamped and rounded to 8 bit first; False: they come as they were rendered and read.
    quantised: bool = True

    @abstractmethod
    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Values (batch,) of two (batch, 3, height, width) stacks, float64; in [0, 1] where they are quantised."""
