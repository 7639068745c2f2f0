"""What the model's options are worth: one change at a time from configs/cars64.yaml, equal steps, same seed, same held-out pictures.

Prints PSNR, SSIM and LPIPS-squeeze on the test cars (configs/protocols/cars64_view0.json) and seconds per step.
One seed each: differences below about 0.1 dB are noise. `--quick` trains 20 steps and shows only that the program works.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, hardware, save_results, weights_environment

ENCODER, MODEL = "--model.encoder.init_args", "--model.init_args"
#: name -> what differs from the default
OPTIONS: dict[str, list[str]] = {
    "default (orthographic, sum, 16 samples, random background, bf16)": [],
    "perspective xy plane": [f"{ENCODER}.projection", "perspective"],
    "concatenated planes": [f"{ENCODER}.decoder.aggregate", "concat"],
    "24 samples": [f"{MODEL}.render.samples", "24"],
    "48 samples": [f"{MODEL}.render.samples", "48"],
    "8 + 8 samples (importance)": [f"{MODEL}.render.samples", "8", f"{MODEL}.render.importance", "8"],
    "white background": [f"{MODEL}.background", "white"],
    "learned background": [f"{MODEL}.background", "learned"],
    "no mirroring, no colour permutation": ["--data.init_args.mirror", "false", "--data.init_args.permute_colours", "false"],
    "fp32": ["--trainer.precision", "32-true"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORDS", help="options whose name contains one of these")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "options")
    choice = parser.parse_args()
    steps = 20 if choice.quick else choice.steps
    names = [name for name in OPTIONS if any(words in name for words in choice.only)]
    rows = [measure(name, OPTIONS[name], steps, choice.out) for name in (names[:2] if choice.quick else names)]
    table = ["| option | PSNR dB | SSIM | LPIPS-squeeze | s / step |", "| --- | --- | --- | --- | --- |"]
    table += [f"| {r['name']} | {r['psnr']:.2f} | {r['ssim']:.3f} | {r.get('lpips_squeeze', 0):.3f} | {r['seconds_per_step']:.2f} |" for r in rows]
    print("\n".join(table))
    figures = {"program": "options", "steps": steps, "hardware": hardware(), "rows": rows}
    save_results("options", figures, [f"{steps} steps each, one seed.", "", *table], quick=choice.quick)
    print(json.dumps(figures))


def measure(name: str, changes: list[str], steps: int, out: Path) -> dict:
    """Train, export, evaluate; kept and reused when it is there already."""
    folder = out / f"{re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')}_{steps}"
    if not (folder / "eval" / "results.json").is_file():
        print(f"training: {name}", flush=True)
        started = time.time()
        vcgen(
            "fit", "-c", "configs/cars64.yaml", "--trainer.default_root_dir", folder / "run", "--trainer.max_steps", steps,
            "--trainer.max_time", "null", "--trainer.val_check_interval", steps, "--samples.turntable", "0", *changes,
        )
        (folder / "seconds.txt").write_text(str((time.time() - started) / steps))
        vcgen("export", "--checkpoint", folder / "run" / "checkpoints" / "last.ckpt", "--out", folder / "model")
        vcgen(
            "evaluate", "--model", folder / "model", "--data", "data/cars64/test", "--out", folder / "eval", "--lpips", "squeeze", "--offline",
            "--protocol", "configs/protocols/cars64_view0.json",
        )
    means = json.loads((folder / "eval" / "results.json").read_text())["mean"]
    kept = {key: round(value, 4) for key, value in means.items() if key in ("psnr", "ssim", "lpips_squeeze")}
    return {"name": name, **kept, "seconds_per_step": round(float((folder / "seconds.txt").read_text()), 3)}


def vcgen(*arguments: object) -> None:
    """Run a vcgen command from the repository's root."""
    command = [sys.executable, "-m", "vcgen.cli", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **weights_environment()}, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
