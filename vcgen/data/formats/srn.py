"""The ShapeNet-SRN layout (Sitzmann et al. 2019) as hosted by pixelNeRF: ``OBJECT/{intrinsics.txt, rgb/*.png, pose/*.txt}``.

Poses are camera-to-world with OpenCV axes already, world z up; ``intrinsics.txt`` holds one focal length in pixels and, as its fourth
line, height then width.
"""

from pathlib import Path

import numpy as np

from vcgen.data.formats.scene import SceneFolder, Settings, find_scenes, place, require_folder, scene_key
from vcgen.data.pictures import area_resize, encode_scene, load_picture, to_bytes
from vcgen.data.record import SceneRecord, natural_order
from vcgen.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg")
_OTHER_CARS = (
    "this looks like SRN's original archive (250 views an object, intrinsics reported wrong), not the pixelNeRF-hosted set; "
    "get srn_cars.zip of pixelNeRF (50 train views, one intrinsics.txt an object)"
)


def list_scenes(source: Path, settings: Settings) -> list[SceneFolder]:
    """The objects below ``source``, at any depth as long as they share one parent folder. Raises UserError for none or several parents."""
    require_folder(source)
    folders = find_scenes(source, _is_scene)
    if not any(_is_scene(folder) for folder in folders):
        raise UserError(f"{source}: no object with rgb/ and pose/ folders in here; give the folder of one split, e.g. srn_cars/cars_train")
    parents = sorted({folder.parent for folder in folders})
    if len(parents) > 1:
        names = ", ".join(str(parent.relative_to(source)) for parent in parents[:5])
        raise UserError(f"{source}: objects lie in {len(parents)} folders ({names}); pack one split at a time")
    return [SceneFolder(scene_key(folder.name), folder) for folder in folders]


def read_scene(scene: SceneFolder, settings: Settings) -> SceneRecord:
    """Convert one object; raises UserError saying which file is missing or wrong."""
    names = _view_names(scene.folder)
    if (scene.folder / "intrinsics").is_dir() or (settings.split == "train" and len(names) == 250):
        raise UserError(f"{scene.folder}: {_OTHER_CARS}")
    focal, center_x, center_y, height, width, is_world_to_camera = read_intrinsics(scene.folder / "intrinsics.txt")
    K = np.array([[focal / width, 0, center_x / width], [0, focal / height, center_y / height], [0, 0, 1]])
    c2w = np.stack([read_pose(scene.folder / "pose" / f"{name}.txt") for name in names])
    if is_world_to_camera:
        c2w = np.linalg.inv(c2w)
    pixels = [_read_picture(path, (height, width), settings.size) for path in names.values()]
    if len({picture.shape[:2] for picture in pixels}) > 1:
        raise UserError(f"{scene.folder / 'rgb'}: pictures of several sizes; give --size")
    images, has_alpha = encode_scene(pixels)
    return SceneRecord(
        key=scene.key,
        images=images,
        c2w=place(c2w, settings),
        K=np.tile(K, (len(names), 1, 1)),
        size=pixels[0].shape[:2],
        t_near=settings.near,
        t_far=settings.far,
        views=list(names),
        background="alpha" if has_alpha else settings.background,
        scale=settings.scale,
        source=settings.source,
        split=settings.split,
        licence=settings.licence,
        group=settings.group(scene.key),
    )


def read_intrinsics(path: Path) -> tuple[float, float, float, int, int, bool]:
    """Parse ``intrinsics.txt``: focal, cx, cy in pixels, height, width, and whether poses are world-to-camera (optional fifth line)."""
    rows = [[float(word) for word in line.split()] for line in _lines(path)]
    if len(rows) < 4 or len(rows[0]) < 3 or len(rows[3]) != 2:
        raise UserError(f"{path}: expected four lines: 'f cx cy 0.', grid centre, scale, 'height width'")
    focal, center_x, center_y = rows[0][:3]
    height, width = rows[3]
    if min(focal, height, width) <= 0:
        raise UserError(f"{path}: focal length, height and width must be positive, found {focal}, {height}, {width}")
    return focal, center_x, center_y, int(height), int(width), len(rows) > 4 and rows[4] == [1.0]


def read_pose(path: Path) -> np.ndarray:
    """Parse a pose file, 16 numbers on one or four lines, row by row -> (4, 4) float64."""
    numbers = [float(word) for line in _lines(path) for word in line.split()]
    if len(numbers) != 16:
        raise UserError(f"{path}: expected 16 numbers (a 4 x 4 matrix), found {len(numbers)}")
    matrix = np.array(numbers).reshape(4, 4)
    if not np.isfinite(matrix).all():
        raise UserError(f"{path}: the pose has a NaN or infinite entry")
    return matrix


def _is_scene(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("rgb", "pose", "intrinsics.txt", "intrinsics"))


def _view_names(folder: Path) -> dict[str, Path]:
    """Picture names without extension -> paths, in natural order; raises UserError unless pictures and poses match one to one."""
    if not (folder / "rgb").is_dir():
        raise UserError(f"{folder}: no rgb/ folder (an object that failed to unpack?)")
    pictures = {path.stem: path for path in (folder / "rgb").iterdir() if path.suffix.lower() in PICTURES}
    poses = {path.stem for path in (folder / "pose").glob("*.txt")}
    if not pictures:
        raise UserError(f"{folder / 'rgb'}: no pictures")
    if missing := sorted(pictures.keys() - poses, key=natural_order):
        raise UserError(f"{folder / 'pose' / (missing[0] + '.txt')}: missing pose ({len(missing)} of {len(pictures)} pictures have none)")
    if missing := sorted(poses - pictures.keys(), key=natural_order):
        raise UserError(f"{folder / 'rgb' / (missing[0] + '.png')}: missing picture ({len(missing)} of {len(poses)} poses have none)")
    return {name: pictures[name] for name in sorted(pictures, key=natural_order)}


def _read_picture(path: Path, stated: tuple[int, int], size: tuple[int, int] | None) -> np.ndarray:
    picture = load_picture(path)
    height, width = picture.shape[:2]
    if abs(height * stated[1] - width * stated[0]) > 0.5 * max(stated):
        raise UserError(f"{path}: {height} x {width}, but intrinsics.txt is for {stated[0]} x {stated[1]} (height x width)")
    try:
        return to_bytes(area_resize(picture, size or (height, width)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _lines(path: Path) -> list[str]:
    """The non-empty lines of a text file of numbers."""
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        for word in " ".join(lines).split():
            float(word)
        return lines
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a text file of numbers ({error})") from error
