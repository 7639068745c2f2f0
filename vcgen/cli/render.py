"""``vcgen render``: an image of an object, or several with their cameras, becomes novel views, depth, a turntable and a
mesh.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from inspect import getdoc, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vcgen.cli import usage
from vcgen.errors import UserError
from vcgen.terminal import complain, one_line, say

if TYPE_CHECKING:
    from vcgen.cli.render_outputs import MeshOptions, OutputOptions
    from vcgen.data.input_camera import InputCamera
    from vcgen.systems.distillation.distilled import Distilled
    from vcgen.types import FieldModel, Views

#: Views, and frames of a turntable, at most.
MOST = 3600


def main(arguments: list[str]) -> None:
    """Entry point of ``vcgen render``."""
    about = (getdoc(render) or "").split("Args:")[0]
    usage.run(render, arguments, "vcgen render", flags={"--distill": "default"}, description=about)


def render(
    model: str,
    image: list[str],
    out: str,
    cameras: str | None = None,
    views: int | None = None,
    azimuths: list[float] | None = None,
    elevation: float | None = None,
    size: int | None = None,
    transparent: bool = False,
    turntable_frames: int = 60,
    fps: float = 20.0,
    mesh_resolution: int = 128,
    mesh: Literal["colored", "textured"] = "colored",
    mesh_format: list[Literal["glb", "ply", "obj", "stl"]] = ["glb"],
    texture_size: int | None = None,
    threshold: float | None = None,
    input_elevation: float | None = None,
    input_distance: float | None = None,
    fov: float | None = None,
    fill: float = 0.78,
    as_is: bool = False,
    distill: str | None = None,
    device: str = "auto",
    seed: int = 0,
    plugins: list[str] | None = None,
) -> None:
    """Show one object from all sides, given one image of it, or several with their cameras.

    Writes to OUT (one folder per image inside OUT when there are several of several objects): input.png, what the model
    was shown; views/, the novel views with their cameras.json; contact_sheet.png, all of them with their depth; depth/,
    16-bit PNG files (world units = value * depth_unit of render.json, 0 = nothing there) and depth_color/, the same to
    look at (yellow near, violet far); turntable.gif and turntable.mp4; mesh.glb, with vertex colors or a texture;
    render.json, every camera and setting. With --distill, OUT/fields keeps the finetuned fields, and a rerun with the
    same model, image and settings finds them again. The world is z-up, its origin is the object's middle; the input
    camera stands at azimuth 0, or where --cameras says. In options, hyphens do for underscores.

    Args:
        model: the model folder that vcgen export wrote.
        image: one or more images, each of another object, with alpha, on a plain background, or on any where rembg is
            installed.
        out: the folder to write to; files of an earlier run are replaced.
        cameras: a JSON file of poses and intrinsics, in the world of the model's training data, with a camera by name
            for each image: these then are views of one object, taken as they are; see docs/inference.md.
        views: how many novel views, spread evenly around the object from azimuth 0; 8 unless azimuths are given.
        azimuths: the views' azimuths in degrees instead; 0 is the input's side, 90 a quarter turn counter-clockwise
            seen from above.
        elevation: elevation of all novel views in degrees, between -90 and 90; the input's by default, of several
            views their median.
        size: width of the novel views in pixels; the model's own by default.
        transparent: write the views with straight alpha instead of over the model's background.
        turntable_frames: frames of the turntable's full turn; 0 writes none.
        fps: frames per second of the turntable.
        mesh_resolution: grid points along each edge of the cube that the mesh is extracted from; 0 writes none.
        mesh: colored, by a color for each vertex, or textured, by an image, for glb and obj; its charts are made by
            xatlas where that is installed, else each triangle has a patch of its own.
        mesh_format: of the mesh: glb, ply, obj, stl (without colors), or several of them.
        texture_size: texels along a side of the texture; 1024 by default, or what the patches of all triangles need.
        threshold: the density (per world unit) of the mesh's surface; by default it lies where a tenth of the light is
            stopped.
        input_elevation: elevation in degrees from which the image was taken; the model's default camera otherwise.
        input_distance: distance between the image's camera and the object's middle, in world units; the model's default
            otherwise, and the only one that suits models trained at a single distance.
        fov: horizontal field of view of all cameras in degrees; the model's default otherwise.
        fill: fraction of the frame that the object is scaled to fill, between 0.1 and 1.
        as_is: keep the image's framing (only pad and resize), for images framed like the training data.
        distill: finetune the field by the model's diffusion prior first (under a minute on one CPU core at 64 px): a
            configuration such as configs/distill.yaml, or nothing for the same settings.
        device: cpu, cuda, cuda:1, ... ; auto takes a GPU when there is one.
        seed: of the distillation's noise.
        plugins: packages of your own whose classes the model may name, as VCGEN_PLUGINS does; see docs/security.md.
    """
    arguments = dict(locals())  # before there are other names
    _check_outputs(views, azimuths, elevation, size, turntable_frames, fps)
    _check_input(arguments)
    meshes = _meshes(mesh, mesh_format, mesh_resolution, texture_size, threshold)
    device, targets = usage.choose_device(device), _targets(image, Path(out), cameras)
    from vcgen.checkpoints.model_folder import read_config
    from vcgen.cli.render_outputs import OutputOptions
    from vcgen.data.input_camera import InputCamera

    config = read_config(model)
    input_camera, (height, width) = InputCamera.of(config, input_elevation, input_distance, fov), config["image_size"]
    shown, input_camera = _read(targets, cameras, config, input_camera, fill, as_is)
    options = OutputOptions(
        azimuths=tuple(azimuths or (360 * i / (views or 8) for i in range(views or 8))),
        elevation=input_camera.elevation if elevation is None else elevation,
        size=(height, width) if size is None else (max(1, round(size * height / width)), size),
        background=float(config["background"]),
        turntable=(turntable_frames, fps),
        meshes=meshes,
        transparent=transparent,
    )
    _render_all(_open(arguments, device), input_camera, shown, options, arguments)


def _check_outputs(
    views: int | None,
    azimuths: list[float] | None,
    elevation: float | None,
    size: int | None,
    turntable_frames: int,
    fps: float,
) -> None:
    usage.within("--views", views, 1, MOST)
    usage.within("--turntable-frames", turntable_frames or None, 2, MOST, ", or be 0 for none")
    usage.within("--size", size, 8, 4096, " pixels")
    usage.within("--fps", fps, 1, 50)
    usage.within("--elevation", elevation, -90, 90, " degrees", strict=True)  # at the poles image-up is undefined
    for azimuth in azimuths or ():
        usage.within("--azimuths", azimuth, -1e6, 1e6, " degrees")
    if azimuths is not None and not 0 < len(azimuths) <= MOST:
        raise UserError(f"--azimuths needs 1 to {MOST} angles")
    if views is not None and azimuths is not None:
        raise UserError("--views spreads views evenly, --azimuths says where they are: give one of the two")


def _meshes(
    mesh: str, formats: Sequence[str], resolution: int, size: int | None, threshold: float | None
) -> "MeshOptions":
    usage.within("--mesh-resolution", resolution or None, 8, 1024, ", or be 0 for none")
    usage.within("--threshold", threshold, 0, strict=True)
    usage.within("--texture-size", size, 64, 8192, " texels")
    if mesh == "textured" and (plain := [name for name in formats if name not in ("glb", "obj")]):
        raise UserError(f"--mesh textured is written as glb or obj; {plain[0]} holds no texture: leave it out")
    if mesh == "colored" and size is not None:
        raise UserError("--texture-size is of a texture: give --mesh textured, or leave it out")
    from vcgen.cli.render_outputs import MeshOptions

    return MeshOptions(resolution, tuple(dict.fromkeys(formats)), mesh == "textured", size, threshold)


def _check_input(arguments: Mapping[str, Any]) -> None:
    usage.within("--seed", arguments["seed"], 0, usage.LARGEST_SEED)
    usage.within("--input-elevation", arguments["input_elevation"], -90, 90, " degrees", strict=True)
    usage.within("--input-distance", arguments["input_distance"], 0, strict=True)
    usage.within("--fov", arguments["fov"], 1, 150, " degrees")
    usage.within("--fill", arguments["fill"], 0.1, 1)
    if arguments["cameras"] is not None:
        _check_posed(arguments)


def _check_posed(arguments: Mapping[str, Any]) -> None:
    """Raise UserError for options that do not go with a file of cameras."""
    defaults = {name: option.default for name, option in signature(render).parameters.items()}
    for name in ("input_elevation", "input_distance", "fov", "fill"):
        if arguments[name] != defaults[name]:
            raise UserError(
                f"--cameras says how the images were taken, and so does {usage.shown('--' + name)}: leave it out"
            )
    if arguments["distill"] and len(arguments["image"]) > 1:
        raise UserError("--distill finetunes the field of one image: give one, or leave --distill out")


def _open(arguments: Mapping[str, Any], device: str) -> "FieldModel | Distilled":
    from vcgen.checkpoints import model_folder as folder

    plugins = arguments["plugins"] or ()
    system = folder.load(arguments["model"], device, plugins)
    if arguments["distill"] is None:
        return system
    from vcgen.systems.distillation.distilled import distilled

    keep = Path(arguments["out"]) / "fields"
    return distilled(system, arguments["distill"], arguments["seed"], keep, plugins=plugins)


def _render_all(
    system: "FieldModel | Distilled",
    input_camera: "InputCamera",
    shown: "Mapping[Path, tuple[str, Views]]",
    options: "OutputOptions",
    arguments: dict[str, Any],
) -> None:
    """Every object, even when an earlier one had problems; these end the command. shown: the folder to write to -> a
    name, and what the model is shown."""
    import torch

    from vcgen.cli.render_outputs import render_image
    from vcgen.folders import create_folder

    problems, most = [], getattr(system, "most_views", None)
    for _, context in shown.values():
        if most is not None and (count := context.cameras.shape[1]) > most:
            found = f"--cameras gives {count} input views, {arguments['model']} looks at {most}"
            raise UserError(f"{found}: give as many images, or a model that looks at several")
    for target in shown:
        create_folder(target)
    for target, (name, context) in shown.items():
        torch.manual_seed(arguments["seed"])
        report = render_image(system, input_camera, name, context, target, options, arguments)
        say(*report.lines)
        problems += report.problems
    if problems:
        sys.stdout.flush()
        raise UserError("; ".join(problems))


def _targets(images: list[str], out: Path, cameras: str | None) -> list[tuple[Path, Path]]:
    """Every path, and the folder to write to."""
    from vcgen.cli.render_outputs import keep_inputs
    from vcgen.data.images.reading import image_in

    paths = [image_in(name) for name in images]
    if not paths:
        raise UserError("--image needs at least one image")
    names = [path.stem for path in paths]
    if cameras is None and (twice := [name for name in names if names.count(name) > 1]):
        raise UserError(
            f"two images are named {twice[0]}: their results would overwrite one another, so rename one or run twice"
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: --out takes a folder")
    targets = [(path, out if cameras or len(paths) == 1 else out / path.stem) for path in paths]
    keep_inputs([*paths, *([Path(cameras)] if cameras else [])], [target for _, target in targets])
    return targets


def _read(
    targets: Sequence[tuple[Path, Path]],
    cameras: str | None,
    config: dict[str, Any],
    camera: "InputCamera",
    fill: float,
    as_is: bool,
) -> "tuple[dict[Path, tuple[str, Views]], InputCamera]":
    """Every image as the model sees it, or all as views of one object, with a name, by the folder to write to; and the
    camera whose orbit the novel views are on, of several views at their median elevation. Warns of images that are far
    from the training data. Raises UserError for all together that cannot be used, before anything is rendered.
    """
    from vcgen.data.images.photo import prepare

    size = tuple(config["image_size"])
    if cameras is not None:
        from vcgen.cameras import view_angles
        from vcgen.data.posed_images import posed_views

        first, more = targets[0][0], f" and {len(targets) - 1} more" if len(targets) > 1 else ""
        context = posed_views([path for path, _ in targets], Path(cameras), size, camera)
        _warn_of_far(config, [(str(path), context[:, i : i + 1]) for i, (path, _) in enumerate(targets)])
        elevation = float(view_angles(context.cameras.centers)[1].median())
        return {targets[0][1]: (f"{first}{more}", context)}, replace(camera, elevation=elevation)
    images: dict[Path, tuple[str, Views]] = {}
    faults = []
    for path, target in targets:
        try:
            images[target] = str(path), camera.context(prepare(path, size, fill, as_is))
        except UserError as error:
            faults.append(str(error))
    if faults:
        more = (
            f" ({len(faults)} of {len(faults) + len(images)} images cannot be used; nothing was rendered)"
            if images
            else ""
        )
        raise UserError(one_line("; ".join(faults) + more))
    _warn_of_far(config, images.values())
    return images, camera


def _warn_of_far(config: dict[str, Any], shown: "Iterable[tuple[str, Views]]") -> None:
    """A line for each image, named, with its view (1, 1), that is far from those that the model learned from, where
    its folder knows them."""
    from vcgen.data.familiar import Familiar

    if known := Familiar.of(config):
        for name, view in shown:
            if text := known.warning(view):
                complain(f"{name}: {text}", "warning")
