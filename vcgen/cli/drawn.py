"""The options that all commands share which render surfaces into shards, and the rendering, by the packing loop."""

import hashlib
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vcgen.cli import usage
from vcgen.cli.pack import parse_size
from vcgen.data.shards.packing import pack
from vcgen.data.shards.record import SceneRecord
from vcgen.errors import UserError
from vcgen.io import MAX_JSON, read_bytes
from vcgen.meshes.cameras import camera_set
from vcgen.meshes.posed import DrawSettings, LightName

#: Settings of other formats, which drawn images do not need.
UNUSED: Any = {"near": 0.0, "far": 1.0, "background": "white"}


def run(
    list_scenes: Callable[..., list[Any]],
    read_scene: Callable[[Any, Any], SceneRecord],
    explain: Callable[[Any, Any, str], str],
    source: str,
    out: str,
    make: Callable[..., DrawSettings],
    skip_broken: bool,
    *,
    cameras: str = "sphere",
    views: int | None = None,
    elevation: str | None = None,
    size: str = "128",
    light: LightName = "sky",
    samples: int = 4,
    depth: bool = False,
    normals: bool = False,
    masks: bool = False,
    split: str = "train",
    samples_per_shard: int = 64,
    workers: int = 1,
    overwrite: bool = False,
) -> None:
    """Check the shared options, say what will be drawn, and draw it.

    Args:
        cameras: sphere (as SRN cars: distance 1.3, elevation -5 to 75 degrees, seeded by the object's name), srn_test
            (251-view spiral), gso30 (16 views), zero123plus (six views), turntable, or a .json file of cameras.
        views: views of each object, 2 to 10000, for sphere (50 unless given) and turntable (24).
        elevation: LOWEST,HIGHEST in degrees, of the cameras sphere; -5,75 unless given.
        size: of the images in pixels: "128" for square ones or "HEIGHTxWIDTH", 8 to 2048 a side.
        light: sky, with shadows and two suns; varied: another sky and other suns for each object; or none: the base
            color alone.
        samples: along both sides of a pixel, 1 to 8.
        depth: also write the Euclidean distance that the center of each pixel sees, as 16-bit PNG beside each image.
        normals: also write the unit normals there, in the world, as 8-bit PNG.
        masks: also write where the object is, at the centers of pixels, as 8-bit PNG.
        split: name stored with every scene.
        samples_per_shard: objects in one tar file.
        workers: processes that render; the bytes written do not depend on it.
        overwrite: replace a shard folder that was made of something else or with other settings.
    """
    usage.within("--views", views, 2, 10_000)
    usage.within("--samples", samples, 1, 8)
    between = None if elevation is None else parse_elevation(elevation)
    count = camera_set(cameras, between).count(views, cameras)
    settings = make(
        **UNUSED,
        size=drawn_size(size),
        split=split,
        cameras=identity_of(cameras),
        views=views,
        elevation=between,
        samples=samples,
        light=light,
        maps=tuple(kind for kind, asked in (("depth", depth), ("normals", normals), ("mask", masks)) if asked),
    )
    listed = partial(list_scenes, cameras=cameras)
    print(explain(listed(Path(source), settings), settings, f"{count} views, cameras {os.path.basename(cameras)}"))
    pack(listed, read_scene, source, out, settings, samples_per_shard, workers, skip_broken, overwrite)


def drawn_size(text: str) -> tuple[int, int]:
    """(height, width) of ``--size``; UserError outside of 8 to 2048 pixels."""
    size = parse_size(text)
    usage.within("--size", min(size), 8)
    usage.within("--size", max(size), 8, 2048)
    return size


def identity_of(cameras: str) -> str:
    """What tells sets of cameras apart: a name, or of a file its hash."""
    return hashlib.sha256(read_bytes(cameras, MAX_JSON)).hexdigest() if cameras.endswith(".json") else cameras


def parse_elevation(text: str) -> tuple[float, float]:
    """The numbers of "-5,75" as floats; UserError for anything else, and where the camera would stand on its head."""
    number = r"\s*([-+]?\d+(?:\.\d*)?)\s*"
    if not (match := re.fullmatch(f"{number},{number}", text)):
        raise UserError(f"--elevation {text!r}: give two numbers of degrees with a comma between them, as -5,75")
    low, high = float(match[1]), float(match[2])
    if not -90 < low < high < 90:
        raise UserError(f"--elevation {text}: the first must be less than the second, and both between -90 and 90")
    return low, high
