"""The few-shot family on one bench: every member trained for equal processor time on the bundled cars, then measured on
the same 30 views of the test cars with 1, 3, 5 and 10 input views.

Members are configurations as they ship; those that take any number of input views are trained as their configuration
says and measured with all numbers, those that take one with one. Beside the held-out cars stand views that were trained
on (three cars in 31 are not), so that one sees what generalizing costs. Each row's difference is against copying the
nearest input view, paired by object.

  python benchmarks/fewshot.py                        10 and 60 minutes of one core for each member: 10 hours
  python benchmarks/fewshot.py --minutes 10 --members triplane lfn
  python benchmarks/fewshot.py --quick                half a minute each of two members, one target a car: shows that it
                                                      works, not what the methods can do

What is trained already, or measured, is not done again: an interrupted run goes on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from common import ROOT, days, hardware, save_results, weights_environment
from fewshot_figure import draw
from learning import row, vcgen

#: Name -> configuration, and what of it is changed: pixelNeRF at its published width needs 40 seconds for an image.
MEMBERS: dict[str, tuple[str, ...]] = {
    "triplane": ("cars64",),
    "pixelnerf": (
        *("pixelnerf64", "--model.encoder.width=64", "--model.render.samples=32", "--model.render.importance=8"),
        *("--model.render.around_depth=8", "--model.optimizer.lr=1e-3", "--data.contexts=[1, 5]", "--data.targets=2"),
    ),
    "lfn": ("lfn64",),
    "srn": ("srn64",),
    "ibrnet": ("ibrnet64",),
    "lfnr": ("lfnr64",),
    "gpnr": ("gpnr64",),
    "genvs": ("genvs64",),
}
VIEWS = (1, 3, 5, 10)
#: Two of the twenty views that were trained with.
TRAINED = {
    "views": 20,
    "targets": [7, 13],
    "split": "train",
    "name": "cars64_trained",
    "description": "Views that were trained on.",
}
#: What --quick changes of the protocols.
QUICK = {"targets": [21], "name": "cars64_quick", "description": "One target of each car."}


@dataclass(frozen=True)
class Run:
    """One training of a member, for so many minutes of one core, in its folder; what is changed of the protocols."""

    name: str
    minutes: float
    folder: Path
    changes: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.folder / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 60])
    parser.add_argument("--members", nargs="+", choices=list(MEMBERS), default=list(MEMBERS))
    parser.add_argument("--views", type=int, nargs="+", choices=VIEWS, default=list(VIEWS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "fewshot")
    options = parser.parse_args()
    minutes, members, views = options.minutes, options.members, options.views
    if options.quick:
        minutes, members, views = [0.5], ["triplane", "lfn"], [1]
    changes = QUICK if options.quick else {}
    runs = [Run(name, m, options.out / f"{name}_{m:g}min", changes) for m in minutes for name in members]
    rows = baselines(options.out, views, changes)
    costs = []
    for run in runs:
        train(run)
        costs.append(cost_of(run))
        found = measured(run, views, most_views(run))
        print("\n".join(table(found)), flush=True)
        rows += found
    lines = [*table(rows), "", *cost_table(costs)]
    print("\n".join(lines))
    draw(rows, options.out / "fewshot.png")
    figures = {"program": "fewshot", "hardware": hardware(), "rows": rows, "costs": costs}
    save_results("fewshot", figures, lines, quick=options.quick)
    print(json.dumps(figures))


def train(run: Run) -> None:
    """Train on one core what is not trained yet, and export it."""
    if (run.model / "model.safetensors").is_file():
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    print(f"training {run.name} for {run.minutes:g} minutes", flush=True)
    config, *changes = MEMBERS[run.name]
    command = [sys.executable, "benchmarks/processor_time.py", "-c", f"configs/{config}.yaml", *changes]
    options = ["--trainer.default_root_dir", run.folder / "run", "--trainer.max_time", days(run.minutes)]
    one_core = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (run.folder / "log.txt").open("w") as log:
        done = subprocess.run(
            [*command, *map(str, options), "--samples.turntable", "0", "--trainer.accelerator", "cpu"],
            cwd=ROOT,
            env={**os.environ, **one_core},
            check=False,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        sys.exit(f"fewshot: training {run.name} failed; see {run.folder / 'log.txt'}")
    vcgen("export", "--checkpoint", run.folder / "run" / "checkpoints" / "last.ckpt", "--out", run.model)


def loaded(run: Run) -> Any:
    from vcgen.checkpoints import model_folder

    return model_folder.load(run.model)


def most_views(run: Run) -> int:
    """Input views that the member takes."""
    most = loaded(run).most_views
    return max(VIEWS) if most is None else most


def measured(run: Run, views: list[int], most: int) -> list[dict]:
    """Rows of a trained member: of the test cars, and with fewest views of those that it was trained on."""
    rows = []
    for count in [count for count in views if count <= most]:
        found = evaluated(run, protocol(run.folder, count, run.changes), "test", run.folder / f"views{count}")
        rows.append({"name": run.name, "views": count, "minutes": run.minutes, **found})
    found = evaluated(run, protocol(run.folder, views[0], TRAINED), "train", run.folder / "trained")
    rows.append({"name": f"{run.name}, trained views", "views": views[0], "minutes": run.minutes, **found})
    return rows


def protocol(folder: Path, count: int, changes: dict[str, Any]) -> Path:
    """The protocol of so many input views, changed where asked for."""
    shipped = ROOT / "configs" / "protocols" / f"cars64_views{count}.json"
    if not changes:
        return shipped
    folder.mkdir(parents=True, exist_ok=True)
    changed = folder / f"{changes['name']}_{count}.json"
    changed.write_text(json.dumps({**json.loads(shipped.read_text()), **changes}))
    return changed


def evaluated(run: Run, protocol: Path, split: str, out: Path) -> dict:
    """Figures by one protocol, with the paired difference to copying the nearest view."""
    if not (out / "results.json").is_file():
        vcgen(
            *("evaluate", "--model", run.model, "--data", f"data/cars64/{split}", "--protocol", protocol, "--out", out),
            *("--lpips", "squeeze", "--offline", "--baselines", "--train", "data/cars64/train"),
        )
    return figures_of(out)


def figures_of(out: Path) -> dict:
    """As the rows have them."""
    results = json.loads((out / "results.json").read_text())
    found = {key: value for key, value in row("", out).items() if key not in ("name", "protocol")}
    found["lpips"] = found.pop("lpips_squeeze", None)
    for name, other in results.get("baselines", {}).items():
        if name.startswith("copy"):
            found["over_copy"] = other["difference"]["psnr"]
    return found


def baselines(out: Path, views: list[int], changes: dict[str, Any]) -> list[dict]:
    """Copying the nearest input view and the mean training image."""
    from vcgen.cli.evaluate import Places, score_baselines
    from vcgen.evaluation.protocol import load_protocol
    from vcgen.evaluation.runner import Settings

    os.environ.update(weights_environment())
    settings = Settings(("squeeze",), True, "cpu", 8, (0, 1), False)
    rows = []
    for count in views:
        folder, cars = out / "trivial" / f"views{count}", ROOT / "data" / "cars64"
        score_baselines(
            Places(cars / "test", folder, cars / "train"), load_protocol(protocol(folder, count, changes)), settings
        )
        for name in ("copy_input", "mean_image"):
            found = figures_of(folder / "baselines" / name)
            rows.append({"name": name, "views": count, "minutes": 0, **found})
    return rows


def cost_of(run: Run) -> dict:
    """Weights, multiply-adds and processor time of rendering, steps and rays of the training."""
    from vcgen.data.datamodules.stream import FixedScenes
    from vcgen.data.shards.files import read_index

    model = loaded(run).eval()
    example = FixedScenes(read_index(ROOT / "data" / "cars64" / "test"), scenes=1, targets=4)[0]
    checkpoint = torch.load(run.folder / "run" / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    torch.set_num_threads(1)
    with torch.no_grad():
        start = time.process_time()
        field = model.field(example.context)
        encoding = time.process_time() - start
        start = time.process_time()
        model.render(field, example.target.cameras, example.target.size)
        rendering = (time.process_time() - start) / 4
        with FlopCounterMode(display=False) as counter:
            model.render(field, example.target.cameras, example.target.size)
    pixels = 4 * example.target.size[0] * example.target.size[1]
    return {
        "name": run.name,
        "minutes": run.minutes,
        "parameters": sum(p.numel() for p in model.parameters()),
        "mac_per_pixel": counter.get_total_flops() // 2 // pixels,
        "encoding_seconds": round(encoding, 3),
        "rendering_seconds": round(rendering, 3),
        "steps": int(checkpoint["global_step"]),
    }


def table(rows: list[dict]) -> list[str]:
    """Markdown: a line for each member and number of views."""
    lines = [
        "| method | minutes | input views | PSNR dB (95 %) | over copying, dB | SSIM | LPIPS-squeeze |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in sorted(rows, key=lambda r: (r["minutes"], r["name"], r["views"])):
        low, high = r["interval95"]["psnr"]
        over = r.get("over_copy")
        lines.append(
            f"| {r['name']} | {r['minutes']:g} | {r['views']} | {r['psnr']:.2f} ({low:.2f} to {high:.2f}) |"
            f" {'' if over is None else format(over['mean'], '+.2f')} | {r['ssim']:.3f} |"
            f" {'' if r['lpips'] is None else format(r['lpips'], '.3f')} |"
        )
    return lines


def cost_table(costs: list[dict]) -> list[str]:
    """Markdown: what each member costs."""
    lines = [
        "| method | minutes | million weights | thousand multiply-adds a pixel | image, s | encoding, s | steps |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {c['name']} | {c['minutes']:g} | {c['parameters'] / 1e6:.2f} | {c['mac_per_pixel'] / 1e3:.0f} |"
        f" {c['rendering_seconds']:.2f} | {c['encoding_seconds']:.2f} | {c['steps']} |"
        for c in costs
    ]


if __name__ == "__main__":
    main()
