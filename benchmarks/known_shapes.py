"""Machinery before priors: does score distillation find shapes, if the prior knows them?

An oracle (oracle.py) stands in for the text prior. For each object a hash grid is fitted without a photo, as TextTo3D
does; MeshRefine begins at it and goes on. Measured: the volume IoU, Chamfer distance and F-score at 0.05 of both meshes
against the true surface (objects have radius 0.5, nothing is aligned).

  python benchmarks/known_shapes.py --quick      one object, few steps: shows only that the program works

See benchmarks/README.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
import trimesh

from common import cell, command_line, hardware, save_results
from objects import SCANS, SHARED, KnownObject, surface
from oracle import Oracle, Told
from realfusion_fit import train
from vcgen.cameras import orbit, pinhole
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.errors import UserError
from vcgen.evaluation.statistics import bootstrap_interval, mean
from vcgen.fields.hashgrid import HashGrid
from vcgen.guidance.sds import SDS
from vcgen.losses.scene import SceneWeights
from vcgen.metrics.geometry import compare
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.mesh_refine.system import MeshRefine, solid
from vcgen.systems.text_to_3d.options import TextTo3DOptions
from vcgen.systems.text_to_3d.system import TextTo3D
from vcgen.types import Finetunable, Views

COLUMNS = {"iou": ("IoU", 3), "chamfer": ("Chamfer", 4), "fscore": ("F-score", 3)}
#: The images are lit as they are, so the scene shows color alone.
PLAIN = {"guidance_scale": (1.0, 1.0), "albedo_only": 1.0, "background": "white", "noise_end": None}


class Field(Told):
    """Without the files that begin and end a run."""

    def setup(self, stage: str) -> None:
        """Nothing is left to do."""

    def on_train_end(self) -> None:
        """Nothing is written."""


class Mesh(Field, MeshRefine):
    """The same of a refinement."""


def main() -> int:
    """Fit and measure, then print and file the table."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("--objects", type=int, default=8, help="scans")
    parser.add_argument("--steps", type=int, nargs=2, default=[250, 300], help="of the field, of the mesh")
    parser.add_argument("--size", type=int, nargs=2, default=[32, 64], help="pixels of views, likewise")
    parser.add_argument("--cells", type=int, default=48, help="of the mesh's grid, along the longest edge")
    parser.add_argument("--scans", type=Path, default=SHARED / "ycb_scans", help="folder of baked/*.npz")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.objects, chosen.steps, chosen.size, chosen.cells = 1, [8, 4], [16, 16], 16
    missing = [name for name in SCANS[: chosen.objects] if not (chosen.scans / "baked" / f"{name}.npz").is_file()]
    if missing:
        print(f"known_shapes: error: {chosen.scans} has no baked/{missing[0]}.npz: give --scans", file=sys.stderr)
        return 2
    found: dict[str, dict] = {"field": {}, "mesh": {}}
    for name in SCANS[: chosen.objects]:
        for stage, values in fitted(name, chosen).items():
            found[stage][name] = values
            print(name, stage, values, file=sys.stderr, flush=True)
    rows = [summary(stage, records) for stage, records in found.items()]
    lines = table(rows, chosen)
    print("\n".join(lines))
    figures = {"program": "known_shapes", "steps": chosen.steps, "hardware": hardware(), "rows": rows}
    save_results("known_shapes", figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))
    return 0


def fitted(name: str, chosen: argparse.Namespace) -> dict[str, dict[str, float | None]]:
    """The figures of an object's field, and of the mesh that it is refined to."""
    triangles, corner_rgb = surface(chosen.scans / "baked" / f"{name}.npz")
    camera = orbit(torch.tensor([0.0]), torch.tensor([15.0]), 1.3, pinhole(1.0), 0.8, 1.8)
    photo = Views(torch.ones(1, 3, 32, 32), camera, torch.ones(1, 1, 32, 32))
    known = KnownObject(name, name, photo, triangles, corner_rgb)
    pl.seed_everything(0, verbose=False)
    grid = HashGrid(levels=3, coarsest=8, finest=32, log2_size=16)
    scene = SceneHashGrid(grid, half_size=0.55, radius=0.55, hidden=32, depth=1, blob=(5.0, 0.2))
    options = TextTo3DOptions(render_size=chosen.size[0], coarse=0.0, grid_lr=2e-2, **PLAIN)
    field = Field(
        "",
        scene,
        weights=SceneWeights(smoothness=0.0, orientation=0.0),
        options=options,
        render=RenderOptions(32),
        render_eval=RenderOptions(64),
        occupancy=24,
    )
    outcome = {"field": trained(field, known, chosen.steps[0], lambda: extract_mesh(field.whole_field).mesh)}
    options = TextTo3DOptions(render_size=chosen.size[1], grid_lr=0.1, **PLAIN)
    mesh = Mesh("", Path(), chosen.cells, SDS(start=0.5), consistency=0.01, options=options)
    whole = field.whole_field
    assert isinstance(whole, Finetunable)
    try:
        mesh.scene.start_from(whole)
    except UserError:
        return outcome | {"mesh": measured(trimesh.Trimesh(), known, 0.0)}
    return outcome | {"mesh": trained(mesh, known, chosen.steps[1], lambda: solid(mesh.scene))}


def trained(
    system: TextTo3D, known: KnownObject, steps: int, surface_of: Callable[[], trimesh.Trimesh]
) -> dict[str, float | None]:
    """What a system comes to, trained as ``vcgen fit`` does."""
    start = time.process_time()
    system.known = known
    photo = known.views[None]
    system.use_reference(photo)
    system.use_prior(Oracle(system.options.render_size))
    train(system, photo, known.name, steps)
    system.eval()
    try:
        found = surface_of()
    except UserError:
        found = trimesh.Trimesh()
    return measured(found, known, time.process_time() - start)


def measured(found: trimesh.Trimesh, known: KnownObject, seconds: float) -> dict[str, float | None]:
    """A mesh against the truth; without faces it shares no volume with anything, and its distance is not defined."""
    if not len(found.faces):
        return {"iou": 0.0, "chamfer": None, "fscore": 0.0, "seconds": seconds}
    values = compare(found, known.mesh)
    return {"iou": values.iou, "chamfer": values.chamfer, "fscore": values.fscore, "seconds": seconds}


def summary(stage: str, records: dict[str, dict]) -> dict:
    """Means and 95 % bootstrap intervals over objects, and every object's figures."""
    row: dict = {"name": stage, "objects": records}
    for column in (*COLUMNS, "seconds"):
        values = {name: record[column] for name, record in records.items() if record[column] is not None}
        row[column] = mean(list(values.values())) if values else None
        row[f"{column}_interval"] = bootstrap_interval(list(values.values()), list(values)) if values else None
    return row


def table(rows: list[dict], chosen: argparse.Namespace) -> list[str]:
    """Means, and the IoU of every object."""
    names = list(rows[0]["objects"])
    lines = [
        (
            f"{len(names)} scans; field: {chosen.steps[0]} steps at {chosen.size[0]} px; mesh: {chosen.steps[1]} steps"
            f" at {chosen.size[1]} px, {chosen.cells} cells; 95 % bootstrap intervals over objects; seconds of one"
            " processor."
        ),
        "",
        "| stage | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " | s / object |",
        "| --- " * (len(COLUMNS) + 2) + "|",
    ]
    for row in rows:
        cells = [cell(row[name], row[f"{name}_interval"], digits) for name, (_, digits) in COLUMNS.items()]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['seconds']:.0f} |")
    lines += ["", "| object | " + " | ".join(f"IoU of the {row['name']}" for row in rows) + " |", "| --- | --- | --- |"]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(f"{row['objects'][name]['iou']:.3f}" for row in rows) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
