"""What distillation is worth: the amortized field, the prior's samples, and fields distilled by SDS, NGD with gamma 0,
and NGD.

"ngd_gamma0" is plain sampling, to which the field is fitted: neither the walk nor the prior sees what the field has
become. In "ngd_gamma0_seen" the prior is shown it, as in NGD and SDS, which draws the views together, too; there the
weight alone differs from NGD. Classifier-free guidance trades PSNR for LPIPS in every method, so SDS and plain sampling
are run at two scales each: the one chosen for them on held-out cars, as NGD's was for it (docs/distillation.md), and a
higher one ("_guided"), at which their LPIPS is little below NGD's. What they have at NGD's LPIPS lies between, and
close to the latter.

All on the test cars from input view 0, by the same evaluation (PSNR, SSIM, LPIPS-squeeze, paired differences to the
amortized field), and KID on SqueezeNet features against the true views, which noise cannot please. "virtual" is how
well each distilled field shows the images it was fitted to, in dB: with gamma 0 these are samples made view by view,
and what is missing is their inconsistency.

  python benchmarks/distillation.py data/pretrained/cars64            all 585 views; an hour and a quarter on one core
  python benchmarks/distillation.py FOLDER --quick                    one view per car and few rounds: shows only that
  the program works

What an interrupted run has finished is read again from --out, if it is of the same model, settings and views.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchmetrics.image.kid import KernelInceptionDistance

from common import ROOT, answered, command_line, hardware, save_results, weights_environment
from distillation_tables import PAIRS, add_beside, report, table
from vcgen.checkpoints import model_folder as folder
from vcgen.cli.usage import choose_device
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import INDEX, read_index
from vcgen.data.views import scene_views
from vcgen.diffusion.base import GUIDANCE_SCALE
from vcgen.errors import UserError
from vcgen.evaluation.protocol import load_protocol
from vcgen.evaluation.results import Results, compare, load_results
from vcgen.evaluation.runner import Origin, Settings, evaluate_system
from vcgen.guidance.ngd import NGD
from vcgen.guidance.sds import SDS
from vcgen.io import file_sha256, write_bytes
from vcgen.metrics.features import SqueezeFeatures
from vcgen.systems.distillation.distilled import Distilled, distilled
from vcgen.types import Rendering
from vcgen.visualization.images import contact_sheet, to_uint8

DATA = ROOT / "data" / "cars64" / "test"
#: Scales of classifier-free guidance of SDS and of plain sampling with fitting: chosen on held-out cars, and that of
#: NGD's LPIPS.
SDS_SCALES, PLAIN_SCALES = (1.05, 1.12), (1.0, 1.45)


class Samples:
    """The prior's images, each view by itself, with the contract of a system. The "field" is the input view. settings:
    what determines them besides system and image."""

    def __init__(self, system, steps: int, strength: float = 1.0, guidance_scale: float = GUIDANCE_SCALE):
        self.system, self.steps, self.strength, self.guidance_scale = system, steps, strength, guidance_scale
        self.settings = json.dumps({"steps": steps, "strength": strength, "guidance_scale": guidance_scale, "seed": 0})

    def field(self, context):
        return context

    def render(self, context, cameras, size, background=1.0):
        noise = torch.Generator(self.system.device).manual_seed(0)
        with torch.autocast(self.system.device.type, torch.bfloat16):
            rgb = self.system.sample(context, cameras, noise, size, self.steps, self.guidance_scale, self.strength)
        return Rendering(rgb, torch.ones_like(rgb[:, :, :1]), torch.ones_like(rgb[:, :, :1]))


class Recorder:
    """Passes everything on and keeps the images; after each distillation, how well the field shows the images it was
    fitted to.
    """

    def __init__(self, system):
        self.system, self.images, self.virtual = system, [], []

    def field(self, context):
        field = self.system.field(context)
        state = getattr(self.system, "last", None)
        if state is not None:
            with torch.no_grad():
                error = (state.renderings() - state.targets).square().mean() / 4  # in [0, 1]
            self.virtual.append(float(-10 * error.log10()))
        return field

    def render(self, field, cameras, size, background=1.0):
        rendering = self.system.render(field, cameras, size, background)
        self.images += [to_uint8(image) for image in rendering.rgb[0]]
        return rendering


def main() -> None:
    """Score all methods, then print and file the tables."""
    run(arguments())


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("model", type=Path, help="a model folder with a prior")
    parser.add_argument(
        "--config", default="configs/distill.yaml", help="the distillation by NGD, from which the others are made"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "distillation")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def run(chosen: argparse.Namespace) -> None:
    """The methods in turn. Raises UserError where results of another model or other settings are in the way."""
    os.environ.update(weights_environment())
    device = choose_device(chosen.device)
    protocol = "cars64_view0_sparse" if chosen.quick else "cars64_view0"
    out = chosen.out / ("quick" if chosen.quick else "full")
    methods = systems(folder.load(chosen.model, device), chosen.config, chosen.quick, out)
    rows, results = [], []
    for name, system in methods.items():
        result, kept = score(
            name, system, chosen.model, ROOT / "configs" / "protocols" / f"{protocol}.json", out / name, device
        )
        results.append(result)
        rows.append(row(name, result, kept, results[0]))
        print(table(rows)[-1], flush=True)
    add_kid(rows, out, device)
    sheet(methods, out / "images.png", device)
    add_beside(rows, results)
    lines = report(rows)
    print("\n".join(lines))
    figures = {
        "program": "distillation",
        "quick": chosen.quick,
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    figures["settings"] = {
        name: json.loads(system.settings) for name, system in methods.items() if hasattr(system, "settings")
    }
    save_results("distillation", figures, lines, chosen.quick)
    print(json.dumps(figures))


def systems(system, config: str, quick: bool, out: Path) -> dict:
    """The methods. Samples start from pure noise, with classifier-free guidance and without, or from the rendering
    noised to 0.6 of the schedule. SDS gets as many prior evaluations and field updates as NGD. Fields are kept for the
    report and the sheet."""
    ngd = distilled(system, str(ROOT / config))
    if not isinstance(ngd.guidance, NGD):
        raise UserError(f"--config {config}: its guidance must be NGD, from which the others are made")
    if quick:
        ngd.guidance, ngd.options = replace(ngd.guidance, rounds=2, updates=2), replace(ngd.options, views=4)
    sds = SDS(rounds=ngd.guidance.rounds, updates=ngd.guidance.updates)
    free, first = replace(ngd.guidance, gamma=0.0), replace(ngd.options, condition="first")
    others = {
        **dict(zip(PAIRS[0], [(sds, replace(ngd.options, guidance_scale=scale)) for scale in SDS_SCALES], strict=True)),
        **dict(zip(PAIRS[1], [(free, replace(first, guidance_scale=scale)) for scale in PLAIN_SCALES], strict=True)),
        "ngd_gamma0_seen": (free, ngd.options),
        "ngd": (ngd.guidance, ngd.options),
    }
    steps = 2 if quick else 10
    return {
        "amortized": system,
        "samples": Samples(system, steps),
        "samples_unguided": Samples(system, steps, guidance_scale=1.0),
        "samples_from_rendering": Samples(system, steps, strength=0.6),
        **{name: Distilled(system, *parts, keep=out / name / "fields") for name, parts in others.items()},
    }


def score(name: str, system, model: Path, protocol: Path, out: Path, device: str) -> tuple[Results, dict]:
    """Evaluate a method, or read what an earlier run of this program left; with its images and virtual-view figures."""
    kept, views = out / "kept.json", load_protocol(protocol)
    origin = Origin(name, {**folder.hashes(model), "method": getattr(system, "settings", name)})
    if kept.is_file():
        return earlier(out, {**origin.hashes, "protocol": views.sha256, "data": file_sha256(DATA / INDEX)}), json.loads(
            kept.read_text()
        )
    # of a run that was interrupted: time and images of its objects would be missing in this one's
    for part in ("fields", "records"):
        shutil.rmtree(out / part, ignore_errors=True)
    recorder = Recorder(system)
    evaluate_system(recorder, DATA, views, out, origin, Settings(("squeeze",), True, device, 8, overwrite=True))
    result = load_results(out)
    # The report draws some images again: those after the scored ones.
    np.savez_compressed(out / "images.npz", images=np.stack(recorder.images[: len(result.images)]))
    virtual = recorder.virtual[: result.counts["objects"]]
    found = {"virtual": float(np.mean(virtual)) if virtual else None}
    write_bytes(kept, json.dumps(found).encode())
    return result, found


def earlier(out: Path, hashes: dict[str, str]) -> Results:
    """The results that a folder holds. Raises UserError when they are of another model, method, protocol or data."""
    found = load_results(out)
    if other := [what for what, value in hashes.items() if found.hashes.get(what) != value]:
        raise UserError(f"{out} holds results of other {' and '.join(other)}: delete it, or give another --out")
    return found


def row(name: str, result: Results, kept: dict, first: Results) -> dict:
    """Means, 95 % intervals, seconds per object, and paired differences to the first method. LPIPS is None where the
    computer has no weights for it."""
    names = {"psnr": "psnr", "ssim": "ssim", "lpips": "lpips_squeeze"}
    difference = compare(result, [first])[first.name]["difference"] if name != first.name else None
    return {
        "name": name,
        **{short: result.mean.get(long) for short, long in names.items()},
        "interval95": {short: result.interval95.get(long) for short, long in names.items()},
        "seconds": result.run["seconds_per_view"] * len(result.images) / result.counts["objects"],
        "virtual_psnr": kept["virtual"],
        "difference": difference,
    }


def add_kid(rows: list[dict], out: Path, device: str) -> None:
    """KID x 1000 of each method's images against the true views (Binkowski et al. 2018, arXiv 1801.01401); nothing but
    a line that says so where the computer has no weights for it."""
    try:
        features = SqueezeFeatures(device, offline=True)
    except UserError as error:
        print(f"without KID: {error}", file=sys.stderr)
        return
    protocol_views = {int(image["view"]) for image in load_results(out / "amortized").images}
    index = read_index(DATA)
    truth = [
        to_uint8(p)
        for n in range(len(index.samples))
        for p in scene_views(index.read(n), sorted(protocol_views)).on(1.0)
    ]
    for entry in rows:
        images = np.load(out / entry["name"] / "images.npz")["images"]
        torch.manual_seed(0)
        kid = KernelInceptionDistance(feature=features, subsets=50, subset_size=min(300, len(images) // 2))
        for part, real in ((truth, True), (images, False)):
            kid.update(torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).to(device), real=real)
        entry["kid_x1000"] = 1000 * float(kid.compute()[0])


@torch.no_grad()
def sheet(methods: dict, path: Path, device: str, cars: int = 4, views: int = 2) -> None:
    """An image: per view of some test cars the input, the truth, and each method."""
    scenes = FixedScenes(read_index(DATA), cars, views)
    tiles = []
    for number in range(cars):
        example = scenes[number].to(device)
        shown = [
            m.render(m.field(example.context), example.target.cameras, example.target.size).rgb[0]
            for m in methods.values()
        ]
        for view in range(views):
            tiles += [to_uint8(example.context.on(1.0)[0, 0]), to_uint8(example.target.on(1.0)[0, view])]
            tiles += [to_uint8(images[view]) for images in shown]
    image = Image.fromarray(contact_sheet(np.stack(tiles), columns=2 + len(methods), gap=4))
    image.resize((image.width * 2, image.height * 2), Image.Resampling.LANCZOS).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(answered(main))
