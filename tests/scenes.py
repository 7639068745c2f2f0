"""Small scenes with known cameras, as records and in the source layouts, for the tests of the data part."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vcgen.data.shards.record import SceneRecord


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3 or 4) -> PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed: int, height: int = 8, width: int = 6, channels: int = 4) -> np.ndarray:
    """Reproducible uint8 pixels; the first is transparent where there is an alpha channel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    if channels == 4:
        pixels[0, 0, 3] = 0
    return pixels


def looking_inwards(count: int, distance: float = 1.3, seed: int = 0) -> np.ndarray:
    """(count, 4, 4) OpenCV camera-to-world matrices on a sphere, z up, looking at the origin."""
    eye = np.random.default_rng(seed).normal(size=(count, 3))
    eye *= distance / np.linalg.norm(eye, axis=-1, keepdims=True)
    forward = -eye / distance
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3] = np.stack([right, np.cross(forward, right), forward, eye], -1)
    return c2w


def make_record(key: str = "scene", count: int = 3, **changes) -> SceneRecord:
    """A valid RGBA record of 8 x 6 pixels, with any field replaced."""
    values = {
        "key": key,
        "images": [png(noise(i)) for i in range(count)],
        "c2w": looking_inwards(count),
        "K": np.tile(np.array([[1.2, 0, 0.5], [0, 0.9, 0.5], [0, 0, 1]]), (count, 1, 1)),
        "size": (8, 6),
        "t_near": 0.8,
        "t_far": 1.8,
        "views": [f"{i:06d}" for i in range(count)],
        "background": "alpha",
    }
    return SceneRecord(**{**values, **changes})


def write_srn_object(
    folder: Path,
    views: int = 3,
    seed: int = 0,
    height: int = 8,
    width: int = 6,
    channels: int = 4,
    poses: np.ndarray | None = None,
) -> np.ndarray:
    """Write an object in the SRN layout (focal 9 pixels); returns its (V, 4, 4) matrices: ``poses``, or else so many
    camera-to-world ones that look inwards.
    """
    c2w = looking_inwards(views, seed=seed) if poses is None else poses
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    (folder / "intrinsics.txt").write_text(f"9. {width / 2} {height / 2} 0.\n0. 0. 0.\n1.\n{height} {width}\n")
    for i in range(len(c2w)):
        (folder / "rgb" / f"{i:06d}.png").write_bytes(png(noise(seed * 100 + i, height, width, channels)))
        (folder / "pose" / f"{i:06d}.txt").write_text(" ".join(repr(float(x)) for x in c2w[i].flatten()))
    return c2w


def write_transforms(folder: Path, frames: list[dict], name: str = "transforms.json", channels: int = 3, **top) -> None:
    """Write a transforms file, and an 8 x 6 (height x width) image for every frame that has none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({**top, "frames": frames}))
    for number, frame in enumerate(frames):
        path = folder / frame["file_path"]
        path = path if path.suffix else path.with_suffix(".png")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(number, channels=channels)).save(path)


def listing(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file below ``folder``."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def posed_frames(c2w: np.ndarray, name: str = "images/r_{}.png", **extra) -> list[dict]:
    """Frames of a transforms file, with OpenGL axes, for (count, 4, 4) OpenCV poses."""
    poses = c2w @ np.diag([1.0, -1.0, -1.0, 1.0])
    return [{"file_path": name.format(i), "transform_matrix": pose.tolist(), **extra} for i, pose in enumerate(poses)]


def set_at(content, path: str, value):
    """Replace, or with ``...`` remove, the entry at a path such as "images.0.view"."""
    *parents, last = [int(name) if name.isdigit() else name for name in path.split(".")]
    for name in parents:
        content = content[name]
    if value is ...:
        del content[last]
    else:
        content[last] = value
