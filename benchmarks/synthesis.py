"""What does a posed image cost in `vcgen data synthesize`, beside a plain z-buffer in numpy that draws as many samples
in the same run?

Cars and objects at 64 pixels with 4 x 4 samples, 50 views each: made, lit, drawn and encoded as PNG, by one core. The
baseline finds the nearest face of the same samples of the same objects, and colors nothing. `--quick`: fewer objects
and views.
"""

import json
from pathlib import Path

import numpy as np
import torch

from common import command_line, hardware, save_results
from rasterizer import baseline
from timing import measure, table
from vcgen.cli.drawn import UNUSED
from vcgen.meshes.cameras import camera_set
from vcgen.meshes.synthesis.cars import make_car
from vcgen.meshes.synthesis.objects import make_object
from vcgen.meshes.synthesis.scenes import SynthesisSettings, list_scenes, read_scene
from vcgen.rendering.meshes import Meshes

SIZE, SAMPLES = 64, 4


def main() -> None:
    """Measure, print, file."""
    parser = command_line(__doc__, filed=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        rows = [measured(kind, *((1, 4) if chosen.quick else (3, 50))) for kind in ("car", "object")]
    lines = table(
        "One core, processor time. Images a second, all included; milliseconds an image; of the baseline; and how often"
        " this goes into that",
        ["kind", "faces", "views", "images / s", "ms", "baseline ms", "baseline / this"],
        [
            [
                r["kind"],
                f"{r['faces']:.0f}",
                str(r["views"]),
                *(f"{r[k]:.1f}" for k in ("rate", "ms", "base_ms", "ratio")),
            ]
            for r in rows
        ],
    )
    print("\n".join(lines))
    figures = {"program": "synthesis", "hardware": hardware(), "threads": 1, "pixels": SIZE, "rows": rows}
    save_results("synthesis", figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))


def measured(kind: str, count: int, views: int) -> dict[str, float | str]:
    """Means over objects of one kind."""
    settings = SynthesisSettings(
        **UNUSED, size=(SIZE, SIZE), source="", split="", licence="", views=views, kind=kind, count=count, seed=0
    )
    scenes = list_scenes(Path(kind), settings)
    make = {"car": make_car, "object": make_object}[kind]
    surfaces = [make(np.random.default_rng([0, scene.number])).fitted("sphere")[0] for scene in scenes]
    meshes = [Meshes(s.triangles.reshape(-1, 3), torch.arange(3 * len(s)).reshape(-1, 3)).welded() for s in surfaces]
    camera = camera_set("sphere").make(np.random.default_rng(0), 2)[:1]
    timings = measure(
        {
            "this": lambda: [read_scene(scene, settings) for scene in scenes],
            "baseline": lambda: [baseline(mesh, camera, SAMPLES * SIZE) for mesh in meshes],
        },
        1,
    )
    ms, base = timings["this"].processor / (count * views) * 1e3, timings["baseline"].processor / count * 1e3
    faces = sum(map(len, surfaces)) / count
    return {
        "kind": kind, "faces": faces, "views": views, "rate": 1e3 / ms, "ms": ms, "base_ms": base, "ratio": base / ms,
    }  # fmt: skip


if __name__ == "__main__":
    main()
