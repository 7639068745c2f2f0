"""RealEstate10K (Zhou et al. 2018): clips of videos with a camera for each frame; ACID and others have its layout, too.

A camera file, ``CLIP.txt``, has the video's address in line 1, then a line for each frame: timestamp in microseconds,
focal lengths and principal point divided by the image's size, two zeros, and the 3 x 4 world-to-camera matrix, row by
row, OpenCV axes. Frames are ``CLIP/TIMESTAMP.jpg`` or ``.png``; or both are in pixelSplat's chunks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.files import find_images, visible
from vcgen.data.formats.re10k_chunks import INDEX, chunks_of, read_chunk
from vcgen.data.formats.scene import (
    SceneFolder,
    Settings,
    make_record,
    middle_of,
    noted,
    other_layout,
    require_folder,
    scene_key,
)
from vcgen.data.formats.splits import SPLITS, held_out
from vcgen.data.formats.upright import Up, upright_turn
from vcgen.data.images.arrays import shrink
from vcgen.data.images.reading import decode_image, read_image
from vcgen.data.shards.record import SceneRecord, check_intrinsics, check_pose, natural_order
from vcgen.errors import UserError
from vcgen.io import read_bytes
from vcgen.terminal import complain

#: Ray bounds of pixelSplat's loader, in units of the clip's world.
NEAR, FAR = 0.1, 1000.0
#: Bytes allowed in a camera file, and numbers in one of its lines.
MAX_TEXT, COLUMNS = 20_000_000, 19


@dataclass(frozen=True, kw_only=True)
class ClipSettings(Settings):
    """How clips become records. frames: folder. every: so many-th frame is kept. square: cut out the middle. up: what
    becomes z.
    """

    frames: str = ""
    every: int = 1
    square: bool = False
    up: Up = "auto"


@dataclass(frozen=True)
class Clip(SceneFolder):
    """A clip of that name in ``folder``, a camera file or a chunk. frames: folder of its images; None in a chunk."""

    name: str
    frames: Path | None

    def files(self) -> list[tuple[str, int]]:
        """The file, and all frames."""
        return [(self.folder.name, noted(self.folder)), *(SceneFolder("", self.frames).files() if self.frames else [])]


class Re10k(SceneFormat[Clip, ClipSettings]):
    """Pack clips of RealEstate10K: camera files with their frames, or the chunks of pixelSplat and MVSplat.

    Poses are world-to-camera with OpenCV axes, intrinsics are divided by the image's size. The unit of a clip's world
    is arbitrary. The world is turned so that z is up.

    Args:
        source: folder of camera files CLIP.txt, or of chunks 000000.torch with index.json; or one that has such a
            folder for each split, named as the split.
        near: nearest ray distance from the camera, Euclidean, in stored units. By default 0.1, as in pixelSplat, times
            --scale.
        far: farthest ray distance. By default 1000 times --scale.
        frames: folder that has a folder of images for each camera file: CLIP/TIMESTAMP.jpg or .png. By default that of
            the camera files. Clips without a folder are left out, and counted.
        every: keep every so many-th frame of a clip, from the first one on.
        square: cut the middle square out of each frame before it is shrunk, as pixelSplat does for 256 x 256.
        up: axis of the clip's world that becomes z; auto guesses it by how the camera was held, and says what it
            guessed.
    """

    name = "re10k"
    tells_bounds = True
    settings = ClipSettings

    def list_scenes(self, source: Path, settings: ClipSettings) -> list[Clip]:
        """The clips of the split. Raises UserError for none."""
        require_folder(source)
        if settings.every < 1:
            raise UserError(f"--every {settings.every}: must be 1 or more frames")
        folder = source / settings.split if (source / settings.split).is_dir() else source
        if (folder / INDEX).is_file() and any(folder.glob("*.torch")):
            return [Clip(scene_key(clip), path, clip, None) for clip, path in chunks_of(folder).items()]
        cameras = [path for path in visible(folder) if path.suffix == ".txt"]
        if not cameras:
            raise UserError(f"{folder}: no camera files (CLIP.txt), and no chunks with {INDEX}, in here{_hint(folder)}")
        place = Path(settings.frames) if settings.frames else folder
        clips = [Clip(scene_key(path.stem), path, path.stem, place / path.stem) for path in cameras]
        found = [clip for clip in clips if clip.frames and clip.frames.is_dir()]
        if not found:
            raise UserError(f"{folder}: no frames of {len(clips)} clips in {place}/CLIP; --frames says where they are")
        if len(found) < len(clips):
            complain(f"{len(clips) - len(found)} of {len(clips)} clips have no frames, and are left out", "warning")
        return found

    def read_scene(self, scene: Clip, settings: ClipSettings) -> SceneRecord:
        """Convert one clip; raises UserError listing missing frames, or saying which line is wrong."""
        names, cameras, images = _read_clip(scene)
        where = [f"{scene.folder}, frame {name}" for name in names]
        poses = np.stack([_camera_to_world(row, frame) for row, frame in zip(cameras, where, strict=True)])
        poses[:, :3] = upright_turn(settings.up, poses) @ poses[:, :3]
        if len(number := {name: i for i, name in enumerate(names)}) < len(names):
            raise UserError(f"{scene.folder}: two frames of clip {scene.name} have one timestamp")
        chosen = held_out(sorted(names, key=natural_order)[:: settings.every], settings)
        kept = [number[name] for name in chosen]
        frames = [_read_frame(images[i], cameras[i], where[i], settings) for i in kept]
        pixels, K = [list(parts) for parts in zip(*frames, strict=True)]
        middle = middle_of(zip(names, poses, strict=True), scene, settings)
        return make_record(scene, settings.within(NEAR, FAR), chosen, pixels, K, list(poses[kept]), middle)


def _read_clip(scene: Clip) -> tuple[list[str], np.ndarray, list[Path] | list[bytes]]:
    """Timestamps, (N, 18) numbers and images."""
    if scene.frames is None:
        return read_chunk(scene.folder, scene.name)
    names, cameras = read_cameras(scene.folder)
    return names, cameras, find_images(names, scene.frames, str(scene.folder))


def read_cameras(path: Path) -> tuple[list[str], np.ndarray]:
    """(timestamps, (N, 18) numbers) of a camera file. Raises UserError naming the line that is wrong."""
    try:
        lines = read_bytes(path, MAX_TEXT).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file") from error
    if not lines or "://" not in lines[0]:
        raise UserError(f"{path}: line 1 must be the video's address, as in RealEstate10K's camera files")
    names, rows = [], []
    for number, line in enumerate(lines[1:], 2):
        words = line.split()
        if not words:
            continue
        if len(words) != COLUMNS:
            raise UserError(
                f"{path}, line {number}: {len(words)} columns, expected {COLUMNS}: timestamp and 18 numbers"
            )
        try:
            rows.append([float(word) for word in words[1:]])
            names.append(str(int(words[0])))
        except ValueError as error:  # not printed: it quotes the file, which may hold anything
            raise UserError(f"{path}, line {number}: not all columns are numbers, the first a whole one") from error
    if not names:
        raise UserError(f"{path}: has no frames")
    return names, np.array(rows)


def _camera_to_world(row: np.ndarray, where: str) -> np.ndarray:
    """(4, 4) of 18 numbers. Raises UserError where they are no pose, or state a distortion."""
    if row[4:6].any():
        raise UserError(f"{where}: the two columns after the intrinsics must be 0, found {row[4]:g} and {row[5]:g}")
    w2c = np.eye(4)
    w2c[:3] = row[6:].reshape(3, 4)
    check_pose(w2c, where)
    return np.linalg.inv(w2c)


def _read_frame(
    file: Path | bytes, row: np.ndarray, where: str, settings: ClipSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The uint8 image and normalized intrinsics of a frame, as they are packed: as it is stored, since poses are of
    that.
    """
    fx, fy, cx, cy = row[:4].tolist()
    check_intrinsics(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), where)
    image = (decode_image(file, where) if isinstance(file, bytes) else read_image(file)).astype(np.float32) / 255
    height, width = image.shape[:2]
    if settings.square:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
        fx, fy, cx, cy = fx * width / side, fy * height / side, (cx * width - left) / side, (cy * height - top) / side
    return shrink(image, settings.size, where), np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _hint(folder: Path) -> str:
    """What is there instead."""
    there = [split for split in SPLITS if (folder / split).is_dir()]
    return f"; there is {', '.join(there)}: choose with --split" if there else other_layout(folder)
