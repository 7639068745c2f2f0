"""What a fitted scene leaves behind: images, a turntable, meshes, a model folder."""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from vcgen.cameras import Cameras, view_angles
from vcgen.data.input_camera import InputCamera
from vcgen.data.viewpoints import around
from vcgen.encoders.base import OptimizedScene
from vcgen.encoders.scene_shown import ShownScene
from vcgen.errors import UserError
from vcgen.fields.occupancy import OccupancyGrid
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.volume import RenderOptions
from vcgen.schema import AtLeastOne, Count, Side
from vcgen.systems.nerfdiff import save_scene
from vcgen.types import Field, Rendering, Views
from vcgen.visualization.images import contact_sheet, depth_image, to_uint8, write_gif, write_mp4, write_png
from vcgen.visualization.logging import show_image
from vcgen.visualization.mesh_files import write_mesh


@dataclass(frozen=True)
class OutcomeOptions:
    """Images and meshes written at the end of a run.

    Args:
        frames: Of the turntable, 0 for none.
        mesh_resolution: Grid points along the volume's edge, 0 for no mesh.
        views: Views in the sheets.
        size: Side of the images in pixels; null is the reference view's.
    """

    frames: Count = 48
    mesh_resolution: Count = 128
    views: AtLeastOne = 8
    size: Side | None = None

    def __post_init__(self) -> None:
        if 0 < self.mesh_resolution < 8:
            raise ValueError(f"mesh_resolution must be at least 8, or 0 for no mesh, not {self.mesh_resolution}")


class Sides(NamedTuple):
    """Views of a scene over white. color, normals, depth: (n, H, W, 3) uint8; alpha: (n, H, W) opacity."""

    color: NDArray[np.uint8]
    normals: NDArray[np.uint8]
    depth: NDArray[np.uint8]
    alpha: NDArray[np.float32]


class Fitted(Protocol):
    """What a system that fits one scene shows of it; see :class:`vcgen.systems.text_to_3d.system.TextTo3D`."""

    render_options: RenderOptions
    render_eval: RenderOptions
    occupancy: OccupancyGrid
    trainer: Any

    @property
    def scene(self) -> OptimizedScene:
        """What is fitted."""

    def colored_scene(self) -> OptimizedScene:
        """The scene as it can be shown without a prior."""

    def field(self, context: Views) -> Field:
        """The scene, whose empty cells are skipped."""

    def render(self, field: Field, cameras: Cameras, size: tuple[int, int], background: float = 1.0) -> Rendering:
        """Images over a gray level."""

    def shaded(self, field: Field, camera: Cameras, size: tuple[int, int]) -> tuple[Rendering, Tensor]:
        """An image and its normals."""


@torch.no_grad()
def sides_of(system: Fitted, field: Field, cameras: Cameras, size: tuple[int, int]) -> Sides:
    """What cameras (n,) see of a field."""
    rows = []
    for number in range(len(cameras.near)):
        camera = cameras[number : number + 1]
        rendering, normals = system.shaded(field, camera, size)
        depth, alpha = rendering.depth[0, 0, 0].float().cpu().numpy(), rendering.alpha[0, 0, 0].float().cpu().numpy()
        colored = depth_image(depth, float(camera.near), float(camera.far), alpha)
        rows.append((to_uint8(rendering.rgb[0, 0]), to_uint8(normals[0, 0]), colored, alpha))
    return Sides(*(np.stack(part) for part in zip(*rows, strict=True)))


def circle(system: Fitted, reference: Views, count: int) -> Cameras:
    """``count`` cameras once around the scene from the reference, at its elevation."""
    camera, center = reference.cameras[0], system.scene.center
    return around(camera, center, torch.arange(count, device=center.device) * 360 / count)


def four_sides(system: Fitted, reference: Views, field: Field) -> Sides:
    """The scene from the reference camera, and from 90, 180 and 270 degrees round it."""
    return sides_of(system, field, circle(system, reference, 4), reference.size)


def log_sheet(system: Fitted, name: str, sides: Sides, beside: Tensor | None = None) -> None:
    """Log four sides of the scene under a name: normals and depth below, an image (3, H, W) before them."""
    rows = [sides.color, sides.normals, sides.depth]
    if beside is not None:
        blank = np.full_like(sides.color[:1], 255)
        rows = [np.concatenate(pair) for pair in zip((to_uint8(beside)[None], blank, blank), rows, strict=True)]
    show_image(system.trainer, name, contact_sheet(np.concatenate(rows), len(rows[0])))


def write_outcome(system: Fitted, reference: Views, target: Path, options: OutcomeOptions) -> None:
    """Write what :func:`write_sheets` does, mesh.glb and .obj, and the model folder ``field/``, both of what is shown
    in the sheets."""
    write_sheets(system, reference, target, options)
    scene = ShownScene.of(system.colored_scene(), system.occupancy.occupied())
    save_field(system, scene, reference, target / "field")
    if options.mesh_resolution:
        write_meshes(scene.scene(), target, options.mesh_resolution)


def write_sheets(system: Fitted, reference: Views, target: Path, options: OutcomeOptions) -> None:
    """Write sheets of views, normals and depth, turntable.gif and .mp4."""
    field = system.field(reference)
    size = reference.size if options.size is None else (options.size, options.size)
    sides = sides_of(system, field, circle(system, reference, options.views), size)
    for name, images in (("views", sides.color), ("normals", sides.normals), ("depth", sides.depth)):
        write_png(target / f"{name}.png", contact_sheet(images, 4))
    if options.frames:
        cameras = circle(system, reference, options.frames)
        with torch.no_grad():
            frames = [
                to_uint8(system.render(field, cameras[i : i + 1].reshape(1, 1), size).rgb[0, 0])
                for i in range(options.frames)
            ]
        write_gif(target / "turntable.gif", np.stack(frames))
        write_mp4(target / "turntable.mp4", np.stack(frames))


def write_meshes(field: Field, target: Path, resolution: int) -> None:
    """mesh.glb and mesh.obj; a scene without a surface has none, and one line says why."""
    try:
        surface = extract_mesh(field, resolution)
    except UserError as error:
        warnings.warn(f"no mesh was written: {error}", stacklevel=2)
        return
    for name in ("mesh.glb", "mesh.obj"):
        write_mesh(target / name, surface.mesh)
    rank_zero_info(f"{target / 'mesh.glb'}: {len(surface.mesh.faces)} triangles")


def save_field(system: Fitted, scene: OptimizedScene | ShownScene, reference: Views, target: Path) -> Path:
    """The scene as a model folder, which `vcgen render` opens; the image that is given to it does not matter. Its
    camera is the reference, which looks at the origin, wherever the scene's center is."""
    camera = reference.cameras[0, 0]
    orbit = float(camera.centers.norm()), float(view_angles(camera.centers)[1])
    assumed = InputCamera(float(camera.K[0, 0]), *orbit, float(camera.near), float(camera.far))
    config = {"image_size": list(reference.size), "background": 1.0, "camera": asdict(assumed)}
    recipe = scene.recipe(scene.scene(), scene.arguments)
    return save_scene(target, recipe, system.render_options, system.render_eval, config)
