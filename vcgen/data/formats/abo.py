"""Renderings of Amazon Berkeley Objects (Collins et al. 2022), in both official layouts.

The material benchmark: ``OBJECT/{metadata.json, render/LIGHT/render_VIEW.jpg, segmentation/segmentation_VIEW.jpg}``
and ``train_test_split.csv``; 91 views, ``K`` in pixels, ``pose`` camera-to-world in Blender's axes, both row by row
(its README.md). The renderings for reconstruction: ``OBJECT/{transforms.json, OBJECT_00.png, ...}``, transparent, 30
views, with a ``camera`` for each frame (render/render.py of jazcollins/amazon-berkeley-objects). Both have z up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.files import find_images, visible
from vcgen.data.formats.intrinsics import focal_of_angle, normalized
from vcgen.data.formats.masks import load_masked
from vcgen.data.formats.plausible import FLIP, nearest_to_axes
from vcgen.data.formats.scene import (
    SceneFolder,
    Settings,
    find_scenes,
    make_record,
    noted,
    other_layout,
    require_folder,
    scene_key,
)
from vcgen.data.formats.silhouette import outline_radius
from vcgen.data.formats.splits import held_out
from vcgen.data.images.arrays import load_image, shrink
from vcgen.data.images.reading import read_header
from vcgen.data.shards.record import SceneRecord, check_pose, natural_order
from vcgen.errors import UserError
from vcgen.io import read_bytes, read_json
from vcgen.terminal import complain

METADATA, TRANSFORMS, LIST = "metadata.json", "transforms.json", "train_test_split.csv"
#: JPEG's noise in masks: values up to the first are 0, from the second on 255, as SSDNeRF has it.
NOISE = (1, 254)
#: Of the ball that outlines tell, for what no view shows in profile.
ROOM = 1.02
ADVICE = "unpack the archive again"
Row = tuple[float, float, float, float]
#: Of a matrix, row by row, in one list or a list for each row.
Numbers = Annotated[list[float | list[float]], Meta(max_length=16)]


class BenchmarkView(Struct):
    """A view in ``metadata.json``."""

    index: Annotated[int, Meta(ge=0, le=1_000_000)]
    K: Numbers
    pose: Numbers


class Metadata(Struct):
    """What is used of ``metadata.json``."""

    views: Annotated[list[BenchmarkView], Meta(min_length=2, max_length=10_000)]


class Lens(Struct):
    """``camera`` of a frame: angles in radians."""

    angle_x: float
    angle_y: float
    shift_x: float = 0.0
    shift_y: float = 0.0


class Frame(Struct):
    """A frame of ``transforms.json``. file_path: on the computer that made it, without extension."""

    file_path: str
    transform_matrix: tuple[Row, Row, Row, Row]
    camera: Lens


class Renderings(Struct):
    """What is used of ``transforms.json``."""

    frames: Annotated[list[Frame], Meta(min_length=2, max_length=10_000)]


@dataclass(frozen=True, kw_only=True)
class AboSettings(Settings):
    """How objects become records. environment: a number, or "all". radius: of the ball that each object is made to
    fit; 0 keeps meters.
    """

    environment: str = "0"
    radius: float = 0.5


@dataclass(frozen=True)
class AboObject(SceneFolder):
    """An object under the light of an environment; None: of the renderings for reconstruction."""

    environment: str | None

    def files(self) -> list[tuple[str, int]]:
        """The files that are read."""
        if self.environment is None:
            return SceneFolder.files(self)
        parts = (Path("render") / self.environment, Path("segmentation"))
        found = [
            (f"{part}/{name}", size) for part in parts for name, size in SceneFolder("", self.folder / part).files()
        ]
        return [(METADATA, noted(self.folder / METADATA)), *found]


class View(NamedTuple):
    """A view as its files say. mask: None where the image is transparent. K: normalized. c2w: OpenCV axes, meters."""

    name: str
    image: Path
    mask: Path | None
    K: np.ndarray
    c2w: np.ndarray


class Abo(SceneFormat[AboObject, AboSettings]):
    """Pack renderings of Amazon Berkeley Objects: the material benchmark, or the renderings for 3D reconstruction.

    Poses are camera-to-world with OpenGL axes, z up. What the cameras look at becomes the origin, and each object is
    scaled by its outlines, so that tables and cups are of one size.

    Args:
        source: unpacked abo-benchmark-material or abo-release-renders; or one object of it.
        near: nearest ray distance from the camera, Euclidean, in stored units. By default where a ball around the
            object begins, as the outlines in all views tell it.
        far: farthest ray distance. By default where that ball ends.
        split: train or test, as train_test_split.csv says; the renderings for reconstruction have no such list.
        environment: of the material benchmark, the light that images were rendered with, by its number; or all, each a
            scene OBJECT_ENVIRONMENT.
        radius: of the ball that each object is scaled to fit, before --scale; 0 keeps meters.
    """

    name = "abo"
    tells_bounds = True
    settings = AboSettings

    def list_scenes(self, source: Path, settings: AboSettings) -> list[AboObject]:
        """The objects of the split below ``source``, at any depth. Raises UserError for none."""
        require_folder(source)
        if not 0 <= settings.radius < 1e3:
            raise UserError(f"--radius {settings.radius:g}: must be 0 or more, less than 1000")
        folders = [folder for folder in find_scenes(source, _is_object) if _is_object(folder)]
        if not folders:
            raise UserError(
                f"{source}: no objects with {METADATA} and render/, or with {TRANSFORMS}, in here"
                f"{other_layout(source, 'transforms*.json')}"
            )
        keys = {folder: scene_key(folder.resolve().name) for folder in _of_split(folders, settings.split)}
        scenes = []
        for folder, key in keys.items():
            if (folder / TRANSFORMS).is_file():
                scenes.append(AboObject(key, folder, None))
            elif settings.environment == "all":
                there = [path.name for path in visible(folder / "render") if path.is_dir()]
                scenes += [AboObject(scene_key(f"{key}_{name}"), folder, name) for name in there]
            else:
                scenes.append(AboObject(key, folder, settings.environment))
        return scenes

    def read_scene(self, scene: AboObject, settings: AboSettings) -> SceneRecord:
        """Convert one object; raises UserError listing missing images, or saying which entry is wrong."""
        there = _rendered(scene.folder) if scene.environment is None else _lit(scene.folder, scene.environment)
        views = {view.name: view for view in there}
        if len(views) < len(there):
            raise UserError(f"{scene.folder}: two views have one name; {ADVICE}")
        poses = np.stack([view.c2w for view in views.values()])
        middle = nearest_to_axes(poses)
        chosen, pixels, radius = set(held_out(list(views), settings)), {}, 0.0
        for name, view in views.items():
            image = _read(view)
            radius = max(radius, ROOM * outline_radius(image[..., 3], view.K, view.c2w, middle))
            if name in chosen:
                pixels[name] = shrink(image, settings.size, view.image)
        if not radius:
            raise UserError(f"{scene.folder}: no view shows the object")
        if settings.radius:
            settings = replace(settings, scale=settings.scale * settings.radius / radius)
        if settings.environment == "all" and not settings.group_pattern:
            settings = replace(settings, group_pattern="(.+)_[^_]+")
        distances = np.linalg.norm(poses[:, :3, 3] - middle, axis=-1)
        settings = settings.within(max(float(distances.min()) - radius, 0.0), float(distances.max()) + radius)
        names = sorted(pixels, key=natural_order)
        K, c2w = [views[name].K for name in names], [views[name].c2w for name in names]
        return make_record(scene, settings, names, [pixels[name] for name in names], K, c2w, middle)


def _is_object(folder: Path) -> bool:
    return (folder / TRANSFORMS).is_file() or ((folder / METADATA).is_file() and (folder / "render").is_dir())


def _of_split(folders: list[Path], split: str) -> list[Path]:
    """The folders that the list beside them has for the split; all of them where there is no list."""
    path = folders[0].parent / LIST
    if not path.is_file():
        if split != "train":
            complain(f"no {LIST} tells test from training objects: all {len(folders)} are packed as {split}", "warning")
        return folders
    try:
        rows = [line.split(",") for line in read_bytes(path, 10_000_000).decode("utf-8-sig").splitlines()[1:] if line]
        splits = {row[0].strip(): row[1].strip().lower() for row in rows}
    except (UnicodeDecodeError, IndexError) as error:
        raise UserError(f"{path}: expected a line of names, then lines that begin with OBJECT,SPLIT") from error
    if split not in splits.values():
        there = ", ".join(sorted(set(splits.values()))[:5]) or "nothing"
        raise UserError(f"{path}: has no objects of split {split!r}, but {there}; choose with --split")
    if unknown := sum(folder.name not in splits for folder in folders):
        complain(f"{unknown} of {len(folders)} objects are not in {LIST}, and are left out", "warning")
    if not (kept := [folder for folder in folders if splits.get(folder.name) == split]):
        raise UserError(f"{folders[0].parent}: none of {len(folders)} objects is of split {split} in {LIST}")
    return kept


def _rendered(folder: Path) -> list[View]:
    """The views of a ``transforms.json``, whose images lie beside it."""
    path = folder / TRANSFORMS
    frames = read_json(path, Renderings, "not of ABO's renderings; of others: vcgen data pack transforms").frames
    names = [frame.file_path.replace("\\", "/").rpartition("/")[2] for frame in frames]
    images = find_images(names, folder, str(path), f"; {ADVICE}")
    views = []
    for name, image, frame in zip(names, images, frames, strict=True):
        where = f"{path}, frame {name}"
        if frame.camera.shift_x or frame.camera.shift_y:
            raise UserError(f"{where}: shift_x and shift_y must be 0")
        x, y = (focal_of_angle(f"{where}: {axis}", getattr(frame.camera, axis)) for axis in ("angle_x", "angle_y"))
        K = np.array([[x, 0, 0.5], [0, y, 0.5], [0, 0, 1]])
        views.append(View(name, image, None, K, _opencv(frame.transform_matrix, where)))
    return views


def _lit(folder: Path, environment: str) -> list[View]:
    """The views of a ``metadata.json`` under an environment."""
    path = folder / METADATA
    entries = read_json(path, Metadata, ADVICE).views
    parts = {"render": f"render/{environment}", "segmentation": "segmentation"}
    images, masks = (
        find_images([f"{kind}_{entry.index}" for entry in entries], folder / part, str(path), f" in {part}; {ADVICE}")
        for kind, part in parts.items()
    )
    views = []
    for entry, image, mask in zip(entries, images, masks, strict=True):
        where, (height, width) = f"{path}, view {entry.index}", read_header(image)[0]
        lens = _square(entry.K, 3, where)
        try:
            K = normalized((lens[0, 0], lens[1, 1]), (lens[0, 2], lens[1, 2]), (width, height))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        views.append(View(str(entry.index), image, mask, K, _opencv(entry.pose, where)))
    return views


def _square(values: Sequence[float | Sequence[float]], side: int, where: str) -> np.ndarray:
    """(side, side) of numbers that a file has row by row."""
    numbers = [number for part in values for number in (part if isinstance(part, Sequence) else [part])]
    if len(numbers) != side * side:
        raise UserError(f"{where}: {len(numbers)} numbers, expected {side} x {side}, row by row")
    return np.array(numbers, dtype=np.float64).reshape(side, side)


def _opencv(values: Sequence[float | Sequence[float]], where: str) -> np.ndarray:
    """(4, 4) of a pose with Blender's axes."""
    pose = _square(values, 4, where) @ FLIP
    check_pose(pose, where)
    return pose


def _read(view: View) -> np.ndarray:
    """(H, W, 4) float32, straight color."""
    if view.mask is None:
        image = load_image(view.image)
        if image.shape[2] == 3:
            raise UserError(f"{view.image}: has no transparency; {ADVICE}")
        return image
    image = load_masked(view.image, view.mask)
    alpha = image[..., 3]
    alpha[alpha * 255 <= NOISE[0]], alpha[alpha * 255 >= NOISE[1]] = 0, 1
    return image
