"""The renderings of 13 ShapeNet classes by Kato et al.'s Neural Mesh Renderer (NMR), as packed for DVR (Niemeyer et al.
2020) and read by pixelNeRF: ``CLASS/OBJECT/{image/0000.png ..., mask/0000.png ..., cameras.npz}``, 64 x 64 pixels, 24
fixed views of each object, and lists of objects, ``CLASS/softras_train.lst``.

``world_mat_I`` of view I is world-to-camera, 3 x 4 or 4 x 4, with OpenCV axes in a world with y up; ``camera_mat_I``
has the focal length of an image that spans -1 to 1. Source: ``src/data/DVRDataset.py`` of sxyu/pixel-nerf.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.files import visible
from vcgen.data.formats.masks import load_masked, refuse_empty
from vcgen.data.formats.scene import (
    SceneFolder,
    Settings,
    make_record,
    middle_of,
    other_layout,
    require_folder,
    scene_key,
)
from vcgen.data.formats.splits import held_out
from vcgen.data.images.arrays import load_image, shrink
from vcgen.data.images.reading import SUFFIXES
from vcgen.data.npz import read_npz
from vcgen.data.shards.record import FARTHEST, SceneRecord, check_pose
from vcgen.errors import UserError
from vcgen.io import read_bytes
from vcgen.terminal import printable

#: Turns DVR's world, y up, into one with z up: pixelNeRF's ``_coord_trans_world``.
TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
#: Bytes allowed in a list and in the cameras of an object.
MAX_LIST, MAX_CAMERAS = 10_000_000, 10_000_000
ADVICE = "unpack NMR_Dataset.zip again"


@dataclass(frozen=True, kw_only=True)
class NmrSettings(Settings):
    """How objects become records. classes: names of folders, separated by commas, "" for all. lists: which lists of
    objects, "" for none: all objects. masks: whether they become transparency.
    """

    classes: str = ""
    lists: str = "softras"
    masks: bool = False


class Nmr(SceneFormat[SceneFolder, NmrSettings]):
    """Pack the NMR renderings of ShapeNet in DVR's layout: CLASS/OBJECT/{image/, mask/, cameras.npz}.

    The world is turned so that z is up, as pixelNeRF does. Lists of objects, CLASS/softras_train.lst and so on, say
    which belong to a split.

    Args:
        source: NMR_Dataset, or the folder of one class.
        near: nearest ray distance from the camera in world units, Euclidean; pixelNeRF's by default.
        far: farthest ray distance; pixelNeRF's by default.
        split: train, val or test: which list to read; it is stored with every scene.
        classes: folders of classes to pack, such as 02958343,03001627 (cars, chairs); by default all.
        lists: what the names of the lists begin with: softras, or gen, which has other classes for testing than for
            training; "" takes all objects.
        masks: make what the masks do not cover transparent; else images are as rendered, over white.
    """

    name = "nmr"
    near, far, background = 1.2, 4.0, "white"
    settings = NmrSettings

    def list_scenes(self, source: Path, settings: NmrSettings) -> list[SceneFolder]:
        """The objects that the lists of the split name, class by class. Raises UserError for none."""
        require_folder(source)
        wanted = [word.strip() for word in settings.classes.split(",") if word.strip()]
        classes = [source] if _is_class(source) else [path for path in visible(source) if _is_class(path)]
        if not classes:
            hint = other_layout(source, "cameras.npz")
            raise UserError(f"{source}: no class with lists of objects or objects with cameras.npz in here{hint}")
        if unknown := [name for name in wanted if name not in {path.resolve().name for path in classes}]:
            there = ", ".join(path.name for path in classes[:20])
            raise UserError(f"--classes: {source} has no class {printable(unknown[0])!r}; it has {there}")
        classes = [path for path in classes if not wanted or path.resolve().name in wanted]
        return [
            SceneFolder(scene_key(f"{folder.resolve().name}_{name}"), folder / name)
            for folder, names in _objects(classes, settings).items()
            for name in names
        ]

    def read_scene(self, scene: SceneFolder, settings: NmrSettings) -> SceneRecord:
        """Convert one object; raises UserError saying which file is missing or wrong."""
        images = _images(scene.folder)
        path = scene.folder / "cameras.npz"
        cameras = read_npz(path, ADVICE, MAX_CAMERAS)
        counted = sum(name.startswith("camera_mat_") and name[11:].isdecimal() for name in cameras)
        if counted != len(images):
            raise UserError(f"{scene.folder}: {len(images)} images and {counted} cameras; {ADVICE}")
        numbers = {image.stem: number for number, image in enumerate(images)}
        c2w = {name: _pose(cameras, number, path) for name, number in numbers.items()}
        chosen = held_out(list(numbers), settings)
        pixels = [_read_image(images[numbers[name]], settings) for name in chosen]
        if settings.masks:
            refuse_empty(pixels, scene.folder / "mask")
        K = [_intrinsics(cameras, numbers[name], path) for name in chosen]
        middle = middle_of(c2w.items(), scene, settings)
        return make_record(scene, settings, chosen, pixels, K, [c2w[name] for name in chosen], middle)


def _is_class(folder: Path) -> bool:
    """Whether lists of objects, or objects, lie in a folder."""
    if not folder.is_dir():
        return False
    return any(path.suffix == ".lst" or (path / "cameras.npz").is_file() for path in visible(folder))


def _objects(classes: list[Path], settings: NmrSettings) -> dict[Path, list[str]]:
    """The names of the split's objects in each class; a class without such a list, as for ``gen``, has none."""
    if not settings.lists:
        return {folder: [path.name for path in visible(folder) if path.is_dir()] for folder in classes}
    name = f"{settings.lists}_{settings.split}.lst"
    found = {folder: _names(folder / name) for folder in classes if (folder / name).is_file()}
    if not any(found.values()):
        there = sorted({path.name for folder in classes for path in visible(folder) if path.suffix == ".lst"})
        advice = f"there is {', '.join(there[:6])}: choose with --split and --lists" if there else 'give --lists ""'
        raise UserError(f"{classes[0]}: no {name} with objects in this class or beside it; {advice}")
    return found


def _names(path: Path) -> list[str]:
    """The lines of a list, each the name of a folder beside it."""
    try:
        names = [line.strip() for line in read_bytes(path, MAX_LIST, ADVICE).decode().splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f"{path}: not a text file; {ADVICE}") from error
    if strange := [name for name in names if not re.fullmatch(r"[\w-][\w.-]*", name)]:
        raise UserError(f"{path}: {printable(strange[0])[:80]!r} is no name of an object's folder; {ADVICE}")
    return names


def _images(folder: Path) -> list[Path]:
    """In the order of names, which is that of the cameras."""
    if not (folder / "image").is_dir():
        raise UserError(f"{folder / 'image'}: no such folder, of an object that a list names; {ADVICE}")
    return [path for path in visible(folder / "image") if path.suffix.lower() in SUFFIXES]


def _read_image(path: Path, settings: NmrSettings) -> np.ndarray:
    """The uint8 image that is packed."""
    if not settings.masks:
        return shrink(load_image(path), settings.size, path)
    mask = path.parents[1] / "mask" / f"{path.stem}.png"
    if not mask.is_file():
        raise UserError(f"{mask}: missing mask; {ADVICE}, or leave out --masks")
    return shrink(load_masked(path, mask), settings.size, path)


def _matrix(cameras: dict[str, np.ndarray], name: str, path: Path, least: tuple[int, int]) -> np.ndarray:
    """A matrix of an object's cameras, of at least so many rows and columns, as (4, 4)."""
    if name not in cameras:
        raise UserError(f"{path}: {name} is not in it; {ADVICE}")
    matrix, full = cameras[name].astype(np.float64), np.eye(4)
    if matrix.shape not in (least, (4, 4)) or not (np.abs(matrix) < FARTHEST).all():
        wanted = f"{least[0]} x {least[1]} or 4 x 4"
        raise UserError(f"{path}: {name} is no {wanted} matrix, or has a NaN or huge entry; {ADVICE}")
    full[: matrix.shape[0], : matrix.shape[1]] = matrix
    return full


def _pose(cameras: dict[str, np.ndarray], number: int, path: Path) -> np.ndarray:
    """Camera-to-world, OpenCV axes, z up."""
    if f"world_mat_inv_{number}" in cameras:
        return TO_Z_UP @ _matrix(cameras, f"world_mat_inv_{number}", path, (3, 4))
    w2c = _matrix(cameras, f"world_mat_{number}", path, (3, 4))
    check_pose(w2c, f"{path}, world_mat_{number}")
    return TO_Z_UP @ np.linalg.inv(w2c)


def _intrinsics(cameras: dict[str, np.ndarray], number: int, path: Path) -> np.ndarray:
    """Normalized: the image spans -1 to 1 both ways, whatever its size."""
    (fx, _, cx), (_, fy, cy) = _matrix(cameras, f"camera_mat_{number}", path, (3, 3))[:2, :3]
    return np.array([[fx / 2, 0, (1 + cx) / 2], [0, fy / 2, (1 + cy) / 2], [0, 0, 1]])
