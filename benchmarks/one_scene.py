"""One scene from many views: renderer, field and training, without the encoder (configs/one_scene.yaml, NeRF-synthetic
mic at 128 px).

Packs the training and test views, trains, exports, and measures every test view before white: dB per image, averaged.
Goal: 28 dB.

  python benchmarks/one_scene.py nerf_synthetic/mic    minutes on two cores; by default the developers' copy, if any
  python benchmarks/one_scene.py --field hashgrid      the same with a hash grid (configs/one_scene_hashgrid.yaml)
  python benchmarks/one_scene.py --quick               thirty steps, five views: shows only that the program works
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common import ROOT, command_line, hardware, save_results
from vcgen.checkpoints.model_folder import load
from vcgen.cli.pack import main as pack
from vcgen.data.shards.files import read_index
from vcgen.data.views import scene_views
from vcgen.metrics.image import psnr, quantise
from vcgen.types import Views

SHARED = ROOT.parent / "shared" / "data" / "mic_256"
QUICK_STEPS, QUICK_VIEWS = 30, 5
CONFIGS = {"triplane": "configs/one_scene.yaml", "hashgrid": "configs/one_scene_hashgrid.yaml"}


def main() -> None:
    """Pack, train, measure, and file a full run's results."""
    chosen = parsed()
    with tempfile.TemporaryDirectory() as data:
        for split in ("train", "test"):
            options = f"--split {split} --size 128 --near 2 --far 6".split()
            pack(["transforms", str(chosen.scene), f"{data}/{split}", *options])
        seconds = train(Path(data), CONFIGS[chosen.field], chosen.out, chosen.quick)
        truth = test_views(Path(data) / "test", QUICK_VIEWS if chosen.quick else None)
    images, render_seconds = rendered(chosen.out / "model", truth)
    values = psnr(quantise(images), quantise(truth.on(1.0)))
    save_example(torch.cat([truth.on(1.0)[0], images[0]], -1), chosen.out / "example.png")
    figures = {
        "program": "one_scene",
        "field": chosen.field,
        "quick": chosen.quick,
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "load_after": os.getloadavg()[0],
        "views": len(values),
        "psnr": values.mean().item(),
        "psnr_least": values.min().item(),
        "train_seconds": seconds,
        "render_seconds_per_view": render_seconds / len(values),
    }
    cells = f"{len(values)} | {figures['psnr']:.2f} | {figures['psnr_least']:.2f} | {seconds:.0f}"
    lines = [
        "| test views | PSNR dB | worst view | training s | rendering s / view |",
        "| --- | --- | --- | --- | --- |",
        f"| {cells} | {render_seconds / len(values):.2f} |",
    ]
    print("\n".join(lines))
    name = "one_scene" if chosen.field == "triplane" else f"one_scene_{chosen.field}"
    save_results(name, figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("scene", type=Path, nargs="?", default=SHARED, help="a NeRF-synthetic folder")
    parser.add_argument("--field", choices=list(CONFIGS), default="triplane")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "outputs" / "one_scene", help="gets the run, the model and example.png"
    )
    chosen = parser.parse_args()
    if not chosen.scene.is_dir():
        parser.error(f"{chosen.scene} is no folder: give the NeRF-synthetic folder of a scene")
    return chosen


def train(data: Path, config: str, out: Path, quick: bool) -> float:
    """Train and export into ``out``; returns the seconds that training took, starting and validating included."""
    short = ["--trainer.max_steps", str(QUICK_STEPS), "--trainer.val_check_interval", str(QUICK_STEPS)] if quick else []
    start = time.perf_counter()
    data_options = "--data.train", data / "train", "--data.val", data / "test"
    vcgen("fit", "-c", config, *data_options, "--trainer.default_root_dir", out / "run", *short)
    seconds = time.perf_counter() - start
    vcgen("export", "--checkpoint", out / "run" / "checkpoints" / "last.ckpt", "--out", out / "model")
    return seconds


def vcgen(*arguments: object) -> None:
    """Run a vcgen command from the repository's root; what it says goes to standard error."""
    subprocess.run([sys.executable, "-m", "vcgen", *map(str, arguments)], cwd=ROOT, check=True, stdout=sys.stderr)


def test_views(folder: Path, count: int | None) -> Views:
    """The first ``count`` (None: all) views of the packed scene, batch shape (views,)."""
    record = read_index(folder).read(0)
    return scene_views(record, list(range(len(record.views)))[:count])


def rendered(model: Path, truth: Views) -> tuple[Tensor, float]:
    """The model's images (views, 3, H, W) before white from the cameras of ``truth``, and the seconds they took."""
    system = load(model)
    start = time.perf_counter()
    with torch.inference_mode():
        field = system.field(truth[None, :1])
        images = [
            system.render(field, truth.cameras[None, i : i + 1], truth.size).rgb[0, 0] for i in range(len(truth.images))
        ]
    return torch.stack(images), time.perf_counter() - start


def save_example(image: Tensor, path: Path) -> None:
    """Write (3, H, W) as a PNG: truth on the left, rendering on the right."""
    Image.fromarray((quantise(image) * 255).byte().movedim(0, -1).numpy().astype(np.uint8)).save(path)


if __name__ == "__main__":
    main()
