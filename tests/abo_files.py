"""An object of ABO, a ball with three dots on its axis, in both layouts: its size and the cameras are known."""

import json
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from scenes import looking_inwards
from seen_dots import DOTS, draw_dots

SIDE, FOCAL = 96, 1.2
K = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]])
#: In meters: where the ball is, how large, and how far the cameras are from its middle.
MIDDLE, BALL, DISTANCE = np.array([0.3, -0.2, 1.0]), 0.8, 3.0
SPOTS = DOTS + MIDDLE
#: Views are numbered with gaps, and not in order.
NUMBERS = (3, 10, 0, 2, 12, 11, 4, 9)
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def poses() -> np.ndarray:
    """(8, 4, 4) camera-to-world, OpenCV axes."""
    c2w = looking_inwards(len(NUMBERS), DISTANCE, seed=8)
    c2w[:, :3, 3] += MIDDLE
    return c2w


def silhouette(c2w: np.ndarray) -> np.ndarray:
    """uint8 (SIDE, SIDE), 255 where a ray through a pixel's center meets the ball."""
    rows, columns = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    rays = np.stack([columns / FOCAL, rows / FOCAL, np.ones_like(rows)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    local = (MIDDLE - c2w[:3, 3]) @ c2w[:3, :3]
    return np.where(np.linalg.norm(np.cross(rays, local), axis=-1) < BALL, 255, 0).astype(np.uint8)


def write_benchmark(folder: Path, environments: tuple[str, ...] = ("0", "1", "2")) -> None:
    """An object of the material benchmark, dimmer under each further environment."""
    views = []
    for number, c2w in zip(NUMBERS, poses(), strict=True):
        for environment in environments:
            place = folder / "render" / environment
            place.mkdir(parents=True, exist_ok=True)
            pixels = draw_dots((SIDE, SIDE), c2w, K, SPOTS) // (1 + int(environment))
            Image.fromarray(pixels).save(place / f"render_{number}.jpg", quality=95, subsampling=0)
        mask = silhouette(c2w)
        mask[:4, :4], mask[SIDE // 2, SIDE // 2] = 1, 254  # noise
        (folder / "segmentation").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "segmentation" / f"segmentation_{number}.png")
        pixels = K * [[SIDE], [SIDE], [1]]
        views.append({"index": number, "K": pixels.flatten().tolist(), "pose": (c2w @ FLIP).flatten().tolist()})
    metadata = {"camera_fov": 45.0, "global_scale": 1.0, "translation": [0, 0, 0], "envs": ["x.hdr"], "views": views}
    (folder / "metadata.json").write_text(json.dumps(metadata))


def write_renderings(folder: Path, name: str) -> None:
    """The same object as one of the renderings for reconstruction: PNG files of 16 bits a channel."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    angle = 2 * math.atan(0.5 / FOCAL)
    for number, c2w in enumerate(poses()):
        pixels = np.concatenate([draw_dots((SIDE, SIDE), c2w, K, SPOTS), silhouette(c2w)[..., None]], -1)
        (folder / f"{name}_{number:02d}.png").write_bytes(png16(pixels))
        camera = {"angle_x": angle, "angle_y": angle, "shift_x": 0.0, "shift_y": 0.0, "sensor_fit": "HORIZONTAL"}
        path = f"/home/somebody/renders/photo_studio_01/{name}/{name}_{number:02d}"
        frames.append({"file_path": path, "transform_matrix": (c2w @ FLIP).tolist(), "camera": camera})
    (folder / "transforms.json").write_text(json.dumps({"obj_path": f"{name}.glb", "frames": frames}))


def png16(pixels: np.ndarray) -> bytes:
    """A PNG file of 16 bits a channel of uint8 (H, W, 4)."""
    height, width = pixels.shape[:2]
    rows = (pixels.astype(np.uint16) * 257).astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = {b"IHDR": struct.pack(">2I5B", width, height, 16, 6, 0, 0, 0), b"IDAT": zlib.compress(data), b"IEND": b""}
    chunks = [struct.pack(">I", len(p)) + n + p + struct.pack(">I", zlib.crc32(n + p)) for n, p in parts.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
