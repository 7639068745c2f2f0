"""``vcgen render``: one picture of an object becomes novel views, depth, a turntable and a mesh."""

import json
import sys
from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcgen.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from vcgen.export.outputs import OutputOptions
    from vcgen.export.stage import Stage
    from vcgen.systems.distilled import Distilled


def main(arguments: list[str]) -> None:
    """Entry point of ``vcgen render``."""
    from jsonargparse import auto_cli

    words = plain_words(arguments, lists=("--image", "--azimuths", "--plugins"), flags={"--as_is": "true", "--distill": "default"})
    auto_cli(render, args=words, prog="vcgen render", as_positional=False, description=getdoc(render).split("Args:")[0])


def plain_words(arguments: list[str], lists: tuple[str, ...], flags: dict[str, str]) -> list[str]:
    """What people type -> the form that the parser knows.

    ``lists`` take several words: ``--image a.png b.png`` -> ``--image=["a.png", "b.png"]``. ``flags`` have a value for when none is given:
    ``--as_is`` -> ``--as_is=true``. Hyphens do for underscores in the names of options: ``--mesh-resolution`` -> ``--mesh_resolution``.
    """
    words: list[str] = []
    position = 0
    while position < len(arguments):
        name, equals, value = arguments[position].partition("=")
        position += 1
        values = [value] if equals else []
        if not name.startswith("--"):
            words.append(name + equals + value)
            continue
        name = "--" + name[2:].replace("-", "_")
        while not equals and position < len(arguments) and not arguments[position].startswith("--"):
            values.append(arguments[position])
            position += 1
        if name in lists and not (len(values) == 1 and values[0].startswith("[")):
            words.append(f"{name}={json.dumps(values)}")
        elif name in flags and not values:
            words.append(f"{name}={flags[name]}")
        else:
            words += [f"{name}={values[0]}", *values[1:]] if values else [name]
    return words


def render(
    model: str, image: list[str], out: str, views: int = 8, azimuths: list[float] | None = None, elevation: float | None = None,
    size: int | None = None, turntable_frames: int = 60, fps: float = 20.0, mesh_resolution: int = 128, threshold: float | None = None,
    input_elevation: float | None = None, input_distance: float | None = None, fov: float | None = None, fill: float = 0.78,
    as_is: bool = False, distill: str | None = None, device: str = "auto", seed: int = 0,
    plugins: list[str] | None = None,
) -> None:
    """Show one object from all sides, given one picture of it.

    Writes to OUT (one folder per picture inside OUT when there are several): input.png, what the model was shown; views/, the novel views;
    contact_sheet.png, all of them with their depth; depth/, 16-bit PNG files (world units = value * depth_unit of render.json, 0 = nothing
    there) and depth_colour/, the same to look at (red near, blue far); turntable.gif and turntable.mp4; mesh.glb, with vertex colours;
    render.json, every camera and setting. With --distill, OUT/fields keeps the finetuned fields, and a rerun with the same model, picture
    and settings finds them again. The world is z-up, its origin is the object's middle; the input camera stands at azimuth 0. In options,
    hyphens do for underscores.

    Args:
        model: the model folder that vcgen export wrote.
        image: one or more pictures, each of one object, with alpha or a plain background.
        out: the folder to write to; files of an earlier run are replaced.
        views: how many novel views, spread evenly around the object from azimuth 0.
        azimuths: the views' azimuths in degrees instead; 0 is the input's side, 90 a quarter turn counter-clockwise seen from above.
        elevation: elevation of all novel views in degrees, between -90 and 90; the input's by default.
        size: width of the novel views in pixels; the model's own by default.
        turntable_frames: frames of the turntable's full turn; 0 writes none.
        fps: frames per second of the turntable.
        mesh_resolution: grid points along each edge of the cube that the mesh is extracted from; 0 writes none.
        threshold: the density (per world unit) of the mesh's surface; by default it lies where a tenth of the light is stopped.
        input_elevation: elevation in degrees from which the picture was taken; the model's default camera otherwise.
        input_distance: distance between the picture's camera and the object's middle, in world units; the model's default otherwise, and
            the only one that suits models trained at a single distance.
        fov: horizontal field of view of all cameras in degrees; the model's default otherwise.
        fill: share of the frame that the object is scaled to fill, between 0.1 and 1.
        as_is: keep the picture's framing (only pad and resize), for pictures framed like the training data.
        distill: finetune the field by the model's diffusion prior first (under a minute on one CPU core at 64 px): a configuration
            such as configs/distill.yaml, or nothing for the same settings.
        device: cpu, cuda, cuda:1, ... ; auto takes a GPU when there is one.
        seed: of the distillation's noise.
        plugins: packages of your own whose classes the model may name, as VCGEN_PLUGINS does; see docs/security.md.
    """
    _check(views, turntable_frames, mesh_resolution, size, fps, elevation, input_elevation)
    targets = _targets(image, Path(out))
    from vcgen.export.outputs import OutputOptions
    from vcgen.export.stage import Stage

    system = _open(model, device, distill, seed, Path(out) / "fields", plugins or ())
    stage = Stage.of(system.config, input_elevation, input_distance, fov)
    options = OutputOptions(
        azimuths=tuple(360 * i / views for i in range(views)) if azimuths is None else tuple(azimuths),
        elevation=stage.elevation if elevation is None else elevation,
        size=stage.image_size if size is None else (round(size * stage.image_size[0] / stage.image_size[1]), size),
        turntable_frames=turntable_frames, fps=fps, mesh_resolution=mesh_resolution, threshold=threshold, fill=fill, as_is=as_is,
    )
    _render_all(system, stage, targets, options, {"model": str(model), "distill": distill, "seed": seed})


def _open(
    model: str, device: str, distill: str | None, seed: int, keep: Path, plugins: Sequence[str]
) -> "LightningModule | Distilled":
    import torch

    from vcgen.export import folder

    system = folder.load(model, ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device, plugins)
    if distill is None:
        return system
    from vcgen.systems.distilled import distilled

    return distilled(system, distill, seed, keep, plugins=plugins)


def _render_all(
    system: "LightningModule | Distilled", stage: "Stage", targets: dict[Path, Path], options: "OutputOptions", record: dict[str, Any]
) -> None:
    """Every picture, even when an earlier one had problems; these end the command."""
    import torch

    from vcgen.export.outputs import render_picture

    problems = []
    for picture, target in targets.items():
        torch.manual_seed(record["seed"])
        report = render_picture(system, stage, picture, target, options, record)
        print("\n".join(report.lines))
        problems += report.problems
    if problems:
        sys.stdout.flush()
        raise UserError("; ".join(problems))


def _check(
    views: int, turntable_frames: int, mesh_resolution: int, size: int | None, fps: float, *elevations: float | None
) -> None:
    if views < 1:
        raise UserError(f"--views must be at least 1, not {views}")
    if turntable_frames < 0 or turntable_frames == 1:
        raise UserError(f"--turntable-frames must be 0 (none) or at least 2, not {turntable_frames}")
    if mesh_resolution and mesh_resolution < 8:
        raise UserError(f"--mesh-resolution must be 0 (none) or at least 8, not {mesh_resolution}")
    if size is not None and not 8 <= size <= 4096:
        raise UserError(f"--size must lie between 8 and 4096 pixels, not {size}")
    if not 1 <= fps <= 50:
        raise UserError(f"--fps must lie between 1 and 50, not {fps}")
    for value in elevations:
        # At the poles the direction of image-up is undefined.
        if value is not None and not -90 < value < 90:
            raise UserError(f"an elevation must lie between -90 and 90 degrees, not {value}")


def _targets(images: list[str], out: Path) -> dict[Path, Path]:
    """The folder to write to, for every picture."""
    pictures = [Path(name) for name in images]
    if not pictures:
        raise UserError("--image needs at least one picture")
    for picture in pictures:
        if not picture.is_file():
            raise UserError(f"{picture} is missing: --image takes PNG or JPEG files")
    names = [picture.stem for picture in pictures]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two pictures are named {twice[0]}: their results would overwrite one another, so rename one or run twice")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: --out takes a folder")
    return {picture: out if len(pictures) == 1 else out / picture.stem for picture in pictures}
