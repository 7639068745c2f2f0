"""An evaluation protocol is a file, not flags: which views go in, which are predicted, at what size, before what,
measured how.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec import Struct

from vcgen.errors import UserError
from vcgen.io import parse_json, read_bytes
from vcgen.schema import Label, Name, Side, Text, Unit, ViewNumber
from vcgen.terminal import one_line

#: The definitions of the default columns; a protocol must name them, so that a later change cannot pass unnoticed.
SUPPORTED_METRICS = {
    "psnr": "db-per-image",
    "ssim": "scikit-image",
    "ssim_gauss": "gaussian-11-zero-padded",
    "lpips": "v0.1",
}
#: Those that it may name, too, and then adds.
FURTHER_METRICS = {
    "psnr_unclamped": "db-per-image-of-floats",
    "ssim_skimage_gauss": "scikit-image-gaussian-11",
    "ssim_valid": "gaussian-11-valid",
    "ssim_valid_inferred": "gaussian-11-valid-inferred-range",
    "ssim_torchmetrics": "gaussian-11-reflected",
    "ssim_torchmetrics_inferred": "gaussian-11-reflected-inferred-range",
    "dists": "vgg16",
}
SUPPORTED_QUANTISATION = "8-bit-rounded"
ALL_OTHERS = "all others"
MAX_BYTES = 1 << 20
ADVICE = "compare it with those in configs/protocols"


class ProtocolFile(Struct, forbid_unknown_fields=True):
    """The entries of a protocol file: those of :class:`Protocol`, and what it takes for granted."""

    version: Literal[1]
    name: Label
    context: tuple[ViewNumber, ...]
    targets: tuple[ViewNumber, ...] | Literal["all others"]
    size: tuple[Side, Side]
    background: Unit
    quantisation: str
    metrics: dict[str, str]
    split: Name = ""
    views: ViewNumber = 0
    description: Text = ""

    def __post_init__(self) -> None:
        known = SUPPORTED_METRICS | FURTHER_METRICS
        needed = SUPPORTED_METRICS.items() <= self.metrics.items() <= known.items()
        if not needed or self.quantisation != SUPPORTED_QUANTISATION:
            wanted = f"metrics must be {SUPPORTED_METRICS}, further ones of {FURTHER_METRICS}"
            wanted += f", quantisation {SUPPORTED_QUANTISATION!r}"
            raise ValueError(f"wants other metric definitions than this version computes; {wanted}")


@dataclass(frozen=True)
class Protocol:
    """A frozen protocol. Indices are 0-based positions in an object's views, which are in natural order of their names.

    name: printed beside every number. context: input views. targets: views to predict, or "all others". size: (height,
        width) in pixels.
    background: gray level in [0, 1] behind everything. split: the split the shards must carry, "" for any. views: the
    number of views every object must have, 0 for any. description: free text for the report. sha256: hash of the file.
    metrics: names of the columns beside the default ones.
    """

    name: str
    context: tuple[int, ...]
    targets: tuple[int, ...] | Literal["all others"]
    size: tuple[int, int]
    background: float = 1.0
    split: str = ""
    views: int = 0
    description: str = ""
    sha256: str = ""
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        indices = (*self.context, *(() if self.targets == ALL_OTHERS else self.targets))
        if not self.context or self.targets == ():
            raise UserError(f"protocol {self.name}: needs at least one context view and one target")
        if any(not isinstance(index, int) or index < 0 for index in indices):
            raise UserError(f"protocol {self.name}: view indices must be whole numbers from 0 on")
        if len(set(indices)) != len(indices):
            twice = next(index for index in indices if indices.count(index) > 1)
            raise UserError(
                f"protocol {self.name}: view {twice} occurs twice; a context view must not be a target, nor any view"
                " count twice"
            )
        if not 0 <= self.background <= 1:
            raise UserError(f"protocol {self.name}: background {self.background} must lie in [0, 1] (1 is white)")

    def target_indices(self, views: int, key: str) -> list[int]:
        """The views to predict of object ``key``, which has ``views`` views, in ascending order. UserError if an index
        is out of range.
        """
        if self.views and views != self.views:
            raise UserError(
                f"object {key}: has {views} views, protocol {self.name} is for objects with {self.views}; check the"
                " data set"
            )
        wanted = set(range(views)) - set(self.context) if isinstance(self.targets, str) else self.targets
        targets = sorted(wanted)
        largest = max(*self.context, *targets, 0)
        if largest >= views:
            raise UserError(
                f"object {key}: protocol {self.name} wants view {largest}, but it has only views 0 to {views - 1}"
            )
        if not targets:
            raise UserError(f"object {key}: no view is left to predict under protocol {self.name}")
        return targets

    def check_data(self, image_size: tuple[int, int], split: str, folder: Path) -> None:
        """Raise UserError unless shards of this size (height, width) and split can be scored under this protocol."""
        if tuple(image_size) != self.size:
            raise UserError(
                f"{folder}: images are {image_size[0]} x {image_size[1]}, protocol {self.name} wants {self.size[0]} x"
                f" {self.size[1]}; pack the data again with --size {self.size[0]}"
            )
        if self.split and split != self.split:
            raise UserError(
                f"{folder}: holds split {split!r}, protocol {self.name} scores split {self.split!r}; give that folder"
            )


def load_protocol(path: Path | str) -> Protocol:
    """Read a protocol file (JSON; those shipped lie in configs/protocols). Raises UserError naming the file and the
    entry at fault.
    """
    data = read_bytes(path, MAX_BYTES, ADVICE)
    file = parse_json(data, ProtocolFile, str(path), ADVICE)
    try:
        return Protocol(
            file.name,
            file.context,
            file.targets,
            file.size,
            file.background,
            file.split,
            file.views,
            file.description,
            sha256=hashlib.sha256(data).hexdigest(),
            metrics=tuple(name for name in file.metrics if name in FURTHER_METRICS),
        )
    except UserError as error:
        raise UserError(one_line(f"{path}: {error}")) from error
