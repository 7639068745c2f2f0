"""Does it learn? vcgen and the pixelNeRF baseline, trained for equal wall-clock on the bundled cars, measured on
held-out cars.

Rows: copying the input view, the mean training image, and per training budget vcgen (configs/cars64.yaml) and pixelNeRF
(configs/pixelnerf64.yaml). pixelNeRF needs some 40 s per image on two cores, so both methods are compared on one view
per object (configs/protocols/cars64_view0_sparse.json); vcgen is also measured on all 39.

  python benchmarks/learning.py                       10 and 60 minutes each, one after the other
  python benchmarks/learning.py --side-by-side        the two methods of a budget at the same time, each on its own core
  python benchmarks/learning.py --quick               two minutes each, few images: shows that the program works, not
  what the methods can do
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, command_line, days, hardware, save_results, vcgen, weights_environment

FULL, SPARSE = "configs/protocols/cars64_view0.json", "configs/protocols/cars64_view0_sparse.json"
CONFIGS = {"vcgen": "configs/cars64.yaml", "pixelnerf": "configs/pixelnerf64.yaml"}


@dataclass(frozen=True)
class Run:
    """One training: which method, for how many minutes, in which folder."""

    method: str
    minutes: float
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.method}_{self.minutes:g}min"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 60])
    parser.add_argument("--methods", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--side-by-side", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "learning")
    parser.add_argument("--data", default="data/cars64", help="folder with train/ and test/ shards")
    options = parser.parse_args()
    minutes = [2.0] if options.quick else options.minutes
    runs = [Run(method, m, options.out / f"{method}_{m:g}min") for m in minutes for method in options.methods]
    for group in [[r for r in runs if r.minutes == m] for m in minutes]:
        train(group, options.side_by_side, options.data)
    rows = [row for run in runs for row in evaluate(run, options.quick, options.data)]
    rows = baselines(options.out, options.data) + rows
    print_table(rows)
    figures = {"program": "learning", "side_by_side": options.side_by_side, "hardware": hardware(), "rows": rows}
    save_results("learning", figures, table(rows), quick=options.quick)
    print(json.dumps(figures))


def train(runs: list[Run], side_by_side: bool, data: str) -> None:
    """Train what is not trained yet; side by side, run i has core i to itself."""
    waiting = [run for run in runs if not (run.folder / "model" / "model.safetensors").is_file()]
    processes = []
    for core, run in enumerate(waiting):
        limits = {"OMP_NUM_THREADS": "1"} if side_by_side else {}
        prefix = ["taskset", "-c", str(core)] if side_by_side else []
        command = [
            *prefix,
            sys.executable,
            "-m",
            "vcgen",
            "fit",
            "-c",
            CONFIGS[run.method],
            "--trainer.default_root_dir",
            str(run.folder / "run"),
            "--trainer.max_time",
            days(run.minutes),
            "--data.train",
            f"{data}/train",
        ]
        run.folder.mkdir(parents=True, exist_ok=True)
        print(f"training {run.name}", flush=True)
        log = (run.folder / "log.txt").open("w")
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **limits}, stdout=log, stderr=subprocess.STDOUT
        )
        processes.append((run, process))
        if not side_by_side:
            process.wait()
    for run, process in processes:
        if process.wait():
            sys.exit(f"learning: training {run.name} failed; see {run.folder / 'log.txt'}")
        vcgen(
            "export",
            "--checkpoint",
            run.folder / "run" / "checkpoints" / "last.ckpt",
            "--out",
            run.folder / "model",
            quiet=True,
        )


def evaluate(run: Run, quick: bool, data: str) -> list[dict]:
    """Measure a trained run; the sparse protocol for both methods, the full one for vcgen."""
    protocols = [SPARSE] if quick or run.method == "pixelnerf" else [SPARSE, FULL]
    rows = []
    for protocol in protocols:
        out = run.folder / Path(protocol).stem
        vcgen(
            "evaluate",
            "--model",
            run.folder / "model",
            "--data",
            f"{data}/test",
            "--protocol",
            protocol,
            "--out",
            out,
            "--lpips",
            "squeeze",
            "--offline",
            "--views_per_call",
            "1" if run.method == "pixelnerf" else "8",
            quiet=True,
        )
        rows.append(row(run.name, out))
    return rows


def baselines(out: Path, data: str) -> list[dict]:
    """Copying the input and the mean training image, under both protocols."""
    from vcgen.cli.evaluate import Places, score_baselines
    from vcgen.evaluation.protocol import load_protocol
    from vcgen.evaluation.runner import Settings

    os.environ.update(weights_environment())
    settings = Settings(("squeeze",), True, "cpu", 8, (0, 1), False)
    rows = []
    for protocol in (SPARSE, FULL):
        folder = out / "trivial" / Path(protocol).stem
        score_baselines(
            Places(ROOT / data / "test", folder, ROOT / data / "train"), load_protocol(ROOT / protocol), settings
        )
        rows += [row(name, folder / "baselines" / name) for name in ("copy_input", "mean_image")]
    return rows


def row(name: str, folder: Path) -> dict:
    """The figures of one evaluation folder."""
    results = json.loads((folder / "results.json").read_text())
    metrics = [m for m in results["mean"] if m in ("psnr", "ssim") or m.startswith("lpips")]
    return {
        "name": name,
        "protocol": folder.name if folder.parent.name != "baselines" else folder.parents[1].name,
        "images": len(results["images"]),
        **{m: round(results["mean"][m], 4) for m in metrics},
        "interval95": {m: results["interval95"][m] for m in metrics},
    }


def table(rows: list[dict]) -> list[str]:
    """Markdown, sorted by protocol."""
    lines = ["| method | images | PSNR dB (95 %) | SSIM | LPIPS-squeeze |", "| --- | --- | --- | --- | --- |"]
    for r in sorted(rows, key=lambda r: -r["images"]):
        low, high = r["interval95"]["psnr"]
        lines.append(
            f"| {r['name']} | {r['images']} | {r['psnr']:.2f} ({low:.2f} to {high:.2f}) | {r['ssim']:.3f} |"
            f" {r.get('lpips_squeeze', float('nan')):.3f} |"
        )
    return lines


def print_table(rows: list[dict]) -> None:
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
