"""``vcgen data render MESHES OUT``: the command line of rendered meshes; the work is in ``views.py`` and the packing
loop.
"""

import hashlib
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vcgen.cli import usage
from vcgen.cli.pack import parse_size
from vcgen.data.shards.packing import pack
from vcgen.errors import UserError
from vcgen.io import MAX_JSON, read_bytes
from vcgen.meshes.cameras import camera_set
from vcgen.meshes.loading import KINDS
from vcgen.meshes.surface import Fit
from vcgen.meshes.views import MeshFile, MeshSettings, list_scenes, read_scene, up_axis

#: Settings of other formats, which renderings do not need.
UNUSED: Any = {"near": 0.0, "far": 1.0, "background": "white", "group_pattern": ""}


def main(arguments: list[str]) -> None:
    """Parse ``arguments`` (everything after ``vcgen data render``) and render."""
    usage.run(render, arguments, "vcgen data render", positional=True)


def render(
    meshes: str,
    out: str,
    cameras: str = "sphere",
    views: int | None = None,
    size: str = "128",
    light: Literal["sky", "none"] = "sky",
    up: Literal["auto", "x", "y", "z"] = "auto",
    fit: Fit = "sphere",
    variants: int = 1,
    samples: int = 4,
    kinds: str = ",".join(KINDS),
    plain: bool = False,
    cull: bool = False,
    max_faces: int = 1_000_000,
    name: str = "meshes",
    split: str = "train",
    licence: str = "",
    samples_per_shard: int = 64,
    workers: int = 1,
    skip_broken: bool = False,
    overwrite: bool = False,
) -> None:
    """Render mesh files (.glb, .gltf, .obj, .ply, .stl) into shards of posed images with transparent background.

    An interrupted run continues when the same command is given again. The world has z up; objects stand in its middle.
    The light, the camera sets and the limits are described in docs/data.md.

    Args:
        meshes: a mesh file, or a folder of them; each file is one object, named after its path.
        out: shard folder to make; it appears under this name only when complete.
        cameras: sphere (as SRN cars: distance 1.3, elevation -5 to 75 degrees, seeded by the object's name), srn_test
            (251-view spiral), gso30 (16 views), zero123plus (six views), turntable, or a .json file of cameras.
        views: views of each object, 2 to 10000, for sphere (50 unless given) and turntable (24).
        size: of the images in pixels: "128" for square ones or "HEIGHTxWIDTH", 8 to 2048 a side.
        light: sky, with shadows and two suns; or none: the base color alone.
        up: axis of the files that points up; auto takes y for .glb, .gltf and .obj, z for .ply and .stl.
        fit: sphere puts the object into a sphere of radius 0.5 around the origin; box makes the longest side of its
            bounding box 1; none leaves it as it is.
        variants: of each object, 1 to 100: itself, and others with permuted color channels, axes stretched by up to 15
            %, some mirrored.
        samples: along both sides of a pixel, 1 to 8.
        kinds: of files that are taken from a folder, separated by commas.
        plain: draw shapes alone, in gray, without materials and the files they need.
        cull: leave out the backs of faces that are not double-sided.
        max_faces: faces of an object allowed, 1 to 20000000.
        name: data set name stored with every scene.
        split: name stored with every scene.
        licence: licence stored with every scene.
        samples_per_shard: objects in one tar file.
        workers: processes that render; the bytes written do not depend on it.
        skip_broken: leave out broken meshes (listed at the end) instead of refusing.
        overwrite: replace a shard folder that was made of other meshes or with other settings.
    """
    usage.within("--views", views, 2, 10_000)
    usage.within("--variants", variants, 1, 100)
    usage.within("--samples", samples, 1, 8)
    usage.within("--max-faces", max_faces, 1, 20_000_000)
    listed, count = partial(list_scenes, cameras=cameras), camera_set(cameras).count(views, cameras)
    identity = hashlib.sha256(read_bytes(cameras, MAX_JSON)).hexdigest() if cameras.endswith(".json") else cameras
    settings = MeshSettings(
        **UNUSED,
        size=_size_of(size),
        source=name,
        split=split,
        licence=licence,
        cameras=identity,
        views=views,
        up=up,
        fit=fit,
        kinds=_kinds_of(kinds),
        variants=variants,
        samples=samples,
        lit=light == "sky",
        plain=plain,
        cull=cull,
        max_faces=max_faces,
    )
    print(explain(listed(Path(meshes), settings), settings, f"{count} views, cameras {os.path.basename(cameras)}"))
    pack(listed, read_scene, meshes, out, settings, samples_per_shard, workers, skip_broken, overwrite)


def _size_of(size: str) -> tuple[int, int]:
    height, width = parse_size(size)
    usage.within("--size", min(height, width), 8)
    usage.within("--size", max(height, width), 8, 2048)
    return height, width


def _kinds_of(kinds: str) -> tuple[str, ...]:
    chosen = tuple(kind.strip().lstrip(".").lower() for kind in kinds.split(","))
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        raise UserError(f"--kinds: {unknown[0]!r} is not read; give some of {', '.join(KINDS)}")
    return chosen


def explain(scenes: list[MeshFile], settings: MeshSettings, views: str) -> str:
    """One line: what will be rendered, and which axis was taken to point up."""
    kinds = Counter(
        (scene.folder.suffix[1:].lower(), up_axis(scene.folder, settings.up)) for scene in scenes if scene.variant == 0
    )
    reason = "as --up says" if settings.up != "auto" else "of glTF by its standard, else guessed: --up sets it"
    axes = ", ".join(f"{axis} of {count} .{kind}" for (kind, axis), count in sorted(kinds.items()))
    each = f"{settings.variants} variants of " if settings.variants > 1 else ""
    return f"{sum(kinds.values())} meshes, {each}{views}; up is {axes} ({reason})"
