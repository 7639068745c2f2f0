"""Mesh files as strangers write them, for the tests of rendering: small, with known geometry and colors."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.meshes.draw import draw, drawable
from vcgen.meshes.light import STANDARD
from vcgen.meshes.parts import read_surface

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quad(uv: bool = True, z: float = 0.0, **material) -> trimesh.Trimesh:
    """A square of side 2 around (0, 0, z) that faces +z, the front of a file with y up. material: of glTF."""
    corners = np.array([[-1, -1, z], [1, -1, z], [1, 1, z], [-1, 1, z]])
    places = (corners[:, :2] + 1) / 2 if uv else None
    visual = TextureVisuals(uv=places, material=PBRMaterial(**material))
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def four_colors(side: int = 8) -> Image.Image:
    """Upper left red, upper right green, lower left blue, lower right white."""
    pixels = np.array([[RED, GREEN], [BLUE, WHITE]], dtype=np.uint8)
    return Image.fromarray(pixels.repeat(side // 2, 0).repeat(side // 2, 1))


def edited(glb: bytes, change: Callable[[dict], None]) -> bytes:
    """A .glb file whose header was changed in place."""
    length = int.from_bytes(glb[12:16], "little")
    change(header := json.loads(glb[20 : 20 + length]))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    total = len(glb) - length + len(text)
    sizes = total.to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return glb[:8] + sizes + glb[16:20] + text + glb[20 + length :]


def front(azimuth: float = 0.0, elevation: float = 0.0) -> Cameras:
    """Far away, so that a square of side 1 that faces it fills the middle half of the image."""
    angles = torch.tensor([azimuth, elevation], dtype=torch.float64)
    return orbit(angles[:1], angles[1:], 50.0, pinhole(25.0).double(), 40.0, 60.0)[0]


def seen(path: Path, size: int = 16, camera: Cameras | None = None, lit: bool = False, cull: bool = False) -> Tensor:
    """(size, size, 4) whole numbers: the file's object, y up, the longest side of its bounding box 1, without light."""
    surface, _ = read_surface(path, "y", 10_000).fitted("box")
    return draw(
        drawable(surface, STANDARD if lit else None, cull), front() if camera is None else camera, (size, size), 4
    ).int()


def quarters(image: Tensor) -> list[tuple[int, ...]]:
    """Colors in the middle of the quarters of what fills the middle half: upper left, upper right, lower left, lower
    right.
    """
    third = image.shape[0] * 3 // 8
    return [tuple(image[row, column].tolist()) for row in (third, -third - 1) for column in (third, -third - 1)]
