"""What the model's options are worth: one change at a time from configs/cars64.yaml, equal steps, same seed, same
held-out images.

Prints PSNR on five models held out of the *training* set (25 scenes, input view 0, all 19 other views each), so that
the test cars do not steer the choice, and seconds per step. One seed each: differences below about 0.1 dB are noise;
the first two rows differ in the seed alone. `--quick` trains 20 steps and shows only that the program works."""

import json
import re
import subprocess
import sys
from pathlib import Path

from common import ROOT, command_line, hardware, save_results
from vcgen.io import replacing

ENCODER, MODEL, DATA = "--model.encoder.init_args", "--model.init_args", "--data.init_args"
#: name -> what differs from the default
OPTIONS: dict[str, list[str]] = {
    "default": [],
    "default, another seed": ["--seed_everything", "1"],
    "orthographic xy plane": [f"{ENCODER}.projection", "orthographic"],
    "concatenated planes": [f"{ENCODER}.decoder.aggregate", "concat"],
    "AdamW for all weights": [f"{MODEL}.optimizer.muon_lr", "null"],
    "8 samples": [f"{MODEL}.render.samples", "8"],
    "32 samples": [f"{MODEL}.render.samples", "32"],
    "8 + 8 samples (importance)": [f"{MODEL}.render.samples", "8", f"{MODEL}.render.importance", "8"],
    "white background": [f"{MODEL}.background", "white"],
    "learned background": [f"{MODEL}.background", "learned"],
    "no mirroring": [f"{DATA}.mirror", "false"],
    "no color permutation": [f"{DATA}.permute_colors", "false"],
    "one target view of 2048 rays": [f"{DATA}.targets", "1", f"{MODEL}.rays_per_view", "2048"],
    "fp32": ["--trainer.precision", "32-true"],
}
#: The line that `vcgen fit` writes per validation.
VALIDATION = re.compile(r"([\d.]+) s/step: .*val/psnr ([\d.]+)")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORDS", help="options whose name contains one of these"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "options")
    choice = parser.parse_args()
    steps = 20 if choice.quick else choice.steps
    names = [name for name in OPTIONS if any(words in name for words in choice.only)]
    rows = [measure(name, OPTIONS[name], steps, choice.out) for name in (names[:2] if choice.quick else names)]
    table = ["| option | PSNR dB | s / step |", "| --- | --- | --- |"]
    table += [f"| {r['name']} | {r['psnr']:.2f} | {r['seconds_per_step']:.2f} |" for r in rows]
    print("\n".join(table))
    figures = {"program": "options", "steps": steps, "hardware": hardware(), "rows": rows}
    save_results("options", figures, [f"{steps} steps each.", "", *table], quick=choice.quick)
    print(json.dumps(figures))


def measure(name: str, changes: list[str], steps: int, out: Path) -> dict:
    """Train on 26 models, validate on the other five; kept and reused when it is there already."""
    folder = out / f"{re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')}_{steps}"
    log = folder / "log.txt"
    if not log.is_file():
        print(f"training: {name}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "vcgen",
            "fit",
            "-c",
            "configs/cars64.yaml",
            "--trainer.default_root_dir",
            folder / "run",
            "--trainer.max_steps",
            steps,
            "--trainer.max_time",
            "null",
            "--trainer.val_check_interval",
            steps,
            "--samples.turntable",
            "0",
            f"{DATA}.hold_out",
            "5",
            f"{DATA}.val_scenes",
            "25",
            f"{DATA}.val_targets",
            "19",
            *changes,
        ]
        with replacing(log) as partial, partial.open("w") as file:
            subprocess.run([str(word) for word in command], cwd=ROOT, check=True, stdout=file, stderr=subprocess.STDOUT)
    seconds, psnr = VALIDATION.findall(log.read_text())[-1]
    return {"name": name, "psnr": float(psnr), "seconds_per_step": float(seconds)}


if __name__ == "__main__":
    main()
