"""The few-shot family on one bench: every member trained for equal processor time on the bundled cars, then measured on
the same views of the test cars with 1, 3, 5 and 10 input views.

Members are configurations as they ship, but for validation, which would take from their time, and loader processes,
whose time would not count. Those that take any number of input views are trained as their configuration says and
measured with all numbers, those that take one with one. Beside the held-out cars stand held-out views of training cars:
two views of each that training never draws, so that one sees what a new object costs. Differences are against copying
the nearest input view and against the mean training image, paired by object.

  python benchmarks/fewshot.py                        10 and 60 minutes of one core for each member: 10 hours
  python benchmarks/fewshot.py --minutes 10 --members triplane lfn
  python benchmarks/fewshot.py --targets 6            on 6 of the 30 views, evenly spread, the same for all
  python benchmarks/fewshot.py --quick                half a minute each of two members, one target a car: shows that it
                                                      works, not what the methods can do

What is trained already, or measured, is not done again: an interrupted run goes on, in the middle of a training, too.
--so-far reports and files what an interrupted run has measured, and names what it has not.
"""

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

from common import ROOT, command_line, days, hardware, save_results, weights_environment
from fewshot_figure import draw
from fewshot_tables import HELD_OUT_VIEWS, cost_table, summary, table
from learning import row

#: Name -> configuration, and what of it is changed: pixelNeRF at its published width needs 40 seconds for an image.
MEMBERS: dict[str, tuple[str, ...]] = {
    "triplane": ("cars64",),
    "ibrnet": ("ibrnet64",),
    "lfn": ("lfn64",),
    "pixelnerf": (
        *("pixelnerf64", "--model.encoder.width=64", "--model.render.samples=32", "--model.render.importance=8"),
        *("--model.render.around_depth=8", "--model.optimizer.lr=1e-3", "--data.contexts=[1, 5]", "--data.targets=2"),
    ),
    "gpnr": ("gpnr64",),
    "srn": ("srn64",),
    "genvs": ("genvs64",),
    "lfnr": ("lfnr64",),
}
#: They take one input view.
ONE_VIEW = ("lfn", "srn")
#: What is changed of all: all cars are trained on, but two of their twenty views.
ALIKE = ("--data.hold_out=0", "--data.held_out_views=[7, 13]", "--data.num_workers=0")
CARS = ROOT / "data" / "cars64"
VIEWS, TARGETS = (1, 3, 5, 10), 30
#: Input views of the training cars, by their number.
TRAINING_VIEWS = {1: [0], 5: [0, 4, 8, 12, 16]}


@dataclass(frozen=True)
class Run:
    """One training of a member, for so many minutes of one core, in its folder. targets: predicted views of each
    test car."""

    name: str
    minutes: float
    folder: Path
    targets: int

    @property
    def model(self) -> Path:
        return self.folder / "model"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 60])
    parser.add_argument("--members", nargs="+", choices=list(MEMBERS), default=list(MEMBERS))
    parser.add_argument("--views", type=int, nargs="+", choices=VIEWS, default=list(VIEWS))
    parser.add_argument("--targets", type=int, default=TARGETS, help="predicted views of each test car, evenly spread")
    parser.add_argument("--so-far", action="store_true", help="train and measure nothing; file what is measured")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "fewshot")
    options = parser.parse_args()
    minutes, members, views, targets = options.minutes, options.members, options.views, options.targets
    if options.quick:
        minutes, members, views, targets = [0.5], ["triplane", "lfn"], [1], 1
    runs = [Run(name, m, options.out / f"{name}_{m:g}min", targets) for m in minutes for name in members]
    if options.so_far:
        runs = [run for run in runs if any(run.folder.glob("views*/results.json"))]
    rows = baselines(options.out, views, targets)
    costs = []
    for run in runs:
        train(run)
        costs.append(cost_of(run))
        found = measured(run, views, options.out / "trivial", options.so_far)
        print("\n".join(table(found)), flush=True)
        rows += found
    lines = [f"{targets} of {TARGETS} target views of each test car. PSNR in dB / LPIPS-squeeze:", ""]
    lines += [*summary(rows, costs), "", *table(rows), "", *cost_table(costs)]
    if missing := unmeasured(rows, minutes):
        lines += ["", f"Not measured: {', '.join(missing)}."]
    print("\n".join(lines))
    draw(rows, options.out / "fewshot.png")
    figures = {"program": "fewshot", "hardware": hardware(), "targets": targets, "rows": rows, "costs": costs}
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
    options += ["--ckpt_path", "last"]  # a training that was interrupted goes on
    one_core = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (run.folder / "log.txt").open("a") as log:
        done = subprocess.run(
            [*command, *ALIKE, *map(str, options), "--samples.turntable", "0", "--trainer.accelerator", "cpu"],
            cwd=ROOT,
            env={**os.environ, **one_core},
            check=False,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        sys.exit(f"fewshot: training {run.name} failed; see {run.folder / 'log.txt'}")
    run_here("export", "--checkpoint", run.folder / "run" / "checkpoints" / "last.ckpt", "--out", run.model)


def run_here(*arguments: object) -> None:
    """A vcgen command in this process, which need not start anew for each."""
    from vcgen.cli.main import main as vcgen

    if vcgen([str(argument) for argument in arguments]):
        sys.exit(f"fewshot: vcgen {arguments[0]} failed")


def loaded(run: Run) -> Any:
    from vcgen.checkpoints import model_folder

    return model_folder.load(run.model)


def most_views(run: Run) -> int:
    """Input views that the member takes."""
    most = loaded(run).most_views
    return max(VIEWS) if most is None else most


def measured(run: Run, views: list[int], trivial: Path, so_far: bool) -> list[dict]:
    """Rows of a trained member: of the test cars, and of held-out views of training cars. trivial: what
    :func:`baselines` wrote. so_far: nothing more is measured."""
    rows, most = [], most_views(run)
    for count, split, folder, protocol in places(views, run.targets, run.folder):
        out = run.folder / folder
        if count > most or (so_far and not (out / "results.json").is_file()):
            continue
        if not (out / "results.json").is_file():
            run_here(
                *("evaluate", "--model", run.model, "--data", CARS / split, "--protocol", protocol, "--out", out),
                *("--lpips", "squeeze", "--offline", "--compare", compared(trivial / folder, count)),
            )
        name = run.name + (HELD_OUT_VIEWS if split == "train" else "")
        rows.append({"name": name, "views": count, "minutes": run.minutes, **figures_of(out)})
    return rows


def unmeasured(rows: list[dict], minutes: list[float]) -> list[str]:
    """What a full table would have beside these rows."""
    found = {(r["name"], r["minutes"], r["views"]) for r in rows}
    missing = []
    for name in MEMBERS:
        for m in minutes:
            counts = [count for count in VIEWS if (name, m, count) not in found]
            if name in ONE_VIEW and len(counts) < len(VIEWS):
                continue
            if counts:
                which = "" if len(counts) == len(VIEWS) else f" with {' and '.join(map(str, counts))} views"
                missing.append(f"{name}{which} ({m:g} minutes)")
    return missing


def places(views: list[int], targets: int, folder: Path) -> list[tuple[int, str, str, Path]]:
    """What is measured: number of input views, split, name of the folder of results, protocol."""
    tests = [(count, "test", f"views{count}", of_test_cars(count, targets, folder)) for count in views]
    trained = [count for count in views if count in TRAINING_VIEWS]
    return tests + [(count, "train", f"train{count}", of_training_cars(count, folder)) for count in trained]


def of_test_cars(count: int, targets: int, folder: Path) -> Path:
    """The shipped protocol of so many input views, with so many of its targets."""
    shipped = ROOT / "configs" / "protocols" / f"cars64_views{count}.json"
    if targets == TARGETS:
        return shipped
    values = json.loads(shipped.read_text())
    kept = [values["targets"][i * TARGETS // targets] for i in range(targets)]
    about = f"{targets} of the {TARGETS} targets of {values['name']}."
    name = f"{values['name']}_{targets}"
    return written({**values, "name": name, "description": about, "targets": kept}, folder)


def of_training_cars(count: int, folder: Path) -> Path:
    """A protocol of the held-out views of every second model, in one of its paints."""
    from vcgen.data.shards.files import read_index

    values = json.loads((ROOT / "configs" / "protocols" / f"cars64_views{count}.json").read_text())
    models: dict[str, str] = {}
    for _, entry in read_index(CARS / "train").samples:
        models.setdefault(entry.group, entry.key)
    objects = {key: {"targets": [7, 13]} for key in list(models.values())[::2]}
    about = {"name": f"cars64_held_out_views{count}", "description": "Held-out views of training cars."}
    chosen = {"context": TRAINING_VIEWS[count], "targets": "listed", "objects": objects, "unlisted": "left out"}
    return written({**values, **about, **chosen, "split": "train", "views": 20}, folder)


def written(protocol: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{protocol['name']}.json"
    path.write_text(json.dumps(protocol))
    return path


def compared(trivial: Path, count: int) -> str:
    """The folders of the baselines, as ``vcgen evaluate --compare`` takes them."""
    names = ["copy_nearest" if count > 1 else "copy_input", "mean_image"]
    return json.dumps([str(trivial / "baselines" / name) for name in names])


def figures_of(out: Path) -> dict:
    """As the rows have them, with the paired differences to the baselines."""
    results = json.loads((out / "results.json").read_text())
    found = {key: value for key, value in row("", out).items() if key not in ("name", "protocol")}
    found["lpips"] = found.pop("lpips_squeeze", None)
    for name, other in results.get("baselines", {}).items():
        found["over_copy" if name.startswith("copy") else "over_mean"] = other["difference"]["psnr"]
    return found


def baselines(out: Path, views: list[int], targets: int) -> list[dict]:
    """Copying the nearest input view and the mean training image."""
    from vcgen.cli.evaluate import Places, score_baselines
    from vcgen.evaluation.protocol import load_protocol
    from vcgen.evaluation.runner import Settings

    os.environ.update(weights_environment())
    settings = Settings(("squeeze",), True, "cpu", 8, (0, 1), False)
    rows = []
    for count, split, name, protocol in places(views, targets, out / "trivial"):
        folder = out / "trivial" / name
        score_baselines(Places(CARS / split, folder, CARS / "train"), load_protocol(protocol), settings)
        for place in json.loads(compared(folder, count)):
            label = Path(place).name + (HELD_OUT_VIEWS if split == "train" else "")
            rows.append({"name": label, "views": count, "minutes": 0, **figures_of(Path(place))})
    return rows


def cost_of(run: Run) -> dict:
    """Weights, multiply-adds and processor time of rendering, steps and rays of the training."""
    from vcgen.data.datamodules.stream import FixedScenes
    from vcgen.data.shards.files import read_index

    model = loaded(run).eval()
    example = FixedScenes(read_index(CARS / "test"), scenes=1, targets=4)[0]
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


if __name__ == "__main__":
    main()
