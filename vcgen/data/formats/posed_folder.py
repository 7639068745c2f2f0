"""The simplest layout: ``SCENE/cameras.json`` and images, for data of one's own.

``cameras.json`` has ``c2w``, 4 x 4 camera-to-world matrices with OpenCV axes in a world with z up, ``K``, 3 x 3
intrinsics divided by the image's size, and may have ``views``, ``t_near`` and ``t_far``: :mod:`vcgen.data.camera_file`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcgen.data.camera_file import StatedCameras, read_camera_file
from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.files import checked_name, find_images, view_names, visible
from vcgen.data.formats.masks import find_masks_in, load_masked, refuse_empty
from vcgen.data.formats.scene import (
    SceneFolder,
    Settings,
    find_scenes,
    folder_key,
    make_record,
    middle_of,
    other_layout,
    require_folder,
)
from vcgen.data.formats.splits import held_out
from vcgen.data.formats.turning import plan_turns, turned
from vcgen.data.images.arrays import shrink
from vcgen.data.images.reading import SUFFIXES
from vcgen.data.shards.record import SceneRecord, natural_order
from vcgen.errors import UserError

CAMERAS = "cameras.json"


@dataclass(frozen=True, kw_only=True)
class FolderSettings(Settings):
    """How folders become records. masks: folder of masks, absolute or in that of the scene, "" for none."""

    masks: str = ""


class PosedFolder(SceneFormat[SceneFolder, FolderSettings]):
    """Pack folders of images with one cameras.json each: the simplest layout to write, for data of your own.

    cameras.json has "c2w", a list of 4 x 4 camera-to-world matrices, OpenCV axes, world z up, and "K", a list of 3 x 3
    intrinsics divided by the image's size, one for all images or one for each.

    Args:
        source: folder with cameras.json and images (one scene), or a folder of such folders (many scenes).
        near: nearest ray distance from the camera, Euclidean, in stored units; by default "t_near" of cameras.json.
        far: farthest ray distance; by default "t_far" of cameras.json.
        masks: folder of masks in that of the scene, or a full path; white where the object is, named IMAGE.png or as
            the image; they become transparency.
    """

    name = "folder"
    tells_bounds = True
    settings = FolderSettings

    def list_scenes(self, source: Path, settings: FolderSettings) -> list[SceneFolder]:
        """``source`` itself if it has a cameras.json, else the folders below it that do. Raises UserError for none."""
        require_folder(source)
        folders = find_scenes(source, lambda folder: (folder / CAMERAS).is_file())
        if not any((folder / CAMERAS).is_file() for folder in folders):
            raise UserError(f"{source}: no {CAMERAS} in here{other_layout(source, CAMERAS)}")
        return [SceneFolder(folder_key(folder, source), folder) for folder in folders]

    def read_scene(self, scene: SceneFolder, settings: FolderSettings) -> SceneRecord:
        """Convert one scene; raises UserError saying what of its files is missing or wrong."""
        path = scene.folder / CAMERAS
        cameras = read_camera_file(path)
        place = scene.folder / "images" if (scene.folder / "images").is_dir() else scene.folder
        images = _images(cameras, place, path)
        names = view_names(images, place)
        positions = {name: number for number, name in enumerate(names)}
        chosen = held_out(names, settings)
        paths = [images[positions[name]] for name in chosen]
        masks = _masks(scene.folder / settings.masks, paths, place) if settings.masks else [None] * len(paths)
        parts = []
        for name, image, mask, turn in zip(chosen, paths, masks, plan_turns(paths, [None] * len(paths)), strict=True):
            pixels = np.rot90(load_masked(image, mask), turn.back)
            number = positions[name]
            pixels, K, c2w = turned(pixels, cameras.K[number], cameras.c2w[number], turn.on)
            parts.append((shrink(pixels, settings.size, image), K, c2w))
        packed, intrinsics, poses = zip(*parts, strict=True)
        if settings.masks:
            refuse_empty(packed, scene.folder / settings.masks)
        middle = middle_of(zip(names, cameras.c2w, strict=True), scene, settings)
        settings = _with_bounds(settings, cameras, path)
        return make_record(scene, settings, chosen, list(packed), list(intrinsics), list(poses), middle)


def _images(cameras: StatedCameras, folder: Path, path: Path) -> list[Path]:
    """The image of each camera: by the names that the file gives, else all that there are, in natural order."""
    if cameras.names is not None:
        return find_images([checked_name(name, path) for name in cameras.names], folder, str(path))
    images = sorted(
        (file for file in visible(folder) if file.suffix.lower() in SUFFIXES), key=lambda file: natural_order(file.name)
    )
    if len(images) != len(cameras.c2w):
        raise UserError(
            f"{path}: {len(cameras.c2w)} poses, and {len(images)} images in {folder}; give a pose for each image in the"
            ' natural order of their names, or their names as "views"'
        )
    return images


def _masks(folder: Path, images: list[Path], place: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"--masks: {folder} is no folder; give one in that of the scene, or a full path")
    return find_masks_in(folder, [image.relative_to(place).as_posix() for image in images])


def _with_bounds(settings: FolderSettings, cameras: StatedCameras, path: Path) -> FolderSettings:
    """Settings with the ray bounds of the file where no others are given."""
    bounds = (("near", settings.near, cameras.near), ("far", settings.far, cameras.far))
    if missing := [name for name, option, stated in bounds if option is None and stated is None]:
        wanted = " and ".join(f"--{name}, or t_{name} in the file" for name in missing)
        raise UserError(f"{path}: does not say how far rays reach; give {wanted}")
    return settings.within(cameras.near or 0.0, cameras.far or 0.0)
