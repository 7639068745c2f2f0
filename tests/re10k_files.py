"""A clip of RealEstate10K in both layouts: a camera that passes three dots, level, in a world like a solver's."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from seen_dots import DOTS, draw_dots

SIZE = (90, 160)
#: Focal lengths and principal point divided by the image's size: pixels are square.
INTRINSICS = (0.9, 0.9 * 160 / 90, 0.52, 0.49)
K = np.array([[INTRINSICS[0], 0, INTRINSICS[2]], [0, INTRINSICS[1], INTRINSICS[3]], [0, 0, 1]])
#: In microseconds; the files' names sort otherwise.
TIMES = [900000 + 33367 * number for number in range(6)]
#: The world of a clip has y down and no unit: dots and cameras are in it.
SPOTS = 3.0 * DOTS[:, [0, 2, 1]] * [1, -1, 1] + [0.0, 0.0, 6.0]


def clip_poses(count: int = 6) -> np.ndarray:
    """(count, 4, 4) camera-to-world: sideways and forward, turning left and right, tilted down by 0.1 radians."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    for number, pose in enumerate(poses):
        turn, tilt = 0.12 * (number - count / 2), 0.1
        yaw = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
        pitch = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
        pose[:3, :3], pose[:3, 3] = yaw @ pitch, [-0.6 * (number - count / 2), -0.6, 0.1 * number]
    return poses


def columns(pose: np.ndarray) -> list[float]:
    """The 18 numbers of a camera."""
    return [*INTRINSICS, 0.0, 0.0, *np.linalg.inv(pose)[:3].flatten().tolist()]


def frame(pose: np.ndarray, kind: str = "PNG") -> bytes:
    """An image file of what a camera sees."""
    buffer = io.BytesIO()
    Image.fromarray(draw_dots(SIZE, pose, K, SPOTS)).save(buffer, kind, quality=95, subsampling=0)
    return buffer.getvalue()


def write_clip(folder: Path, name: str = "0a1b", frames: Path | None = None) -> None:
    """``NAME.txt``, and ``NAME/TIMESTAMP.png`` beside it or in another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{time} {' '.join(map(repr, columns(pose)))}" for time, pose in zip(TIMES, clip_poses(), strict=True)]
    (folder / f"{name}.txt").write_text("\n".join(["https://www.example.org/watch?v=x", *lines]) + "\n")
    place = (frames or folder) / name
    place.mkdir(parents=True)
    for time, pose in zip(TIMES, clip_poses(), strict=True):
        (place / f"{time}.png").write_bytes(frame(pose))


def example(name: str) -> dict:
    """A clip as pixelSplat stores it: images as JPEG bytes, cameras in float32."""
    poses = clip_poses()
    return {
        "url": "https://www.example.org/watch?v=x",
        "timestamps": torch.tensor(TIMES, dtype=torch.int64),
        "cameras": torch.tensor([columns(pose) for pose in poses], dtype=torch.float32),
        "images": [torch.from_numpy(np.frombuffer(frame(pose, "JPEG"), np.uint8).copy()) for pose in poses],
        "key": name,
    }


def write_chunks(folder: Path, *chunks: list[dict]) -> None:
    """``000000.torch``, ... and the index."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {}
    for number, clips in enumerate(chunks):
        torch.save(clips, folder / f"{number:06d}.torch")
        index |= {clip["key"]: f"{number:06d}.torch" for clip in clips}
    (folder / "index.json").write_text(json.dumps(index))
