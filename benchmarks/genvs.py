"""What GeNVS's diffusion prior makes of its field: images against the field's own colors, and whether neighbors agree.

First the test cars from input view 0 by `vcgen evaluate`'s measures: the field in color, and the prior's samples, each
view by itself, with paired differences. Then once around each car, in steps of 360 / --frames degrees: the PSNR between
each image and the one before it, moved by the field's depth (vcgen/metrics/agreement.py), of the field in color, of
samples drawn each by itself, and of `sample_along`, which gives each image those drawn before it.

  python benchmarks/genvs.py MODEL                a model folder of GeNVS with a prior: a quarter of an hour on one core
  python benchmarks/genvs.py MODEL --quick        one view of each car, six frames of two: shows only that it works

OUT/around.png shows three cars on their way around, by each method. What an interrupted run has scored is read again.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common import ROOT, answered, cell, command_line, hardware, save_results, weights_environment
from distillation import DATA, Samples, add_kid, row, score
from distillation_tables import differences, table
from vcgen.cameras import Cameras, orbit, view_angles
from vcgen.checkpoints import model_folder
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.errors import UserError
from vcgen.evaluation.statistics import bootstrap_interval, mean, paired_difference
from vcgen.metrics.agreement import agreement
from vcgen.systems.genvs import GeNVS
from vcgen.types import Views
from vcgen.visualization.images import contact_sheet, to_uint8

METHODS = "field in color", "samples, each by itself", "samples along the path"
SHOWN, ELEVATION = 3, 20.0


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=int, default=24, help="once around")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "genvs_prior")
    options = parser.parse_args()
    os.environ.update(weights_environment())
    model = model_folder.load(options.model)
    if not isinstance(model, GeNVS) or model.prior is None:
        raise UserError(f"{options.model} holds no GeNVS with a prior")
    cars, frames, steps = (2, 6, 2) if options.quick else (15, options.frames, options.steps)
    out = options.out / ("quick" if options.quick else "full")
    rows = images_of(model, options.model, out, steps, options.quick)
    found, groups = around(model, cars, frames, steps, out / "around.png")
    turns, gain = turn_rows(found, groups)
    lines = [*table(rows), *differences(rows), "", *turn_table(turns, gain, frames)]
    print("\n".join(lines))
    figures = {"program": "genvs", "hardware": hardware(), "frames": frames, "steps": steps, "rows": rows}
    figures |= {"agreement": turns, "along_over_each": gain}
    save_results("genvs", figures, lines, options.quick)
    print(json.dumps(figures))


def images_of(model: GeNVS, folder: Path, out: Path, steps: int, quick: bool) -> list[dict]:
    """The field in color and the prior's samples on the test cars."""
    protocol = ROOT / "configs" / "protocols" / f"cars64_view0{'_sparse' if quick else ''}.json"
    methods = {
        "amortized": model,
        "samples": Samples(model, steps),
        "samples_unguided": Samples(model, steps, 1.0, 1.0),
    }
    results, rows = [], []
    for name, system in methods.items():
        result, kept = score(name, system, folder, protocol, out / name, "cpu")
        results.append(result)
        rows.append(row(name, result, kept, results[0]))
    add_kid(rows, out, "cpu")
    return rows


def around(
    model: GeNVS, cars: int, frames: int, steps: int, sheet: Path
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Method -> car -> agreement in dB, and each car's model; sheet: where images of some are drawn."""
    index = read_index(DATA)
    scenes, tiles = FixedScenes(index, cars, 1), []
    found: dict[str, dict[str, float]] = {name: {} for name in METHODS}
    known = {entry.key: entry.group for _, entry in index.samples}
    groups = {}
    for number in range(cars):
        example = scenes[number]
        (key,) = example.keys
        groups[key] = known[key]
        cameras = circle(example.context.cameras[0, 0], frames)
        with torch.no_grad():
            seen = model.render(model.field(example.context), cameras[None], example.target.size)
        drawn = {METHODS[0]: seen.rgb[0]} | {
            name: draw(example.context, cameras, steps)
            for name, draw in zip(METHODS[1:], (sampled(model.sample), sampled(model.sample_along)), strict=True)
        }
        for name, images in drawn.items():
            found[name][key] = agreement(images, seen, cameras)
            if number * SHOWN % cars < SHOWN:
                tiles += [to_uint8(example.context.on(1.0)[0, 0]), *(to_uint8(image) for image in images)]
        print(key, ", ".join(f"{name} {values[key]:.2f} dB" for name, values in found.items()), flush=True)
    Image.fromarray(contact_sheet(np.stack(tiles), columns=frames + 1, gap=2)).save(sheet, optimize=True)
    return found, groups


def sampled(draw: Callable[..., Tensor]) -> Callable[[Views, Cameras, int], Tensor]:
    """What draws images (views, 3, H, W) of one car at cameras (views,), always with the same noise."""

    def images(context: Views, cameras: Cameras, steps: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return draw(context, cameras[None], torch.Generator().manual_seed(0), steps=steps)[0].float()

    return images


def circle(camera: Cameras, frames: int) -> Cameras:
    """Once around at the input's distance, from its azimuth on: (frames,)."""
    azimuth, _ = view_angles(camera.centers)
    angles = azimuth + torch.arange(frames) * 360 / frames
    near, far = float(camera.near), float(camera.far)
    return orbit(angles, torch.full((frames,), ELEVATION), float(camera.centers.norm()), camera.K, near, far)


def turn_rows(found: dict[str, dict[str, float]], groups: dict[str, str]) -> tuple[list[dict], dict]:
    """Means with 95 % intervals over models, and what drawing along the path gains over drawing each by itself."""
    rows = []
    for name, values in found.items():
        interval = bootstrap_interval(list(values.values()), [groups[key] for key in values])
        rows.append({"name": name, "agreement": mean(list(values.values())), "interval95": interval})
    gain = paired_difference(found[METHODS[2]], found[METHODS[1]], groups)
    return rows, {"mean": gain.mean, "interval95": gain.interval, "improved": gain.improved}


def turn_table(rows: list[dict], gain: dict, frames: int) -> list[str]:
    """Markdown."""
    lines = [f"| once around in {frames} images | agreement of neighbors, dB |", "| --- | --- |"]
    lines += [f"| {r['name']} | {cell(r['agreement'], r['interval95'], 2)} |" for r in rows]
    gained = cell(gain["mean"], gain["interval95"], 2)
    return [
        *lines,
        "",
        f"Along the path over each by itself: {gained} dB, better for {100 * gain['improved']:.0f} % of cars.",
    ]


if __name__ == "__main__":
    sys.exit(answered(main))
