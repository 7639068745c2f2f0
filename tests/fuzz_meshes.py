"""What the fuzzer spoils of meshes that are rendered: their files in every format, what these name, and files of
cameras.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch

from fuzz_mutations import spoil_bytes, spoil_json
from fuzz_specs import MATRIX, NAME, any_of, fixed, one_of, real, rigid, rows, table
from fuzz_subject import Files, Subject, by_rule, spoil_one
from mesh_files import four_colors, quad
from scenes import listing, make_record
from vcgen.meshes.cameras import read_cameras
from vcgen.meshes.parts import read_surface

LENGTH = any_of(one_of(None), real(1e-12, 1e12))
CAMERAS = table(
    others=True,
    c2w=rows(MATRIX, 2),
    K=rows(fixed(*[fixed(*[real(-1e6, 1e6)] * 3)] * 3), 1),
    t_near_=LENGTH,
    t_far_=LENGTH,
    views_=any_of(one_of(None), rows(NAME)),
)


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them. folder: to make the whole files in."""
    for kind in ("glb", "gltf", "obj", "ply", "stl"):
        made = folder / kind
        made.mkdir(parents=True)
        mesh = quad(baseColorTexture=four_colors()) if kind in ("glb", "gltf", "obj") else quad(uv=False)
        if kind == "gltf":
            for name, data in mesh.scene().export(file_type="gltf").items():
                (made / name).write_bytes(data)
        else:
            mesh.export(made / f"model.{kind}")
        files = listing(made)
        spoil = functools.partial(spoil_any, kind)
        yield Subject(
            f"mesh {kind}",
            files,
            spoil,
            functools.partial(surface, next(name for name in files if name.endswith(kind))),
            lambda found: True,
            0.7,
        )
    record = make_record()
    cameras = {
        "c2w": record.c2w.tolist(),
        "K": record.K.tolist(),
        "t_near": 0.8,
        "t_far": 1.8,
        "views": ["a", "b", "c"],
    }
    yield Subject(
        "cameras of meshes",
        {"c.json": json.dumps(cameras).encode()},
        spoil_one("c.json"),
        seen_from,
        by_rule("c.json", cameras_hold),
    )


def spoil_any(kind: str, random: Random, files: Files) -> Files:
    """One of the files that a mesh consists of; the JSON in a binary glTF file, too."""
    name = random.choice(sorted(files))
    data = files[name]
    if name.endswith(".gltf"):
        return {name: spoil_json(random, data, list(files.values()))}
    if kind == "glb" and random.random() < 0.6:
        length = int.from_bytes(data[12:16], "little")
        text = spoil_json(random, data[20 : 20 + length])
        text += b" " * (-len(text) % 4)
        rest = data[20 + length :]
        header = (
            data[:8]
            + (20 + len(text) + len(rest)).to_bytes(4, "little")
            + len(text).to_bytes(4, "little")
            + data[16:20]
        )
        return {name: header + text + rest}
    return {name: spoil_bytes(random, data, list(files.values()))}


def surface(name: str, folder: Path) -> Any:
    """What would be drawn: numbers, within bounds. No format has checksums: other corners and colors are another
    mesh.
    """
    found = read_surface(folder / name, "y", 10_000)
    for values in (found.triangles, found.normals, found.uv, found.rgba, found.cutoff):
        if not bool(torch.isfinite(values).all()):
            raise AssertionError("holds what is no number")
    if len(found) > 10_000 or float(found.rgba.min()) < 0 or int(found.texture.max()) >= len(found.textures):
        raise AssertionError("colors or textures out of their range")
    return [found.triangles, found.normals, found.uv, found.rgba, found.texture, *found.textures]


def seen_from(folder: Path) -> Any:
    """Cameras of a file."""
    found = read_cameras(folder / "c.json")
    cameras = found.make(None, 0)
    return found.names, found.near, found.far, cameras.c2w, cameras.K


def cameras_hold(tree: Any) -> bool:
    """Possible poses and lenses, as many as views."""
    near, far, views = tree.get("t_near"), tree.get("t_far"), tree.get("views")
    lens = (
        all(0.1 <= k[i][i] <= 50 and -2 <= k[i][2] <= 3 for k in tree["K"] for i in (0, 1)) if CAMERAS(tree) else False
    )
    return (
        lens
        and all(map(rigid, tree["c2w"]))
        and (near or 0) < (far or 1e300)
        and (views is None or len(set(views)) == len(tree["c2w"]))
    )
