"""COLMAP's sparse models, text or binary: cameras, poses and points as COLMAP, GLOMAP, VGGT, Depth-Anything-3 and
InstantSplat write them (https://colmap.github.io/format.html).

Files are taken for a stranger's: what they count is read as far as it is there, and every damage is one line.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from vcgen.data.formats.files import checked_name
from vcgen.data.images.lenses import CAMERA_MODELS, Lens
from vcgen.data.shards.record import natural_order
from vcgen.errors import UserError
from vcgen.io import read_bytes
from vcgen.terminal import printable

#: Bytes allowed in one file; images.bin and points3D.bin hold every feature of every image.
MAX_FILE = 2 << 30
#: Cameras and images allowed in a model.
MOST = 100_000
ADVICE = "write the model again, or convert it with colmap model_converter"
#: What InstantSplat writes instead of points3D.bin: a vertex is a row of numbers, little-endian.
POINTS_PLY = "points3D.ply"
PLY = re.compile(
    rb"ply\nformat binary_little_endian 1.0\n(?:comment[^\n]*\n)*element vertex (\d{1,12})\n((?:property \w+ \w+\n)+)"
)
PLY_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "float32": "<f4", "float64": "<f8", "uint8": "u1"}
NUMBERS = {model.number: name for name, model in CAMERA_MODELS.items()}


class Camera(NamedTuple):
    """Intrinsics in pixels of a (width, height) image; (x, y) pairs."""

    size: tuple[int, int]
    focal: tuple[float, float]
    center: tuple[float, float]
    lens: Lens


class View(NamedTuple):
    """An image that was placed. name: below the folder of images. c2w: (4, 4), OpenCV axes."""

    name: str
    camera: Camera
    c2w: np.ndarray


@dataclass(frozen=True)
class SparseModel:
    """What is used of a model. views: in natural order of their names. points: (n, 3) in the world."""

    views: list[View]
    points: np.ndarray


def has_model(folder: Path) -> bool:
    """Whether any file of a model lies in a folder."""
    return any((folder / f"{name}.{kind}").is_file() for name in ("cameras", "images") for kind in ("bin", "txt"))


def read_model(folder: Path) -> SparseModel:
    """The model in a folder; of a text and a binary one, the binary one, as COLMAP does.

    Points may be absent. Raises UserError for files that are missing, cut short or malformed, for cameras that are none
    of COLMAP's, or panoramas, and for poses that are none.
    """
    is_binary = all((folder / f"{name}.bin").is_file() for name in ("cameras", "images"))
    reader, kind = (_Binary, "bin") if is_binary else (_Text, "txt")
    path = folder / f"cameras.{kind}"
    cameras = _by_id(path, ((entry[0], _camera(path, *entry)) for entry in reader.cameras(path)))
    path, views = folder / f"images.{kind}", {}
    for name, quaternion, translation, camera in reader.images(path):
        if camera not in cameras:
            raise UserError(f"{path}: image {name} has camera {camera}, which cameras.{kind} lacks; {ADVICE}")
        if name in views:
            raise UserError(f"{path}: image {name} occurs more than once; {ADVICE}")
        views[name] = View(checked_name(name, path), cameras[camera], _pose(path, name, quaternion, translation))
        if len(views) > MOST:
            raise UserError(f"{path}: more than {MOST} images")
    if not views:
        raise UserError(f"{path}: no image was placed; {ADVICE}")
    read = {f"points3D.{kind}": reader.points, POINTS_PLY: _ply_points}
    file = next((file for file in read if (folder / file).exists()), None)
    points = _checked_points(folder / file, read[file](folder / file)) if file else np.zeros((0, 3))
    return SparseModel(sorted(views.values(), key=lambda view: natural_order(view.name)), points)


class _Binary:
    """Readers of the three binary files, little-endian."""

    @staticmethod
    def cameras(path: Path) -> Iterator[tuple[int, str, int, int, tuple[float, ...]]]:
        with _Bytes(path) as file:
            for _ in range(file.take("Q")[0]):
                number, model, width, height = file.take("IiQQ")
                name = NUMBERS.get(model, str(model))
                count = CAMERA_MODELS[name].parameters if name in CAMERA_MODELS else 0
                yield number, name, width, height, file.take(f"{count}d")

    @staticmethod
    def images(path: Path) -> Iterator[tuple[str, tuple[float, ...], tuple[float, ...], int]]:
        with _Bytes(path) as file:
            for _ in range(file.take("Q")[0]):
                _, *numbers, camera = file.take("I7dI")
                name = file.text()
                file.skip(24 * file.take("Q")[0])  # its features: x, y, point
                yield name, tuple(numbers[:4]), tuple(numbers[4:]), camera

    @staticmethod
    def points(path: Path) -> np.ndarray:
        found = []
        with _Bytes(path) as file:
            for _ in range(file.take("Q")[0]):
                _, x, y, z, _, _, _, _, length = file.take("Q3d3BdQ")
                file.skip(8 * length)  # the images that show it
                found.append((x, y, z))
        return np.array(found, dtype=np.float64).reshape(-1, 3)


class _Bytes:
    """The bytes of a file, taken one record after another; at the end none may be left."""

    def __init__(self, path: Path):
        self.path, self.data, self.place = path, read_bytes(path, MAX_FILE), 0

    def __enter__(self) -> "_Bytes":
        return self

    def __exit__(self, error: type | None, *rest: object) -> None:
        if error is None and self.place < len(self.data):
            left = len(self.data) - self.place
            raise UserError(f"{self.path}: {left} bytes follow the last record; no such file of COLMAP's; {ADVICE}")

    def take(self, layout: str) -> tuple[Any, ...]:
        """The numbers of a :mod:`struct` layout."""
        start = self.place
        self.skip(struct.calcsize("<" + layout))
        return struct.unpack_from("<" + layout, self.data, start)

    def skip(self, count: int) -> None:
        """Leave out bytes. Raises UserError where they are not there."""
        self.place += count
        if self.place > len(self.data):
            raise UserError(f"{self.path}: cut short, or no such file of COLMAP's; {ADVICE}")

    def text(self) -> str:
        """Characters up to a zero byte."""
        end = self.data.find(b"\0", self.place, self.place + 1001)
        if end < 0:
            raise UserError(f"{self.path}: a name has no end within 1000 bytes; {ADVICE}")
        start, self.place = self.place, end + 1
        try:
            return self.data[start:end].decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: a name is not UTF-8; {ADVICE}") from error


class _Text:
    """Readers of the three text files; lines that begin with # are comments."""

    @staticmethod
    def cameras(path: Path) -> Iterator[tuple[int, str, int, int, tuple[float, ...]]]:
        for where, line in _lines(path):
            if words := line.split():
                model = words[1] if len(words) > 1 else ""
                number, width, height = _numbers(where, [words[0], *words[2:4]], 3, int)
                yield number, model, width, height, tuple(_numbers(where, words[4:], None, float))

    @staticmethod
    def images(path: Path) -> Iterator[tuple[str, tuple[float, ...], tuple[float, ...], int]]:
        lines = _lines(path)
        for where, line in lines:
            words = line.split(maxsplit=9)
            if not words:  # the end; between images an empty line is one without features
                continue
            if len(words) < 10:
                raise UserError(f"{where}: expected ID, quaternion, translation, camera and a name; {ADVICE}")
            pose = _numbers(where, words[1:8], 7, float)
            features = next(lines, (where, ""))
            if features[1].count(" ") and len(features[1].split()) % 3:
                raise UserError(f"{features[0]}: expected the features of {words[9]}, or an empty line; {ADVICE}")
            yield words[9].rstrip(), tuple(pose[:4]), tuple(pose[4:]), _numbers(where, words[8:9], 1, int)[0]

    @staticmethod
    def points(path: Path) -> np.ndarray:
        words = ((where, line.split(maxsplit=4)) for where, line in _lines(path) if line.strip())
        return np.array([_numbers(where, row[1:4], 3, float) for where, row in words]).reshape(-1, 3)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where a line is, and the line; comments are left out."""
    try:
        text = read_bytes(path, MAX_FILE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file; {ADVICE}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.startswith("#"):
            yield f"{path}, line {number}", line.rstrip("\r")


def _numbers(where: str, words: list[str], count: int | None, kind: type) -> list[Any]:
    try:
        numbers = [kind(word) for word in words]
    except ValueError as error:  # not printed: it quotes the file, which may hold anything
        raise UserError(f"{where}: not a number where one belongs; {ADVICE}") from error
    if count is not None and len(numbers) != count:
        raise UserError(f"{where}: has too few words; {ADVICE}")
    return numbers


def _by_id(path: Path, items: Iterator[tuple[int, Camera]]) -> dict[int, Camera]:
    cameras: dict[int, Camera] = {}
    for number, camera in items:
        if number in cameras:
            raise UserError(f"{path}: camera {number} occurs more than once; {ADVICE}")
        if len(cameras) >= MOST:
            raise UserError(f"{path}: more than {MOST} cameras")
        cameras[number] = camera
    return cameras


def _camera(path: Path, number: int, name: str, width: int, height: int, parameters: tuple[float, ...]) -> Camera:
    """A camera from its line. Raises UserError where its model or its numbers are none."""
    where = f"{path}, camera {number}"
    if name in ("EQUIRECTANGULAR", "17"):
        raise UserError(f"{where}: a panorama (EQUIRECTANGULAR) is no pinhole's image; render it to perspective views")
    if name not in CAMERA_MODELS:
        raise UserError(f"{where}: {printable(name)[:40]!r} is none of COLMAP's camera models; {ADVICE}")
    model = CAMERA_MODELS[name]
    if len(parameters) != model.parameters:
        raise UserError(f"{where}: {name} has {model.parameters} parameters, found {len(parameters)}; {ADVICE}")
    if not (1 <= width <= 1_000_000 and 1 <= height <= 1_000_000):
        raise UserError(f"{where}: an image of {width} x {height} pixels; {ADVICE}")
    if not all(abs(value) < 1e12 for value in parameters):
        raise UserError(f"{where}: a parameter is NaN, infinite or huge; {ADVICE}")
    x, y, *lens = parameters[model.focals :]
    return Camera((width, height), (parameters[0], parameters[model.focals - 1]), (x, y), Lens(name, tuple(lens)))


def _pose(path: Path, name: str, quaternion: tuple[float, ...], translation: tuple[float, ...]) -> np.ndarray:
    """Camera-to-world from COLMAP's world-to-camera quaternion (w, x, y, z) and translation."""
    if not all(map(math.isfinite, (*quaternion, *translation))) or abs(math.hypot(*quaternion) - 1) > 1e-3:
        raise UserError(f"{path}, image {name}: its pose is no unit quaternion and finite translation; {ADVICE}")
    w, x, y, z = quaternion
    rotation = Rotation.from_quat([x, y, z, w]).as_matrix().T
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation, -rotation @ translation
    return c2w


def _ply_points(path: Path) -> np.ndarray:
    """Positions of the vertices of a .ply file. Raises UserError for one of another kind."""
    header, _, body = read_bytes(path, MAX_FILE).partition(b"end_header\n")
    found = PLY.match(header)
    properties = [line.split()[1:] for line in found[2].decode().splitlines()] if found else []
    names = {name for _, name in properties}
    known = len(names) == len(properties) and {kind for kind, _ in properties} <= PLY_TYPES.keys()
    if not found or not known or not {"x", "y", "z"} <= names:
        raise UserError(f"{path}: no binary, little-endian .ply file of points x, y and z; {ADVICE}")
    layout, count = np.dtype([(name, PLY_TYPES[kind]) for kind, name in properties]), int(found[1])
    if len(body) < count * layout.itemsize:
        raise UserError(f"{path}: cut short; {ADVICE}")
    rows = np.frombuffer(body, layout, count)
    return np.stack([rows[axis].astype(np.float64) for axis in "xyz"], -1)


def _checked_points(path: Path, points: np.ndarray) -> np.ndarray:
    if not np.isfinite(points).all():
        raise UserError(f"{path}: a point has a NaN or infinite coordinate; {ADVICE}")
    return points
