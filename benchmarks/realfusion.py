"""RealFusion on objects whose shape is known: what does each prior make of the sides that the photo does not show?

One rendered view of each object, about 15 degrees above the horizon and of its front if it has one, is the photo; its
camera is known. Methods:
  reference          the photo and the regularizers alone, without a prior
  sds                score distillation, prompt "a photo of a NOUN, VIEW view"
  textual_inversion, lora, dreambooth
                     the same with a prior that was first taught the object from the photo
  oracle             score distillation of a Gaussian prior around the true image of every camera: what the machinery
  can reach
Measured: images at the photo's and at all other known cameras (PSNR, SSIM, LPIPS-squeeze, over white), the extracted
mesh against the truth (Chamfer distance, F-score at 0.05, volume IoU; objects have radius 0.5, nothing is aligned), how
alike the four sides are (janus), how sharp three of them are at 128 px (vcgen/metrics/sharpness.py). With --refine each
scene is measured once more after MeshRefine with the same prior: by configs/magic3d.yaml, or, with the oracle, which
needs no high noise levels, by the code's defaults of consistency and grid_lr from level 0.5 down.

  python benchmarks/realfusion.py --methods reference oracle --objects 4      needs no text prior
  python benchmarks/realfusion.py --quick                                    one object, few steps: shows only that the
  program works

What has been fitted and measured is kept in --out and not done again. See benchmarks/README.md.
"""

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from common import ROOT, answered, cell, command_line, hardware, save_results, weights_environment
from objects import SHARED, KnownObject, load_objects
from realfusion_fit import fit, measure, view_order
from realfusion_refine import refine
from vcgen.errors import UserError
from vcgen.evaluation.statistics import bootstrap_interval, mean
from vcgen.io import replacing
from vcgen.metrics.image import Metrics, quantise
from vcgen.metrics.lpips import load_lpips

METHODS = "reference", "sds", "textual_inversion", "lora", "dreambooth", "oracle"
WITHOUT_PRIOR = "reference", "oracle"
#: column -> (heading, digits)
COLUMNS = {
    "ref_psnr": ("photo PSNR dB", 1),
    "novel_psnr": ("novel PSNR dB", 2),
    "novel_ssim": ("SSIM", 3),
    "novel_lpips_squeeze": ("LPIPS-squeeze", 3),
    "iou": ("IoU", 3),
    "chamfer": ("Chamfer", 4),
    "fscore": ("F-score", 3),
    "janus": ("janus", 3),
    "sharpness": ("sharpness", 2),
}
#: What is added to a method's name for its scenes after refinement.
REFINED = ", refined"
#: Images per row of the sheets.
SHOWN = 8


def main() -> None:
    """Fit and measure what is missing, then print and file the table."""
    chosen = arguments()
    os.environ.update(weights_environment())
    objects = load_objects(chosen.toys, chosen.scans, chosen.meshes, held_out_list(chosen), chosen.objects)
    needed = [method for method in chosen.methods if method not in WITHOUT_PRIOR]
    if needed and not (chosen.prior / "model_index.json").is_file():
        advice = f"give --prior, or --methods {' '.join(WITHOUT_PRIOR)}"
        raise UserError(f"{chosen.prior} is no text prior, which {needed[0]} needs: {advice}")
    metrics = Metrics([load_lpips("squeeze", offline=True)])
    stages = [f"{method}{stage}" for method in chosen.methods for stage in ("", REFINED)[: 1 + bool(chosen.refine)]]
    rows = [row(method, objects, chosen, metrics) for method in stages]
    for known in objects:
        write_sheet(known, chosen)
    lines = table(rows, objects, chosen)
    print("\n".join(lines))
    figures = {
        "program": "realfusion",
        "steps": chosen.steps,
        "refine": chosen.refine,
        "objects": [known.name for known in objects],
        "prior": chosen.prior.name,
        "hardware": hardware(),
        "rows": rows,
    }
    name = "realfusion" + "_refined" * bool(chosen.refine) + "_oracle" * (chosen.methods == ["oracle"])
    save_results(name, figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--objects", type=int, default=8, help="scans and, where they are listed, held-out toys, in turn"
    )
    parser.add_argument("--steps", type=int, default=600, help="of score distillation")
    parser.add_argument("--personal_steps", type=int, help="of each personalization; default: as in its configuration")
    parser.add_argument("--refine", type=int, default=0, help="steps of MeshRefine after that; 0 for none")
    parser.add_argument(
        "--prior", type=Path, default=ROOT / "data" / "pretrained" / "toys64", help="a text prior's folder"
    )
    parser.add_argument(
        "--held_out", type=Path, help="names that the prior was not trained on; default: held_out.txt in its folder"
    )
    parser.add_argument("--toys", type=Path, default=SHARED / "toys64", help="folder of toys.tar and captions.json")
    parser.add_argument("--scans", type=Path, default=SHARED / "ycb_scans", help="folder of baked/*.npz")
    parser.add_argument(
        "--meshes", type=Path, default=SHARED / "meshes_lowpoly_cc0", help="folder of CATEGORY/*.npz, for toys"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "realfusion_benchmark")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.objects, chosen.steps, chosen.personal_steps = 1, 4, 2
        chosen.methods = [method for method in chosen.methods if method in WITHOUT_PRIOR] or chosen.methods[:1]
    return chosen


def held_out_list(chosen: argparse.Namespace) -> Path | None:
    """The list given, or the prior's own where it has one; None: only scans."""
    own = chosen.prior / "held_out.txt"
    return chosen.held_out or (own if own.is_file() else None)


def row(method: str, objects: list[KnownObject], chosen: argparse.Namespace, metrics: Metrics) -> dict:
    """One method on all objects: means, intervals, and every object's numbers."""
    records = {known.name: record(method, known, chosen, metrics) for known in objects}
    result: dict = {"name": method, "objects": records}
    for column in [*COLUMNS, "janus_truth", "sharpness_truth", "seconds"]:
        known = [values[column] for values in records.values() if values.get(column) is not None]
        names = [name for name, values in records.items() if values.get(column) is not None]
        result[column] = mean(known) if known else None
        result[f"{column}_interval"] = bootstrap_interval(known, names) if known else None
    result["novel_lpips"] = result["novel_lpips_squeeze"]
    result["meshless"] = sum("iou" in values and values["chamfer"] is None for values in records.values())
    return result


def record(method: str, known: KnownObject, chosen: argparse.Namespace, metrics: Metrics) -> dict:
    """The numbers of one method on one object, read where they have been measured before."""
    own, refined = method.removesuffix(REFINED), method.endswith(REFINED)
    folder, stage = run_folder(chosen) / own / known.name.replace("/", "_"), f"_refined_{chosen.refine}" * refined
    path = folder / f"record{stage}.json"
    if not path.is_file():
        system, seconds = fit(known, own, chosen.prior, chosen.steps, chosen.personal_steps, folder)
        if refined:
            with suppress(UserError):  # a scene without a surface stays what it is
                system, seconds = refine(system, known, own, chosen.prior, chosen.refine, chosen.personal_steps, folder)
        values, images = measure(system, known, metrics)
        folder.mkdir(parents=True, exist_ok=True)
        save(torch.cat(list(images[:SHOWN]), -1), folder / f"images{stage}.png")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({**values, "seconds": seconds}, indent=1) + "\n")
        print(f"{known.name}, {method}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return json.loads(path.read_text())


def run_folder(chosen: argparse.Namespace) -> Path:
    """Where records of these numbers of steps with this prior are kept."""
    return chosen.out / "_".join(
        str(part) for part in (chosen.prior.name, chosen.steps, chosen.personal_steps) if part is not None
    )


def write_sheet(known: KnownObject, chosen: argparse.Namespace) -> None:
    """The truth, the photo first, above what each method made of it."""
    name, shown = known.name.replace("/", "_"), view_order(known)[:SHOWN]
    truth = (quantise(torch.cat(list(known.views.on(1.0)[shown]), -1)) * 255).byte().movedim(0, -1).numpy()
    rows = {"truth": truth}
    for method in METHODS:
        for label, stage in ((method, ""), (f"{method}{REFINED}", f"_refined_{chosen.refine}")):
            path = run_folder(chosen) / method / name / f"images{stage}.png"
            if path.is_file():
                rows[label] = np.asarray(Image.open(path).convert("RGB"))
    margin, height = 112, truth.shape[0]
    sheet = Image.new("RGB", (margin + truth.shape[1], height * len(rows)), "white")
    for number, (label, pixels) in enumerate(rows.items()):
        sheet.paste(Image.fromarray(pixels), (margin, number * height))
        ImageDraw.Draw(sheet).text((6, number * height + height // 2 - 6), label, fill="black")
    sheet.save(run_folder(chosen) / f"{name}.png")


def save(image: Tensor, path: Path) -> None:
    """Write (3, H, W) in [0, 1] as a PNG."""
    with replacing(path) as temporary:
        Image.fromarray((quantise(image) * 255).byte().movedim(0, -1).numpy()).save(temporary)


def table(rows: list[dict], objects: list[KnownObject], chosen: argparse.Namespace) -> list[str]:
    """Means with their 95 % intervals over objects."""
    solid = sum(known.triangles is not None for known in objects)
    steps = f"{chosen.steps} steps each" + f", {chosen.refine} of refinement" * bool(chosen.refine)
    lines = [
        f"{len(objects)} objects, {solid} with a known surface, {steps}; 95 % bootstrap intervals over objects.",
        "",
        "| method | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " | s / object |",
        "| --- " * (len(COLUMNS) + 2) + "|",
    ]
    for values in rows:
        cells = [cell(values[name], values[f"{name}_interval"], digits) for name, (_, digits) in COLUMNS.items()]
        lines.append(f"| {values['name']} | {' | '.join(cells)} | {values['seconds']:.0f} |")
    lines += against(rows)
    lines += by_refinement(rows)
    first = next((values for values in rows if values["janus_truth"] is not None), None)
    if first is not None:
        scores = f"janus score is {first['janus_truth']:.3f}, their sharpness {first['sharpness_truth']:.2f}"
        lines += ["", f"The true objects' own {scores}."]
    if meshless := {values["name"]: values["meshless"] for values in rows if values["meshless"]}:
        found = ", ".join(f"{name} {count}" for name, count in meshless.items())
        lines += ["", f"Scenes without a surface, which have IoU and F-score 0 and no Chamfer distance: {found}."]
    return lines


def by_refinement(rows: list[dict]) -> list[str]:
    """What refinement changes, object by object."""
    named, lines = {values["name"]: values["objects"] for values in rows}, []
    for name, refined in named.items():
        for known, after in refined.items() if name.endswith(REFINED) else ():
            before = named[name.removesuffix(REFINED)][known]
            pairs = [
                f"{COLUMNS[column][0]} {cell(before[column], None, digits)} to {cell(after[column], None, digits)}"
                for column, digits in (("chamfer", 4), ("fscore", 3), ("iou", 3), ("novel_psnr", 2), ("sharpness", 2))
                if column in before
            ]
            lines.append(f"- {name.removesuffix(REFINED)}, {known}: {'; '.join(pairs)}")
    return ["", "By refinement:", "", *lines] if lines else []


def against(rows: list[dict], first: str = "sds") -> list[str]:
    """What each method gains over score distillation with the plain prompt, object by object; also added to the
    rows.
    """
    plain = next((values["objects"] for values in rows if values["name"] == first), None)
    if plain is None:
        return []
    lines = ["", f"Paired differences to {first} on novel views, with 95 % intervals over objects:", ""]
    for values in rows:
        if values["name"] == first:
            continue
        parts = []
        for column, (heading, digits) in COLUMNS.items():
            if column in ("novel_psnr", "novel_ssim", "novel_lpips_squeeze"):
                gains = [record[column] - plain[name][column] for name, record in values["objects"].items()]
                interval = bootstrap_interval(gains, list(values["objects"]))
                better = sum(gain < 0 if "lpips" in column else gain > 0 for gain in gains)
                values[f"{column}_gain"] = {"mean": mean(gains), "interval": interval, "better": better}
                parts.append(f"{heading} {cell(mean(gains), interval, digits)}, better on {better} of {len(gains)}")
        lines.append(f"- {values['name']}: {'; '.join(parts)}")
    return lines


if __name__ == "__main__":
    sys.exit(answered(main))
