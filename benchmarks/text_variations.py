"""Text to 3D, one change at a time: what Perp-Neg, a second stage and another seed do to a scene.

Each prompt is fitted without and with the change, for equal processor time; differences are of the same prompts, with
95 % bootstrap intervals over prompts.

- Perp-Neg, on DreamFusion.
- MeshRefine, on DreamFusion's scenes; its time comes on top of the scene's. Beside it the mesh of the scene itself,
  with vertex colors, which nothing refined: what of the change is the hard surface alone.
- Another seed, of DreamFusion and of ProlificDreamer: their diversity, LPIPS between the same views of the two scenes.

Measured are the judge's similarity of eight views to the text, colored and textureless, the Janus score of four sides,
and the sharpness of three (vcgen/metrics/sharpness.py).

  python benchmarks/text_variations.py              8 prompts, a minute of one core for each fit: 50 minutes
  python benchmarks/text_variations.py --quick      one prompt, a few steps: shows only that the program works

Scenes are kept in --out, that of text_to_3d.py, and not fitted again.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import ROOT, answered, cell, command_line, hardware, save_results, weights_environment
from text_scenes import (
    CATEGORIES,
    DREAMFUSION,
    MAGIC3D,
    PHOTO,
    PROLIFICDREAMER,
    Budget,
    System,
    fit,
    looks,
    mesh_looks,
    over_white,
    thing,
)
from vcgen.checkpoints import model_folder
from vcgen.data.color_names import COLORS
from vcgen.data.input_camera import InputCamera
from vcgen.diffusion.clip import Clip
from vcgen.errors import UserError
from vcgen.evaluation.retrieval import score, views_of
from vcgen.evaluation.statistics import bootstrap_interval, mean, paired_difference
from vcgen.metrics.janus import AZIMUTHS, janus
from vcgen.metrics.lpips import PerceptualDistance, load_lpips
from vcgen.metrics.sharpness import sharpness
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.shading import Kind
from vcgen.visualization.mesh_files import write_mesh

#: Sides that are judged, in degrees, and the side of their images in pixels.
SIDES, SIZE = tuple(45.0 * number for number in range(8)), 64
#: Likewise of those that sharpness is measured on.
SHARP = 128
#: Grid points along the cube in which the scene's own mesh is looked for, those of configs/dreamfusion.yaml.
RESOLUTION = 96
PERP_NEG = DREAMFUSION.changed("perp_neg", "--model.prompt.perp_neg", "1")
#: Measure -> its digits, and whether more of it is better.
MEASURES = {"similarity": (3, True), "textureless": (3, True), "janus": (3, False), "sharpness": (2, True)}


def main() -> None:
    """Fit what is missing, measure, then print and file the table. Raises UserError for a judge that is none."""
    chosen = arguments()
    os.environ.update(weights_environment())
    things = [thing(category, color) for category in chosen.categories for color in chosen.colors]
    budget = Budget(chosen.seconds, chosen.prior, chosen.out, chosen.quick)
    clip = Clip.from_folder(str(chosen.judge))
    plain = {name: measured(fit(DREAMFUSION, name, budget).folder, name, clip) for name in things}
    other = {name: measured(fit(PERP_NEG, name, budget).folder, name, clip) for name in things}
    meshes = {name: fit(MAGIC3D, name, budget).folder / "mesh.obj" for name in things}
    refined = {name: measured_mesh(mesh, name, budget, clip) for name, mesh in meshes.items()}
    hard = {name: measured_surface(name, budget, clip) for name in things}
    rows = compared("Perp-Neg", plain, other) + compared("MeshRefine", plain, refined)
    rows += compared("surface alone", plain, hard) + compared("MeshRefine beside the surface alone", hard, refined)
    spread = diversity(things, budget)
    lines = table(rows, spread, chosen)
    print("\n".join(lines))
    figures = {"program": "text_variations", "seconds": chosen.seconds, "prompts": things, "judge": chosen.judge.name}
    figures |= {"prior": chosen.prior.name, "hardware": hardware(), "rows": rows, "diversity": spread}
    save_results("text_variations", figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("--categories", nargs="+", default=list(CATEGORIES))
    parser.add_argument("--colors", nargs="+", choices=list(COLORS), default=["red"])
    parser.add_argument("--seconds", type=float, default=60, help="of processor time for a scene's training")
    parser.add_argument("--prior", type=Path, default=ROOT / "data" / "pretrained" / "toys64", help="a text prior")
    parser.add_argument(
        "--judge", type=Path, default=ROOT / "data" / "pretrained" / "clip64_judge", help="a CLIP model's folder"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "text_to_3d")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.categories, chosen.colors, chosen.out = chosen.categories[:1], chosen.colors[:1], chosen.out / "quick"
    return chosen


def measured(folder: Path, name: str, clip: Clip) -> dict[str, float]:
    """Measures of a fitted field."""
    system, prompt = model_folder.load(folder / "field"), PHOTO + name
    seen = {kind: views_of(system, kind, len(SIDES), SIZE) for kind in ("albedo", "textureless")}
    return {
        "similarity": score(clip, seen["albedo"], prompt, [prompt]).similarity,
        "textureless": score(clip, seen["textureless"], prompt, [prompt]).similarity,
        "janus": janus(*looks(folder, AZIMUTHS, SIZE)),
        "sharpness": sharpness(*looks(folder, AZIMUTHS[1:], SHARP)),
    }


def measured_surface(name: str, budget: Budget, clip: Clip) -> dict[str, float]:
    """The same of the mesh of DreamFusion's scene, as its run writes it."""
    field = model_folder.load(budget.folder(DREAMFUSION, name) / "field").encoder.scene()
    with tempfile.TemporaryDirectory() as folder:
        write_mesh(Path(folder) / "mesh.obj", extract_mesh(field, RESOLUTION).mesh)
        return measured_mesh(Path(folder) / "mesh.obj", name, budget, clip)


def measured_mesh(mesh: Path, name: str, budget: Budget, clip: Clip) -> dict[str, float]:
    """The same of a mesh that was made of DreamFusion's scene, seen by its cameras."""
    prompt = PHOTO + name
    camera = InputCamera.of(model_folder.read_config(budget.folder(DREAMFUSION, name) / "field"))

    def similarity(kind: Kind) -> float:
        images = over_white(*mesh_looks(mesh, camera, SIDES, SIZE, kind)).movedim(1, -1)
        return score(clip, images, prompt, [prompt]).similarity

    return {
        "similarity": similarity("albedo"),
        "textureless": similarity("textureless"),
        "janus": janus(*mesh_looks(mesh, camera, AZIMUTHS, SIZE)),
        "sharpness": sharpness(*mesh_looks(mesh, camera, AZIMUTHS[1:], SHARP)),
    }


def compared(change: str, before: Mapping[str, dict[str, float]], after: Mapping[str, dict[str, float]]) -> list[dict]:
    """Rows of a change, a measure each; before, after: by prompt."""
    rows = []
    for measure, (_, higher) in MEASURES.items():
        old, new = ({name: found[measure] for name, found in part.items()} for part in (before, after))
        difference = paired_difference(new, old, {name: name for name in old}, higher)
        rows.append(
            {
                "name": change,
                "measure": measure,
                "before": mean(list(old.values())),
                "after": mean(list(new.values())),
                "difference": difference.mean,
                "interval": difference.interval,
                "improved": difference.improved,
                "scenes": {name: [old[name], new[name]] for name in old},
            }
        )
    return rows


def diversity(things: Sequence[str], budget: Budget) -> list[dict]:
    """Of systems: how far two seeds lie apart. Empty without the weights of LPIPS."""
    try:
        lpips = load_lpips("squeeze", offline=True)
    except UserError:
        return []
    systems = (DREAMFUSION,) if budget.quick else (DREAMFUSION, PROLIFICDREAMER)
    return [apart(system, things, budget, lpips) for system in systems]


def apart(system: System, things: Sequence[str], budget: Budget, lpips: PerceptualDistance) -> dict:
    """Of one system: LPIPS between the views of two seeds, mean over views, by prompt."""
    second = system.changed(f"{system.name}_seed1", "--seed_everything", "1")
    found = {}
    for name in things:
        one, two = (over_white(*looks(fit(kind, name, budget).folder, SIDES, SIZE)) for kind in (system, second))
        found[name] = float(lpips(one.clamp(0, 1), two.clamp(0, 1)).mean())
    values = list(found.values())
    return {"name": system.name, "lpips": mean(values), "interval": bootstrap_interval(values, things), "scenes": found}


def table(rows: list[dict], spread: list[dict], chosen: argparse.Namespace) -> list[str]:
    """In Markdown."""
    length = "a few steps" if chosen.quick else f"{chosen.seconds:g} processor seconds"
    count = len(rows[0]["scenes"])
    lines = [
        f"{count} prompts, {length} of training for each fit; judge, whose similarity it is: {chosen.judge.name}.",
        "",
        "| change | measure | before | after | difference | better in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        digits = MEASURES[row["measure"]][0]
        values = [cell(row["before"], None, digits), cell(row["after"], None, digits)]
        values.append(cell(row["difference"], row["interval"], digits))
        values.append(f"{round(row['improved'] * count)} of {count}")
        lines.append(f"| {row['name']} | {row['measure']} | {' | '.join(values)} |")
    if spread:
        lines += ["", "| system | LPIPS between two seeds |", "| --- | --- |"]
        lines += [f"| {row['name']} | {cell(row['lpips'], row['interval'], 3)} |" for row in spread]
    return lines


if __name__ == "__main__":
    sys.exit(answered(main))
