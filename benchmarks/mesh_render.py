"""What does a posed image of a mesh cost in `vcgen data render`, beside a plain z-buffer in numpy that draws as many
samples in the same run?

A bumpy ring of 10,000 faces fills two fifths of the image: with a color for each vertex, and with a texture. One view
of 64 and 128 pixels with 4 x 4 samples each, light, texture, averaging and rounding included; the light, once per
object; and whole objects, from the file to PNGs of 50 views. The baseline finds the nearest face of the same samples,
and colors nothing. `--quick`: fewer rounds and views.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

from common import command_line, hardware, save_results
from rasterizer import baseline, cameras, ring
from timing import measure, table
from vcgen.cli.drawn import UNUSED
from vcgen.meshes.draw import draw, drawable
from vcgen.meshes.parts import read_surface
from vcgen.meshes.views import MeshSettings, list_scenes, read_scene


def main() -> None:
    """Measure, print, file."""
    parser = command_line(__doc__, filed=True)
    quick = (chosen := parser.parse_args()).quick
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        rows = [
            row
            for textured in (False, True)
            for row in measured(saved(Path(folder), textured), textured, 1 if quick else 7)
        ]
        rate = whole(Path(folder), 4 if quick else 50)
    lines = table(
        "One core. Milliseconds: wall clock, median and least; processor, median and least; how often the baseline's"
        " least processor time it goes into",
        ["object", "pixels", "what", "median", "least", "processor", "its least", "baseline / this"],
        [
            [
                r["object"],
                str(r["size"]),
                r["what"],
                *(f"{r[k]:.1f}" for k in ("ms", "least_ms", "processor_ms", "least_processor_ms", "ratio")),
            ]
            for r in rows
        ],
    )
    lines += [
        (
            f"Whole objects of {rate['views']} views at 64 pixels, file to PNG: {rate['views_per_s']:.1f} views per"
            " second of processor time"
        ),
        "",
    ]
    print("\n".join(lines))
    figures = {"program": "mesh_render", "hardware": hardware(), "threads": 1, "rows": rows, "whole": rate}
    save_results("mesh_render", figures, lines, quick or chosen.unfiled)
    print(json.dumps(figures))


def saved(folder: Path, textured: bool) -> Path:
    """A .glb file of the ring."""
    mesh, random = ring(100, 50, "cpu"), np.random.default_rng(0)
    out = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    if textured:
        image = Image.fromarray(random.integers(0, 256, (512, 512, 3), dtype=np.uint8))
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
        out.visual = trimesh.visual.TextureVisuals(uv=mesh.vertices[:, :2].numpy() + 0.5, material=material)
    else:
        out.visual.vertex_colors = random.integers(0, 256, (len(mesh.vertices), 3), dtype=np.uint8)
    trimesh.Scene(out).export(path := folder / ("textured.glb" if textured else "colored.glb"))
    return path


def measured(path: Path, textured: bool, rounds: int) -> list[dict]:
    """Figures of one object."""
    surface, camera = read_surface(path, "z", 20_000).fitted("sphere")[0], cameras(1, "cpu")
    scene, mesh = drawable(surface), ring(100, 50, "cpu")
    rows = []
    for size in (64, 128):
        calls = {
            "baseline": lambda size=size: baseline(mesh, camera, 4 * size),
            "a view": lambda size=size: draw(scene, camera[0], (size, size)),
        }
        if size == 64:
            calls["light, per object"] = lambda: drawable(surface)
        timings = measure(calls, rounds)
        base = timings["baseline"].least_processor
        rows += [
            {
                "object": "textured" if textured else "colored",
                "size": size,
                "what": name,
                "ms": t.wall * 1e3,
                "least_ms": t.least * 1e3,
                "processor_ms": t.processor * 1e3,
                "least_processor_ms": t.least_processor * 1e3,
                "ratio": base / t.least_processor,
            }
            for name, t in timings.items()
        ]
    return rows


def whole(folder: Path, views: int) -> dict:
    """Rate of the command's own work on an object: reading, light, views, PNG."""
    settings = MeshSettings(**UNUSED, size=(64, 64), source="ring", split="train", licence="", views=views, up="z")
    scene = list_scenes(folder, settings)[0]
    timing = measure({"whole": lambda: read_scene(scene, settings)}, 1)["whole"]
    return {"views": views, "views_per_s": views / timing.processor, "seconds": timing.processor}


if __name__ == "__main__":
    main()
