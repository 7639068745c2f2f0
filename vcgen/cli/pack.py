"""``vcgen data pack FORMAT SOURCE OUT``: the command line of the converters; the work is in ``packing.py`` and
``formats/``.
"""

import inspect
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vcgen import plugins
from vcgen.cli import usage
from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.scene import Settings
from vcgen.data.formats.upright import Up
from vcgen.data.shards.packing import pack
from vcgen.errors import UserError, suggestion
from vcgen.terminal import complain

Backdrop = Literal["white", "black", "none"]
#: Of entry points that register formats of other packages.
GROUP = "vcgen.formats"
#: Help for formats of other packages.
COMMON = """Args:
    source: folder of the data set.
    out: shard folder to make; it appears under this name only when complete.
    near: nearest ray distance from the camera, Euclidean, in stored units.
    far: farthest ray distance.
    background: what lies behind the object in images without transparency.
    name: data set name stored with every scene."""


def main(arguments: list[str]) -> None:
    """Parse ``arguments`` (everything after ``vcgen data pack``) and run the converter of the named format."""
    formats = {"srn": srn, "transforms": transforms, "colmap": colmap}
    first = arguments[0] if arguments else ""
    known = [*formats, *plugins.names(GROUP)]
    if first not in formats and (first in known or "." in first) and not first.startswith("-"):
        form = plugins.find(SceneFormat, first, GROUP)
        formats, arguments = {form.name: packing(form)}, [form.name, *arguments[1:]]
    elif first not in formats and not first.startswith("-"):
        what = f"unknown format {first!r}{suggestion(first, known)}" if first else "no format given"
        raise UserError(f"{what}: the formats are {', '.join(known)}; write vcgen data pack FORMAT SOURCE OUT")
    usage.run(formats, arguments, "vcgen data pack", positional=True, shared=(run,))


def packing(form: SceneFormat[Any, Any]) -> Callable[..., None]:
    """The command of a format of the user's own."""

    def packed(
        source: str,
        out: str,
        near: float | None = form.near,
        far: float | None = form.far,
        background: Backdrop = form.background,
        name: str = form.name,
        **options: Any,
    ) -> None:
        if near is None or far is None:
            raise UserError(f"{form.name}: the format does not state ray bounds: give --near and --far")
        run(form, Settings, source, out, near, far, background, name, **options)

    packed.__doc__ = f"{(inspect.getdoc(form) or form.name).splitlines()[0]}\n\n{COMMON}"
    return packed


def srn(
    source: str,
    out: str,
    near: float = 0.8,
    far: float = 1.8,
    background: Backdrop = "white",
    name: str = "srn",
    **options: Any,
) -> None:
    """Pack a data set in the ShapeNet-SRN layout: OBJECT/{intrinsics.txt, rgb/*.png, pose/*.txt}.

    An interrupted pack continues when the same command is given again. Poses are camera-to-world with OpenCV axes,
    world z up.

    Args:
        source: folder of one split; objects may lie deeper, as in srn_cars/cars_train or chairs_train/chairs_2.0_train.
        out: shard folder to make; it appears under this name only when complete.
        near: nearest ray distance from the camera in world units, Euclidean. The default suits SRN cars; chairs need
            1.25.
        far: farthest ray distance. The default suits SRN cars; chairs need 2.75.
        background: what lies behind the object in images without transparency.
        name: data set name stored with every scene.
    """
    from vcgen.data.formats.srn import Srn

    run(Srn(), Settings, source, out, near, far, background, name, **options)


def transforms(
    source: str,
    out: str,
    near: float | None = None,
    far: float | None = None,
    background: Backdrop = "none",
    name: str = "transforms",
    **options: Any,
) -> None:
    """Pack transforms.json scenes: NeRF-synthetic (Blender), instant-ngp and nerfstudio.

    An interrupted pack continues when the same command is given again. Poses are camera-to-world with OpenGL axes,
    world z up. Lens distortion (k1 to k4, p1, p2) is removed; fisheye lenses are refused.

    Args:
        source: folder with transforms_SPLIT.json or transforms.json (one scene), or a folder of such folders (many
            scenes).
        out: shard folder to make; it appears under this name only when complete.
        near: nearest ray distance from the camera, Euclidean, in stored units. Required; 2 for NeRF-synthetic.
        far: farthest ray distance. Required; 6 for NeRF-synthetic.
        background: what lies behind the object in images without transparency.
        name: data set name stored with every scene.
    """
    from vcgen.data.formats.transforms import Transforms

    if near is None or far is None:
        raise UserError("transforms files do not state ray bounds: give --near and --far (2 and 6 for NeRF-synthetic)")
    run(Transforms(), Settings, source, out, near, far, background, name, **options)


def colmap(
    source: str,
    out: str,
    near: float | None = None,
    far: float | None = None,
    background: Backdrop = "none",
    name: str = "colmap",
    images: str = "",
    masks: str = "",
    up: Up = "auto",
    **options: Any,
) -> None:
    """Pack COLMAP models with their images, as COLMAP, GLOMAP, VGGT, Depth-Anything-3 and InstantSplat write them.

    An interrupted pack continues when the same command is given again. Text and binary models are read, with every
    camera model but panoramas; lens distortion and fisheyes are undone. The world is turned so that z is up.

    Args:
        source: folder with images/ and sparse/0/, or with the model itself (one scene), or a folder of such folders
            (many scenes). Of several models of a scene the largest is taken.
        out: shard folder to make; it appears under this name only when complete.
        near: nearest ray distance from the camera, Euclidean, in stored units. By default the sparse points tell: the
            least 1st percentile, over all images, of the distances of the points in it, divided by 1.1.
        far: farthest ray distance. By default the largest 99th percentile, times 1.1.
        background: what lies behind the object in images without transparency.
        name: data set name stored with every scene.
        images: folder of the images, in the scene's or a full path; by default images/ or input/ beside the model.
        masks: folder of masks, white where the object is, named IMAGE.png or as the image; they become transparency.
        up: axis of the model that becomes z; auto guesses it by how the camera was held, and says what it guessed.
    """
    from vcgen.data.formats.colmap import Colmap, ColmapSettings

    measured = tuple(name for name, bound in (("near", near), ("far", far)) if bound is None)
    make = partial(ColmapSettings, images=images, masks=masks, up=up, measured=measured)
    near, far = near or 0.0, sys.float_info.max if far is None else far
    run(Colmap(), make, source, out, near, far, background, name, **options)


def run(
    form: SceneFormat[Any, Any],
    make: Callable[..., Settings],
    source: str,
    out: str,
    near: float,
    far: float,
    background: str,
    name: str,
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
    """Pack with the options that all formats share.

    Args:
        size: shrink images: "64" for square ones or "HEIGHTxWIDTH", by an exact area mean of premultiplied color.
        split: name stored with every scene; for transforms also which transforms_SPLIT.json to read (else
            transforms.json, and of it the frames that SPLIT_filenames lists).
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
    pattern = check_pattern(group_pattern)
    check_numbers(near, far, scale, hold_out_views)
    if not re.fullmatch(r"[\w.-]{1,80}", split):
        raise UserError(f"--split {split!r}: a split's name has letters, digits, '_', '-' and '.' only")
    if split == "train" and re.search(r"(^|[_-])(test|val)$", Path(source).resolve().name, re.IGNORECASE):
        complain(f"{source} is packed as split train; if it is for testing, give --split test", "warning")
    settings = make(
        None if size is None else parse_size(size),
        near,
        far,
        background,
        name,
        split,
        licence,
        pattern,
        scale,
        recenter,
        hold_out_views,
        crops,
    )
    pack(form.list_scenes, form.read_scene, source, out, settings, samples_per_shard, workers, skip_broken, overwrite)


def check_numbers(near: float, far: float, scale: float, hold_out_views: int) -> None:
    """Raise UserError for an option that no scene can be packed with."""
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


def check_pattern(pattern: str) -> str:
    """Return a regular expression with at least one group unchanged; raises UserError for others."""
    try:
        if pattern and re.compile(pattern).groups < 1:
            raise UserError(f"--group-pattern {pattern!r}: needs a group in parentheses, e.g. '(.+)_[0-9]+'")
    except re.error as error:
        raise UserError(f"--group-pattern {pattern!r}: not a regular expression ({error})") from error
    return pattern
