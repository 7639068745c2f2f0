"""What ``vcgen render`` writes for one object."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from vcgen import provenance
from vcgen.cameras import Cameras
from vcgen.data.input_camera import InputCamera
from vcgen.errors import UserError
from vcgen.io import write_bytes
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.terminal import printable
from vcgen.types import Field, FieldModel, Rendering, Scene, Views
from vcgen.visualization.images import contact_sheet, depth_image, to_uint8, write_gif, write_mp4, write_png
from vcgen.visualization.mesh_files import write_mesh

if TYPE_CHECKING:
    from vcgen.systems.distillation.distilled import Distilled


@dataclass(frozen=True)
class MeshOptions:
    """resolution: grid points along an edge, 0 for no mesh; formats: suffixes of mesh files, without the dot; textured:
    whether they have a texture, of ``texture_size`` texels a side, instead of vertex colors; threshold: see
    :func:`extract_mesh`."""

    resolution: int
    formats: tuple[str, ...]
    textured: bool
    texture_size: int | None
    threshold: float | None


@dataclass(frozen=True)
class OutputOptions:
    """The arguments of :func:`vcgen.cli.render.render` that say what to write. azimuths, elevation: degrees; size:
    (height, width); background: the model's gray level; turntable: frames, and how many per second."""

    azimuths: tuple[float, ...]
    elevation: float
    size: tuple[int, int]
    background: float
    turntable: tuple[int, float]
    meshes: MeshOptions
    transparent: bool


#: An image of whose contrast the field misses more is unlike those that the shipped model learned from, of which it
#: misses less (benchmarks/far_images.py).
FAR = 0.055


#: Files in the folder of an object, beside those of views.
FILES = ("input.png", "contact_sheet.png", "turntable.gif", "turntable.mp4", "render.json", "mesh.png")
#: The folders of views in it.
KINDS = ("views", "depth", "depth_color")
#: Of a file that a run writes there.
VIEW = re.compile(r"\d{3,}_azimuth_\d{3}\.png|cameras\.json")


@dataclass(frozen=True)
class Report:
    """lines: what was written, for the user. problems: what could not be."""

    lines: list[str]
    problems: list[str]


def render_image(
    system: "FieldModel | Distilled",
    input_camera: InputCamera,
    name: str,
    context: Views,
    target: Path,
    options: OutputOptions,
    arguments: dict[str, Any],
) -> Report:
    """Write everything for one object, of which the model is shown ``context``, (1, n) views with alpha, to the folder
    ``target``. input_camera: of whose orbit the novel views are. name: what the views are called. arguments: of the
    command, for render.json.
    """
    assert context.alpha is not None, "images that are prepared have coverage"
    write_png(target / "input.png", to_uint8(torch.cat([*torch.cat([context.images, context.alpha], 2)[0]], -1)))
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    with torch.no_grad(), bar:
        context = context.to(system.device)
        field = system.field(context)
        lost = missed(system, field, context, options.background)
        cameras = input_camera.cameras(options.azimuths, options.elevation, context.size)
        rendered = _render(system, field, cameras, options, bar, f"{Path(name).name}: views")
        views = Rendering(*(torch.stack(parts) for parts in zip(*rendered, strict=True)))
        lines = [f"{name} -> {target}", *_warning(lost), *_write_views(views, cameras, input_camera, target, options)]
        count, fps = options.turntable
        if count:
            angles = [360 * i / count for i in range(count)]
            around = input_camera.cameras(angles, options.elevation, context.size)
            turn = _render(system, field, around, options, bar, f"{Path(name).name}: turntable")
            frames = np.stack([to_uint8(rendering.rgb) for rendering in turn])
            gif = write_gif(target / "turntable.gif", frames, fps)
            mp4 = write_mp4(target / "turntable.mp4", frames, fps)
            lines += [_line(gif, f"{len(frames)} frames, {fps:g} per second"), _line(mp4, "the same as H.264")]
    mesh, problems = (
        ({}, []) if not options.meshes.resolution else _write_mesh(field, input_camera, target, options.meshes, lines)
    )
    record = {
        "image": name,
        "missed": lost,
        "input_cameras": _entries(context.cameras[0]),
        **_record(input_camera, cameras, options),
        "mesh": mesh,
        "arguments": arguments,
    }
    write_bytes(
        target / "render.json", (json.dumps(record | provenance.record(), indent=2, default=str) + "\n").encode()
    )
    return Report(
        [*lines, _line(target / "render.json", "cameras, settings, versions")],
        [f"{name}: {problem}" for problem in problems],
    )


def keep_inputs(inputs: Iterable[Path], targets: Iterable[Path]) -> None:
    """Raise UserError for a file that is read where one of the results, in the folders ``targets``, would replace
    it.
    """
    folders = {target.resolve() for target in targets}
    for path in inputs:
        name, folder = path.name, path.resolve().parent
        view = folder.name in KINDS and folder.parent in folders and VIEW.fullmatch(name)
        if view or (folder in folders and name in FILES):
            raise UserError(f"{path}: is read, and the results would replace it; choose another --out")


def missed(system: "FieldModel | Distilled", field: Scene, context: Views, background: float) -> float:
    """The part of the input images' contrast that their field does not show from the inputs' own sides: mean squared
    difference of the two, over that of images and background. context: (1, n) views."""
    image = context.on(background)
    rendered = system.render(field, context.cameras, context.size, background).rgb
    contrast = (image - background).square().mean().clamp(min=1e-8)
    return float((rendered - image).square().mean() / contrast)


def _warning(lost: float) -> list[str]:
    if lost <= FAR:
        return []
    found = f"  warning: from its own side the field misses {lost:.0%} of what the image shows"
    return [f"{found}; the image may be unlike those that the model learned from: expect little of its other sides"]


def _render(
    system: "FieldModel | Distilled", field: Scene, cameras: Cameras, options: OutputOptions, bar: Progress, name: str
) -> Iterator[Rendering]:
    """Render cameras (n,) one at a time, which bounds memory and moves the bar; on the CPU, (channels, height, width)
    each.
    """
    cameras = cameras.to(system.device)
    for index in bar.track(range(len(cameras.near)), description=printable(name)):
        rendering = system.render(field, cameras[index : index + 1].reshape(1, 1), options.size, options.background)
        yield Rendering(*(part[0, 0].float().cpu() for part in rendering))


def _write_views(
    views: Rendering, cameras: Cameras, input_camera: InputCamera, target: Path, options: OutputOptions
) -> list[str]:
    images, depth, alpha = (
        to_uint8(views.rgb),
        surface_depth(views, input_camera.far).numpy(),
        views.alpha[:, 0].numpy(),
    )
    colored = depth_image(depth, input_camera.near, input_camera.far, alpha)
    stored = np.where(alpha >= 0.5, np.clip(np.round(depth / _depth_unit(input_camera)), 1, 65535), 0).astype(np.uint16)
    shown = straight_rgba(views, options.background) if options.transparent else images
    names = _names(options.azimuths)
    for path in (path for kind in KINDS for path in (target / kind).glob("*.png")):
        if VIEW.fullmatch(path.name) and path.name not in names:
            path.unlink()  # of an earlier run
    for index, name in enumerate(names):
        write_png(target / "views" / name, shown[index])
        write_png(target / "depth" / name, stored[index])
        write_png(target / "depth_color" / name, colored[index])
    stated = {"c2w": cameras.c2w.tolist(), "K": cameras.K.tolist(), "views": names}
    bounds = {"t_near": input_camera.near, "t_far": input_camera.far}
    write_bytes(target / "views" / "cameras.json", (json.dumps(stated | bounds) + "\n").encode())
    columns, clear = min(8, len(images)), ", with straight alpha" if options.transparent else ""
    blank = np.full((-len(images) % columns, *images.shape[1:]), 255, np.uint8)
    write_png(target / "contact_sheet.png", contact_sheet(np.concatenate([images, blank, colored]), columns))
    return [
        _line(target / "input.png", "what the model was shown"),
        _line(
            target / "views",
            f"{len(images)} views, {options.size[1]} x {options.size[0]} pixels{clear}, and cameras.json",
        ),
        _line(
            target / "depth", f"16-bit depth, world units = value * {_depth_unit(input_camera):.6g}, 0 = nothing there"
        ),
        _line(target / "depth_color", "the same to look at: yellow near, violet far"),
        _line(target / "contact_sheet.png", "views and depth on one page"),
    ]


def _write_mesh(
    field: Scene, input_camera: InputCamera, target: Path, options: MeshOptions, lines: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """An image without a surface still has its views, so the reason is returned instead of raised."""
    radius = input_camera.radius if not math.isfinite(float(field.radius[0])) else None
    try:
        surface = extract_mesh(field, options.resolution, options.threshold, radius)
    except UserError as error:
        return {}, [f"no mesh was written: {error}"]
    mesh, texture, look = surface.mesh, None, ""
    if options.textured:
        from vcgen.rendering.baking import bake, described, field_colors  # which no other rendering needs

        texture = bake(mesh, field_colors(cast(Field, field), surface.spacing), options.texture_size)
        look = f", {described(texture)}"
    for suffix in options.formats:
        path = write_mesh(target / f"mesh.{suffix}", mesh, texture)
        colors = ", without colors" if suffix == "stl" else look
        lines.append(_line(path, f"{len(mesh.faces)} triangles{colors}"))
    return {
        "threshold": surface.threshold,
        "density_range": surface.density_range,
        "resolution": options.resolution,
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "texture": None if texture is None else len(texture.image),
    }, []


def _record(input_camera: InputCamera, cameras: Cameras, options: OutputOptions) -> dict[str, Any]:
    return {
        "world": (
            "z up, origin at the object's middle; camera-to-world with OpenCV axes; intrinsics normalized by width and"
            " height"
        ),
        "depth_unit": _depth_unit(input_camera),
        "background": None if options.transparent else options.background,
        "views": [
            {"name": name, "azimuth": azimuth, "elevation": options.elevation, **entry}
            for name, azimuth, entry in zip(_names(options.azimuths), options.azimuths, _entries(cameras), strict=True)
        ],
    }


def _entries(cameras: Cameras) -> list[dict[str, Any]]:
    """Cameras (n,) for render.json."""
    parts = (part.tolist() for part in (cameras.c2w, cameras.K, cameras.near, cameras.far))
    return [dict(zip(("c2w", "K", "near", "far"), values, strict=True)) for values in zip(*parts, strict=True)]


def surface_depth(views: Rendering, far: float) -> torch.Tensor:
    """Distances (n, height, width) of what is seen, without the part of ``far`` that the depth of a rendering has where
    light passes, as at outlines; ``far`` where nothing is seen."""
    depth, alpha = views.depth[:, 0], views.alpha[:, 0]
    return torch.where(alpha > 1e-2, (depth - (1 - alpha) * far) / alpha.clamp(min=1e-2), far)


def straight_rgba(views: Rendering, background: float) -> NDArray[np.uint8]:
    """Views (n, channels, height, width) over a gray level -> (n, height, width, 4): the color without it, white where
    nothing is seen, and the opacity."""
    color = (views.rgb - (1 - views.alpha) * background) / views.alpha.clamp(min=1e-4)
    return to_uint8(torch.cat([torch.where(views.alpha > 1e-3, color, 1.0), views.alpha], 1))


def _names(azimuths: tuple[float, ...]) -> list[str]:
    return [f"{index:03d}_azimuth_{round(azimuth) % 360:03d}.png" for index, azimuth in enumerate(azimuths)]


def _depth_unit(input_camera: InputCamera) -> float:
    """World units per step of the 16-bit depth images: the far plane is the largest number."""
    return input_camera.far / 65535


def _line(path: Path, what: str) -> str:
    return f"  {path}: {what}"
