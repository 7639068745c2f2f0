"""``vcgen data pack FORMAT SOURCE OUT``: the command line of the converters; the work is in ``packing.py`` and
``formats/``.
"""

import inspect
import math
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from vcgen import plugins
from vcgen.cli import usage
from vcgen.data.formats.abo import Abo
from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.clevr3d import Clevr3d
from vcgen.data.formats.co3d import Co3d
from vcgen.data.formats.colmap import Colmap
from vcgen.data.formats.nmr import Nmr
from vcgen.data.formats.posed_folder import PosedFolder
from vcgen.data.formats.re10k import Re10k
from vcgen.data.formats.scene import Settings
from vcgen.data.formats.srn import Srn
from vcgen.data.formats.transforms import Transforms
from vcgen.data.formats.zero123plus import Zero123Plus
from vcgen.data.shards.packing import pack
from vcgen.errors import UserError, suggestion
from vcgen.terminal import complain

Backdrop = Literal["white", "black", "none"]
#: Of entry points that register formats of other packages.
GROUP = "vcgen.formats"
#: What stands before the options in a docstring.
ARGS = "\nArgs:\n"
FORMATS: tuple[SceneFormat[Any, Any], ...] = (
    PosedFolder(),
    Srn(),
    Transforms(),
    Colmap(),
    Nmr(),
    Co3d(),
    Re10k(),
    Abo(),
    Clevr3d(),
    Zero123Plus(),
)


def main(arguments: list[str]) -> None:
    """Parse ``arguments`` (everything after ``vcgen data pack``) and run the converter of the named format."""
    formats: dict[str, SceneFormat[Any, Any]] = {form.name: form for form in FORMATS}
    first = arguments[0] if arguments else ""
    known = [*formats, *plugins.names(GROUP)]
    if first not in formats and (first in known or "." in first) and not first.startswith("-"):
        form = plugins.find(SceneFormat, first, GROUP)
        formats, first, arguments = {form.name: form}, form.name, [form.name, *arguments[1:]]
    elif first not in formats and not first.startswith("-"):
        what = f"unknown format {first!r}{suggestion(first, known)}" if first else "no format given"
        raise UserError(f"{what}: the formats are {', '.join(known)}; write vcgen data pack FORMAT SOURCE OUT")
    commands = {name: packing(form) for name, form in formats.items()}
    chosen = (commands[first],) if first in commands else ()
    usage.run(commands, arguments, "vcgen data pack", positional=True, shared=chosen)


def packing(form: SceneFormat[Any, Any]) -> Callable[..., None]:
    """The command of a format: it takes the options of :func:`run`, by default as the format says, and what the
    format's settings have beyond :class:`Settings`; the help is that of both docstrings.
    """
    shared = list(inspect.signature(run).parameters.values())[2:]
    defaults = {name: getattr(form, name) for name in ("near", "far", "background", "name")}
    shared = [option.replace(default=defaults.get(option.name, option.default)) for option in shared]
    hints, known = get_type_hints(form.settings), {field.name for field in fields(Settings)}
    own = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(form.settings)
        if field.name not in known
    ]

    def packed(**options: Any) -> None:
        run(form, {option.name: options.pop(option.name) for option in own}, **options)

    (text, _, of_own), of_run = (inspect.getdoc(form) or form.name).partition(ARGS), inspect.getdoc(run) or ""
    packed.__doc__ = f"{text}{ARGS}{of_run.partition(ARGS)[2]}\n{of_own}"  # of two explanations the last is printed
    packed.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]  # what parsers read
    packed.__annotations__ = {option.name: option.annotation for option in (*shared, *own)}
    return packed


def run(
    form: SceneFormat[Any, Any],
    own: dict[str, Any],
    source: str,
    out: str,
    near: float | None = None,
    far: float | None = None,
    background: Backdrop = "none",
    name: str = "",
    *,
    size: str | None = None,
    split: str = "train",
    licence: str = "",
    group_pattern: str = "",
    scale: float = 1.0,
    recenter: bool = False,
    hold_out_views: int = 0,
    crops: bool = False,
    samples_per_shard: int = 64,
    workers: int = 1,
    skip_broken: bool = False,
    overwrite: bool = False,
) -> None:
    """Pack with the options that all formats share, and those of the format's own.

    Args:
        source: folder of the data set.
        out: shard folder to make; it appears under this name only when complete. The same command continues a pack
            that was interrupted.
        near: nearest ray distance from the camera, Euclidean, in stored units.
        far: farthest ray distance.
        background: what lies behind the object in images without transparency.
        name: data set name stored with every scene.
        size: shrink images: "64" for square ones or "HEIGHTxWIDTH", by an exact area mean of premultiplied color.
        split: name stored with every scene; where the data has splits, also which of them to read.
        hold_out_views: parts one capture: with 8, `--split test` packs every 8th view, the first included, `--split
            train` the others.
        licence: licence stored with every scene.
        group_pattern: regular expression whose first group names the model a scene is a variant of, e.g. "(.+)_[0-9]+".
        recenter: move the point nearest to all optical axes to the origin.
        scale: factor on camera positions, after recentering; near and far are in scaled units.
        crops: the images are parts of larger ones, so that the principal point may lie anywhere, also outside.
        samples_per_shard: scenes in one tar file.
        workers: processes that convert scenes; the bytes written do not depend on it.
        skip_broken: leave out broken scenes (listed at the end) instead of refusing.
        overwrite: replace a shard folder that was packed from other data or with other settings.
    """
    if not form.tells_bounds and (near is None or far is None):
        raise UserError(f"{form.name} data does not state ray bounds: give --near and --far")
    check_numbers(near, far, scale, hold_out_views)
    check_split(split, source)
    group, shrunk = usage.pattern("--group-pattern", group_pattern), None if size is None else parse_size(size)
    world = scale, recenter, hold_out_views, crops
    settings = form.settings(shrunk, near, far, background, name, split, licence, group, *world, **own)
    pack(form.list_scenes, form.read_scene, source, out, settings, samples_per_shard, workers, skip_broken, overwrite)


def check_split(split: str, source: str) -> None:
    """Raise UserError for what is no name of a split; warn where the folder is called after another."""
    if not re.fullmatch(r"[\w.-]{1,80}", split):
        raise UserError(f"--split {split!r}: a split's name has letters, digits, '_', '-' and '.' only")
    if split == "train" and re.search(r"(^|[_-])(test|val)$", Path(source).resolve().name, re.IGNORECASE):
        complain(f"{source} is packed as split train; if it is for testing, give --split test", "warning")


def check_numbers(near: float | None, far: float | None, scale: float, hold_out_views: int) -> None:
    """Raise UserError for an option that no scene can be packed with. near, far: None where the data tells them."""
    near, far = near or 0.0, sys.float_info.max if far is None else far
    if not 0 <= near < far < math.inf:
        swapped = " (the other way round?)" if near > far >= 0 else ""
        raise UserError(f"--near {near:g} and --far {far:g}: near must be 0 or more, and less than far{swapped}")
    if not 0 < scale < math.inf:
        raise UserError(f"--scale {scale:g}: must be more than 0 and finite")
    if hold_out_views < 0 or hold_out_views == 1:
        raise UserError(f"--hold_out_views {hold_out_views}: give 2 or more, or 0 to hold out none")


def parse_size(text: str) -> tuple[int, int]:
    """(height, width): "64" -> (64, 64), "480x270" -> (480, 270). Raises UserError for others."""
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if not match:
        raise UserError(f"--size {text!r}: give one number for square images or HEIGHTxWIDTH, e.g. 64 or 480x270")
    return int(match[1]), int(match[2] or match[1])
