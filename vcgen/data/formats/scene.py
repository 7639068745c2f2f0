"""What every converter shares: the settings of a pack, a scene on disk, and the walk that finds scenes in nested
folders.
"""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from vcgen.data.formats.files import is_visible, visible
from vcgen.data.formats.plausible import nearest_to_axes, odd_backdrop, odd_pixels, odd_place, odd_poses
from vcgen.data.formats.remarks import remark
from vcgen.data.images.arrays import encode_scene
from vcgen.data.shards.record import SceneRecord, check_pose
from vcgen.errors import UserError
from vcgen.io import file_sha256

#: What names of files end in that hold cameras, or points that tell ray bounds.
CAMERA_FILES = (".json", ".txt", ".npz", ".bin", ".ply")


@dataclass(frozen=True)
class Settings:
    """How scenes become records. size: (height, width) to shrink to, None keeps the source's. near, far: Euclidean ray
    bounds, in stored world units (after ``scale``), None where the data tells. background: what opaque images show
    behind the object. group_pattern: regular expression whose first group, matched against the whole key, names the
    statistical group ("" means each scene is its own). scale: factor on all positions. recenter: move the point nearest
    to all optical axes to the origin (before scaling). hold_out_views: each scene is one capture, of which every so
    many-th view is for testing; 0 means that it is not to be parted. crops: the images are parts of larger ones: their
    principal point may lie outside."""

    size: tuple[int, int] | None
    near: float | None
    far: float | None
    background: str
    source: str
    split: str
    licence: str
    group_pattern: str = ""
    scale: float = 1.0
    recenter: bool = False
    hold_out_views: int = 0
    crops: bool = False

    def within(self, near: float, far: float) -> Self:
        """These settings with ray bounds, in units of the source, in place of those that are not given."""
        return replace(
            self,
            near=near * self.scale if self.near is None else self.near,
            far=far * self.scale if self.far is None else self.far,
        )

    def bounds(self) -> tuple[float, float]:
        """(near, far). Raises UserError where one is not told."""
        if self.near is None or self.far is None:
            raise UserError("nothing tells near and far: give --near and --far")
        return self.near, self.far

    def group(self, key: str) -> str:
        """The statistical group of a scene; its key where the pattern does not match."""
        match = re.fullmatch(self.group_pattern, key) if self.group_pattern else None
        return match.group(1) if match else key


@dataclass(frozen=True)
class SceneFolder:
    """A scene in its source layout: the key it will have in the shards, and where it lies."""

    key: str
    folder: Path

    def files(self) -> list[tuple[str, int]]:
        """(relative path, what :func:`noted` says) of every file of the scene, sorted, but of those that a system may
        leave there at any time.
        """
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(
            (path.as_posix(), noted(self.folder / path)) for path in found if all(map(is_visible, path.parts))
        )


def noted(path: Path) -> int:
    """What tells a file from another version of it: a checksum where cameras may be in it, which can change without a
    change of length; else, as of images, its bytes.
    """
    if path.suffix.lower() in CAMERA_FILES:
        with suppress(OSError):  # whoever reads it says so
            return int(file_sha256(path)[:12], 16)
    return path.stat().st_size


def find_scenes(source: Path, is_scene: Callable[[Path], bool], depth: int = 5) -> list[Path]:
    """All folders at or below ``source``, in sorted order, for which ``is_scene`` holds; the walk does not enter
    scenes.

    Empty folders are scenes too (an object that failed to unpack): they reach the converter, which reports them.
    """
    if is_scene(source):
        return [source]
    inside = visible(source)
    folders = [entry for entry in inside if entry.is_dir()]
    if not inside:
        return [source]
    return [] if depth == 0 else [scene for folder in folders for scene in find_scenes(folder, is_scene, depth - 1)]


def require_folder(source: Path) -> None:
    """Raise UserError unless ``source`` is a folder that can be listed."""
    if not source.is_dir():
        raise UserError(f"{source}: not a folder; give the unpacked data set")
    if not os.access(source, os.R_OK | os.X_OK):
        raise UserError(f"{source}: permission denied")


#: A file or folder that tells another layout -> what it is, and what to do.
LAYOUTS = {
    "*.torch": "pixelSplat's chunks: vcgen data pack re10k",
    "train_test_split.csv": "ABO's material benchmark: vcgen data pack abo",
    "metadata.npz": "CLEVR3D: vcgen data pack clevr3d",
    "transforms*.json": "a transforms file: vcgen data pack transforms",
    "cameras.json": "the simplest layout: vcgen data pack folder",
    "index.json": "a shard folder, which is packed already",
    "rgb": "the SRN layout: vcgen data pack srn",
    "intrinsics.txt": "the SRN layout: vcgen data pack srn",
    **dict.fromkeys(
        ("cameras.bin", "images.bin", "cameras.txt", "images.txt"), "a COLMAP model: vcgen data pack colmap"
    ),
    "database.db": "a COLMAP project without a model: run its mapper, or vcgen data poses on the photos",
    "poses_bounds.npy": "LLFF's layout: nerfstudio and instant-ngp make transforms.json of its images",
    "frame_annotations.jgz": "CO3D's layout: vcgen data pack co3d",
    "cameras.npz": "DVR's layout: vcgen data pack nmr, for the NMR data",
}


def other_layout(source: Path, *own: str, otherwise: str = "give the folder that docs/formats.md shows") -> str:
    """The end of a message that finds no scenes: which other layout lies there, or what to do ``otherwise``. own:
    entries of ``LAYOUTS`` that do not count.
    """
    for pattern in (pattern for pattern in LAYOUTS if pattern not in own):
        if found := next((path for depth in range(4) for path in source.glob("*/" * depth + pattern)), None):
            return f"; {found.relative_to(source)} is of {LAYOUTS[pattern]}"
    return f"; {otherwise}"


def folder_key(folder: Path, source: Path) -> str:
    """The key of the scene in a folder at or below ``source``: by the names of the folders between, or by its own."""
    return scene_key("_".join(folder.relative_to(source).parts) or source.resolve().name)


def scene_key(name: str) -> str:
    """A folder name as a shard key: other characters than letters, digits, '_' and '-' become '_'."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80]


def make_record(
    scene: SceneFolder,
    settings: Settings,
    views: list[str],
    pixels: list[np.ndarray],
    K: list[np.ndarray],
    c2w: list[np.ndarray],
    middle: np.ndarray,
) -> SceneRecord:
    """The record of a scene from its uint8 images, normalized intrinsics and OpenCV poses in the source's world.
    middle: of that world.

    Raises UserError for images of several sizes or kinds and poses that are not rigid; remarks on poses that look
    wrong."""
    if len(shapes := {image.shape[:2] for image in pixels}) > 1:
        raise UserError(f"{scene.folder}: images of several sizes (height, width): {sorted(shapes)}; give --size")
    near, far = settings.bounds()
    images, has_alpha = encode_scene(pixels, views)
    backdrop = [] if has_alpha else odd_backdrop(pixels, settings.background)
    for text in (*odd_pixels(np.stack(K), pixels[0].shape[:2]), *backdrop):
        remark(text)
    return SceneRecord(
        key=scene.key,
        images=images,
        c2w=place(np.stack(c2w), middle, scene, views, settings),
        K=np.stack(K),
        size=pixels[0].shape[:2],
        t_near=near,
        t_far=far,
        views=views,
        background="alpha" if has_alpha else settings.background,
        scale=settings.scale,
        source=settings.source,
        split=settings.split,
        licence=settings.licence,
        group=settings.group(scene.key),
    )


def middle_of(capture: Iterable[tuple[str, np.ndarray]], scene: SceneFolder, settings: Settings) -> np.ndarray:
    """What becomes the origin (3,): with ``recenter`` the point nearest to all optical axes.

    capture: names and OpenCV poses of all views, whatever the split, since views that are parted must stay in one
    world. Raises UserError for a pose that is not rigid.
    """
    if not settings.recenter:
        return np.zeros(3)
    poses = dict(capture)
    for view, pose in poses.items():
        check_pose(pose, f"scene {scene.key}, view {view}")
    return nearest_to_axes(np.stack(list(poses.values())))


def place(
    c2w: np.ndarray, middle: np.ndarray, scene: SceneFolder, views: Iterable[str], settings: Settings
) -> np.ndarray:
    """Move ``middle`` to the origin and scale positions; (V, 4, 4) -> (V, 4, 4).

    Raises UserError for a pose that is not rigid, and remarks on poses that look wrong.
    """
    for pose, view in zip(c2w, views, strict=True):
        check_pose(pose, f"scene {scene.key}, view {view}")
    placed = c2w.copy()
    placed[:, :3, 3] = (placed[:, :3, 3] - middle) * settings.scale
    for text in odd_poses(c2w) or odd_place(placed, *settings.bounds()):
        remark(text)
    return placed
