"""An evaluation protocol is a file, not flags: which views go in, which are predicted, at what size, before what,
measured how.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, to_builtins

from vcgen.errors import UserError
from vcgen.evaluation.selection import Context, Draw, Targets, Task, choose, refuse_repeated, words
from vcgen.evaluation.view_lists import Listed, ListFile, OwnList, ViewLists, own_lists, read_lists
from vcgen.io import parse_json, read_bytes
from vcgen.schema import Key, Label, Name, Side, Text, Unit, ViewNumber
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
    "gmsd": "xue-2014",
    "dists": "vgg16",
}
SUPPORTED_QUANTISATION = "8-bit-rounded"
MAX_BYTES = 1 << 20
ADVICE = "compare it with those in configs/protocols"
#: A crop must hold the largest window of SSIM.
SMALLEST_CROP = 11


Alpha = Literal["blend", "binary", "ignore"]
Mask = Literal["none", "object"]
Unlisted = Literal["refused", "left out"]


class ProtocolFile(Struct, forbid_unknown_fields=True):
    """The entries of a protocol file: those of :class:`Protocol`, where its lists stand, and what it takes for
    granted.
    """

    version: Literal[2]
    name: Label
    context: Context
    targets: Targets
    size: tuple[Side, Side]
    background: Unit
    quantisation: str
    metrics: dict[str, str]
    split: Name = ""
    views: ViewNumber = 0
    description: Text = ""
    objects: dict[Key, OwnList] | None = None
    lists: ListFile | None = None
    unlisted: Unlisted = "refused"
    score_context: bool = False
    alpha: Alpha = "blend"
    mask: Mask = "none"
    crop: tuple[ViewNumber, ViewNumber, Side, Side] | None = None

    def __post_init__(self) -> None:
        known = SUPPORTED_METRICS | FURTHER_METRICS
        needed = SUPPORTED_METRICS.items() <= self.metrics.items() <= known.items()
        if not needed or self.quantisation != SUPPORTED_QUANTISATION:
            wanted = f"metrics must be {SUPPORTED_METRICS}, further ones of {FURTHER_METRICS}"
            wanted += f", quantisation {SUPPORTED_QUANTISATION!r}"
            raise ValueError(f"wants other metric definitions than this version computes; {wanted}")
        if self.objects is not None and self.lists is not None:
            raise ValueError("has both objects and lists: give one")
        listed, given = "listed" in (self.context, self.targets), self.objects is not None or self.lists is not None
        if listed != given:
            what = "neither objects nor lists says which" if listed else "objects or lists say which, in vain"
            raise ValueError(f"context or targets are {'' if listed else 'not '}'listed', but {what}")


@dataclass(frozen=True)
class Protocol:
    """A frozen protocol. Indices are 0-based positions in an object's views, which are in natural order of their names.

    name: printed beside every number. context: input views of every object; drawn; or "listed". targets: views to
        predict; drawn from all but the input; "all others"; "all"; or "listed". size: (height, width) in pixels.
    background: gray level in [0, 1] behind everything. split: the split the shards must carry, "" for any. views: the
        number of views every object must have, 0 for any. description: free text for the report. sha256: hash of the
        file, and of its list's. metrics: names of the columns beside the default ones.
    alpha: coverage as stored ("blend"), 1 where it is above one half and else 0 ("binary"), or no alpha, colors as they
        are stored ("ignore"); of input and true images. mask: with "object", pixels where the true image has no
        coverage are background in both images. crop: (top, left, height, width) of what is compared, in pixels.
    score_context: an input view may be a target, too. lists: of "listed" views. unlisted: what becomes of other
        objects.
    """

    name: str
    context: Context
    targets: Targets
    size: tuple[int, int]
    background: float = 1.0
    split: str = ""
    views: int = 0
    description: str = ""
    sha256: str = ""
    metrics: tuple[str, ...] = ()
    alpha: Alpha = "blend"
    mask: Mask = "none"
    crop: tuple[int, int, int, int] | None = None
    score_context: bool = False
    unlisted: Unlisted = "refused"
    lists: ViewLists | None = None

    def __post_init__(self) -> None:
        where = f"protocol {self.name}"
        fixed = [views for views in (self.context, self.targets) if isinstance(views, tuple)]
        if () in fixed:
            raise UserError(f"{where}: needs at least one context view and one target")
        if any(not isinstance(index, int) or index < 0 for views in fixed for index in views):
            raise UserError(f"{where}: view indices must be whole numbers from 0 on")
        inputs, predicted = (views if isinstance(views, tuple) else () for views in (self.context, self.targets))
        refuse_repeated(where, Task(inputs, predicted), self.score_context)
        if not 0 <= self.background <= 1:
            raise UserError(f"{where}: background {self.background} must lie in [0, 1] (1 is white)")
        if self.crop is not None:
            top, left, height, width = self.crop
            if min(height, width) < SMALLEST_CROP or top + height > self.size[0] or left + width > self.size[1]:
                raise UserError(
                    f"{where}: the crop [top, left, height, width] {list(self.crop)} must lie in {self.size[0]} x"
                    f" {self.size[1]} pixels and have sides of {SMALLEST_CROP} or more, the window of SSIM"
                )

    @property
    def most_context(self) -> int:
        """The most input views that an object gets."""
        if isinstance(self.context, Draw):
            return self.context.draw
        if isinstance(self.context, tuple):
            return len(self.context)
        return max((len(one.context) for found in self._lists.objects.values() for one in found), default=0)

    @property
    def by_name(self) -> bool:
        """Whether views are listed by their names, so that an object must be read to find them."""
        return self.lists is not None and self.lists.by_name

    @property
    def _lists(self) -> ViewLists:
        if self.lists is None:
            raise UserError(f"protocol {self.name}: views are 'listed', but nothing lists them; give objects or lists")
        return self.lists

    def tasks(self, key: str, views: int, names: Sequence[str] = ()) -> list[Task]:
        """The reconstructions of object ``key``, which has ``views`` views; none for an object that is left out.

        names: of its views, for lists by name. No view is predicted twice. Raises UserError for an object that is not
        listed, views that it does not have, and what the protocol forbids."""
        where = f"object {key}: protocol {self.name}"
        if self.views and views != self.views:
            raise UserError(
                f"object {key}: has {views} views, protocol {self.name} is for objects with {self.views}; check the"
                " data set"
            )
        found: Sequence[Listed] = [Listed()]
        if "listed" in (self.context, self.targets):
            name = self._lists.name_of(key)
            if name is None and self.unlisted == "refused":
                raise UserError(
                    f"object {key}: not in {self._lists.where}, which protocol {self.name} takes its views from; leave"
                    ' it out of the data, or set "unlisted": "left out"'
                )
            found = () if name is None else self._lists.objects[name]
        tasks = [choose(self.context, self.targets, one, key, views, names, where) for one in found]
        for task in tasks:
            refuse_repeated(where, task, self.score_context)
        predicted = Counter(view for task in tasks for view in task.targets)
        if twice := [view for view, count in predicted.items() if count > 1]:
            raise UserError(f"{where} predicts view {twice[0]} from several inputs; it can count once")
        return tasks

    def check_views(self, model: str, most: int | None) -> None:
        """Raise UserError where an object gets more input views than the ``most`` that a model looks at (None: any): it
        would pass over the others.
        """
        if most is not None and (count := self.most_context) > most:
            raise UserError(
                f"protocol {self.name} gives {count} input views, {model} looks at {most}: use a protocol with {most},"
                " or a model that looks at several, without distillation"
            )

    def check_data(self, image_size: tuple[int, int], split: str, folder: Path) -> None:
        """Raise UserError unless shards of this size (height, width) and split can be scored under this protocol."""
        self.check_size(image_size, folder)
        if self.split and split != self.split:
            raise UserError(
                f"{folder}: holds split {split!r}, protocol {self.name} scores split {self.split!r}; give that folder"
            )

    def check_size(self, image_size: tuple[int, int], folder: Path) -> None:
        """Raise UserError unless shards of this size (height, width) fit this protocol."""
        if tuple(image_size) != self.size:
            found, wanted = (f"{height} x {width}" for height, width in (image_size, self.size))
            option = self.size[0] if self.size[0] == self.size[1] else wanted.replace(" ", "")
            raise UserError(
                f"{folder}: images are {found}, protocol {self.name} wants {wanted}; pack the data again with --size"
                f" {option}"
            )

    def record(self) -> dict[str, Any]:
        """What results keep of it: plain data, with the name of the lists in place of the lists."""
        values = {field.name: to_builtins(getattr(self, field.name)) for field in fields(self) if field.name != "lists"}
        return values | {"lists": self.lists and self.lists.where, "summary": self.summary}

    @property
    def summary(self) -> str:
        """Input and targets in words."""
        targets = f"{len(self.targets)} views" if isinstance(self.targets, tuple) else words(self.targets, self.lists)
        return f"input view {words(self.context, self.lists)}, targets {targets}"


def load_protocol(path: Path | str) -> Protocol:
    """Read a protocol file (JSON; those shipped lie in configs/protocols), and the list that it names. Raises UserError
    naming the file and the entry at fault.
    """
    data = read_bytes(path, MAX_BYTES, ADVICE)
    file = parse_json(data, ProtocolFile, str(path), ADVICE)
    shared = {field.name for field in fields(Protocol)} - {"sha256", "metrics", "lists"}
    values = {name: getattr(file, name) for name in shared}
    further = tuple(name for name in file.metrics if name in FURTHER_METRICS)
    digest, lists = hashlib.sha256(data), own_lists(file.objects, "its objects") if file.objects else None
    if file.lists is not None:
        lists, more = _listed(Path(path).parent / file.lists.file, file.lists)
        digest.update(more)
    try:
        return Protocol(**values, sha256=digest.hexdigest(), metrics=further, lists=lists)
    except UserError as error:
        raise UserError(one_line(f"{path}: {error}")) from error


def _listed(path: Path, file: ListFile) -> tuple[ViewLists, bytes]:
    """Lists and bytes of a file. Raises UserError where it is missing, or not the published one."""
    source = f"get it from {file.address}" if file.address else "copy it there"
    if not path.is_file():
        raise UserError(one_line(f"{path} is missing, the list of views of this protocol", source))
    lists, data = read_lists(path, file.format)
    if file.sha256 and hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(one_line(f"{path}: not the published list, its SHA-256 is another", source))
    return lists, data
