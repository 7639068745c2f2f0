"""The ShapeNet-SRN layout (Sitzmann et al. 2019) as hosted by pixelNeRF: ``OBJECT/{intrinsics.txt, rgb/*.png,
pose/*.txt}``.

Poses are camera-to-world with OpenCV axes already, world z up; ``intrinsics.txt`` holds one focal length in pixels and,
as its fourth line, height then width."""

import math
from pathlib import Path

import numpy as np

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.files import is_visible, visible
from vcgen.data.formats.intrinsics import normalized
from vcgen.data.formats.scene import (
    SceneFolder,
    Settings,
    find_scenes,
    make_record,
    middle_of,
    other_layout,
    require_folder,
    scene_key,
)
from vcgen.data.formats.splits import held_out
from vcgen.data.formats.turning import plan_turns, turned
from vcgen.data.images.arrays import load_image, shrink
from vcgen.data.images.reading import SUFFIXES
from vcgen.data.shards.record import SceneRecord, check_pose, natural_order
from vcgen.errors import UserError
from vcgen.io import read_bytes

#: Bytes allowed in a file of some lines of numbers.
MAX_TEXT = 100_000
_OTHER_CARS = (
    "this looks like SRN's original archive (250 views an object, intrinsics reported wrong), not the pixelNeRF-hosted"
    " set; get srn_cars.zip of pixelNeRF (50 train views, one intrinsics.txt an object)"
)


class Srn(SceneFormat[SceneFolder, Settings]):
    """Pack a data set in the ShapeNet-SRN layout: OBJECT/{intrinsics.txt, rgb/*.png, pose/*.txt}.

    Poses are camera-to-world with OpenCV axes, world z up.

    Args:
        source: folder of one split; objects may lie deeper, as in srn_cars/cars_train or chairs_train/chairs_2.0_train.
        near: nearest ray distance from the camera in world units, Euclidean. The default suits SRN cars; chairs need
            1.25.
        far: farthest ray distance. The default suits SRN cars; chairs need 2.75.
    """

    name = "srn"
    near, far, background = 0.8, 1.8, "white"

    def list_scenes(self, source: Path, settings: Settings) -> list[SceneFolder]:
        """The objects below ``source``, at any depth as long as they share one parent folder. Raises UserError for none
        or several parents.
        """
        require_folder(source)
        folders = find_scenes(source, _is_scene)
        if not any(_is_scene(folder) for folder in folders):
            split = "give the folder of one split, e.g. srn_cars/cars_train"
            hint = other_layout(source, "rgb", "intrinsics.txt", otherwise=split)
            raise UserError(f"{source}: no object with rgb/ and pose/ folders in here{hint}")
        parents = sorted({folder.parent for folder in folders})
        if len(parents) > 1:
            names = ", ".join(str(parent.relative_to(source)) for parent in parents[:5])
            raise UserError(f"{source}: objects lie in {len(parents)} folders ({names}); pack one split at a time")
        return [SceneFolder(scene_key(folder.name), folder) for folder in folders]

    def read_scene(self, scene: SceneFolder, settings: Settings) -> SceneRecord:
        """Convert one object; raises UserError saying which file is missing or wrong."""
        names = _view_names(scene.folder)
        if (scene.folder / "intrinsics").is_dir() or (settings.split == "train" and len(names) == 250):
            raise UserError(f"{scene.folder}: {_OTHER_CARS}")
        focal, center_x, center_y, height, width, is_world_to_camera = read_intrinsics(scene.folder / "intrinsics.txt")
        c2w = {name: _camera_to_world(scene.folder / "pose" / f"{name}.txt", is_world_to_camera) for name in names}
        names = {name: names[name] for name in held_out(list(names), settings)}
        turns = plan_turns(list(names.values()), [(width, height)] * len(names))
        pixels, matrices, poses = [], [], []
        for (name, path), turn in zip(names.items(), turns, strict=True):
            image = _read_image(path, (height, width), turn.back)
            try:
                K = normalized((focal, focal), (center_x, center_y), (width, height), settings.crops)
            except UserError as error:
                raise UserError(f"{scene.folder / 'intrinsics.txt'}: {error}") from error
            image, K, pose = turned(image, K, c2w[name], turn.on)
            pixels.append(shrink(image, settings.size, path))
            matrices.append(K)
            poses.append(pose)
        return make_record(
            scene, settings, list(names), pixels, matrices, poses, middle_of(c2w.items(), scene, settings)
        )


def _camera_to_world(path: Path, is_world_to_camera: bool) -> np.ndarray:
    pose = read_pose(path)
    if not is_world_to_camera:
        return pose
    check_pose(pose, str(path))
    return np.linalg.inv(pose)


def read_intrinsics(path: Path) -> tuple[float, float, float, int, int, bool]:
    """Parse ``intrinsics.txt``: focal, cx, cy in pixels, height, width, and whether poses are world-to-camera (optional
    fifth line).
    """
    rows = _numbers(path)
    if len(rows) < 4 or len(rows[0]) < 3 or len(rows[3]) != 2:
        raise UserError(f"{path}: expected four lines: 'f cx cy 0.', grid center, scale, 'height width'")
    focal, center_x, center_y = rows[0][:3]
    height, width = rows[3]
    if not (0 < focal < math.inf and 1 <= height < math.inf and 1 <= width < math.inf):
        raise UserError(
            f"{path}: focal length, height and width must be positive, found {focal:g}, {height:g}, {width:g}"
        )
    return focal, center_x, center_y, int(height), int(width), len(rows) > 4 and rows[4] == [1.0]


def read_pose(path: Path) -> np.ndarray:
    """Parse a pose file, 16 numbers on one or four lines, row by row -> (4, 4) float64."""
    numbers = [number for row in _numbers(path) for number in row]
    if len(numbers) != 16:
        raise UserError(f"{path}: expected 16 numbers (a 4 x 4 matrix), found {len(numbers)}")
    matrix = np.array(numbers).reshape(4, 4)
    if not np.isfinite(matrix).all():
        raise UserError(f"{path}: the pose has a NaN or infinite entry")
    return matrix


def _is_scene(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("rgb", "pose", "intrinsics.txt", "intrinsics"))


def _view_names(folder: Path) -> dict[str, Path]:
    """Image names without extension -> paths, in natural order; raises UserError unless images and poses match one to
    one.
    """
    if not (folder / "rgb").is_dir():
        raise UserError(f"{folder}: no rgb/ folder (an object that failed to unpack?)")
    files = [path for path in visible(folder / "rgb") if path.suffix.lower() in SUFFIXES]
    images = {path.stem: path for path in files}
    poses = {path.stem for path in (folder / "pose").glob("*.txt") if is_visible(path.name)}
    if not images:
        raise UserError(f"{folder / 'rgb'}: no images")
    if twice := next((path for path in files if images[path.stem] != path), None):
        raise UserError(f"{twice} and {images[twice.stem].name} are both of view {twice.stem}; remove one")
    if missing := sorted(images.keys() - poses, key=natural_order):
        raise UserError(
            f"{folder / 'pose' / (missing[0] + '.txt')}: missing pose ({len(missing)} of {len(images)} images have"
            " none)"
        )
    if missing := sorted(poses - images.keys(), key=natural_order):
        raise UserError(
            f"{folder / 'rgb' / (missing[0] + '.png')}: missing image ({len(missing)} of {len(poses)} poses have none)"
        )
    return {name: images[name] for name in sorted(images, key=natural_order)}


def _read_image(path: Path, stated: tuple[int, int], back: int) -> np.ndarray:
    """As it is when turned ``back``, in which its shape must be the stated one (height, width)."""
    image = np.rot90(load_image(path), back)
    height, width = image.shape[:2]
    if abs(height * stated[1] - width * stated[0]) > 0.5 * max(stated):
        order = "; its last line is height, then width" if height * stated[0] == width * stated[1] else ""
        raise UserError(
            f"{path}: {height} x {width}, but intrinsics.txt is for {stated[0]} x {stated[1]} (height x width){order}"
        )
    return image


def _numbers(path: Path) -> list[list[float]]:
    """The lines of a text file of numbers, empty ones left out."""
    try:
        text = read_bytes(path, MAX_TEXT).decode("utf-8-sig")
        return [[float(word) for word in line.split()] for line in text.splitlines() if line.strip()]
    except ValueError as error:  # not printed: it quotes the file, which may hold anything
        raise UserError(f"{path}: not a text file of numbers") from error
