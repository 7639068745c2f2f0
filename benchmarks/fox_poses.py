"""From photographs alone: does a field that learns from recovered poses become as good as from the given ones?

instant-ngp's fox: `vcgen data poses` finds the cameras of the 50 photos, shrunk by half; they are compared with those
that came with them. Then configs/one_scene.yaml learns the scene from either, with the same seeds, steps and held-out
views (every eighth; the solvers saw them, the fields do not). Both worlds are packed alike: the point that the cameras
look at in the origin, the cameras' median distance from it DISTANCE, near and far as the sparse points tell. Goal:
within 0.5 dB.

  python benchmarks/fox_poses.py fox     minutes on one core; by default the developers' copy, if any
  python benchmarks/fox_poses.py --quick twenty photos, twenty steps: shows only that the program works
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import ROOT, command_line, hardware, save_results
from one_scene import rendered, save_example, test_views, vcgen
from pose_agreement import Agreement, compare
from vcgen.cli.pack import main as pack
from vcgen.cli.poses import main as poses
from vcgen.data.formats.plausible import aim_of
from vcgen.data.shards.files import read_index
from vcgen.metrics.image import psnr, quantise

SHARED = ROOT.parent / "shared" / "data" / "fox"
#: Of the cameras from what they look at, in stored units: the field then holds the fox and most of the room behind it.
DISTANCE = 1.0
SIZE, HOLD_OUT, STEPS = "160x90", 8, 600
GIVEN, FOUND = "given", "found"


def main() -> None:
    """Find poses, pack, learn from both, measure, file."""
    chosen = parsed()
    torch.set_num_threads(chosen.threads)
    work, steps = chosen.out / "data", 20 if chosen.quick else chosen.steps
    shrink(chosen.fox, work / "fox", 20 if chosen.quick else None)
    seconds = solve(work, chosen.quick, chosen.threads)
    pack(["transforms", str(work / "fox"), *whole(work, GIVEN), "--near", "0.1", "--far", "50"])
    agreement = compare(work / FOUND / "whole", work / GIVEN / "whole")
    bounds = pack_alike(work)
    rows = [learned(work, which, seed, steps, chosen.out) for seed in range(chosen.seeds) for which in (GIVEN, FOUND)]
    figures = {
        "program": "fox_poses",
        "quick": chosen.quick,
        "hardware": hardware(),
        "threads": chosen.threads,
        "load_after": os.getloadavg()[0],
        "photos": agreement.views,
        "poses_seconds": seconds,
        "rotation_degrees": spread(agreement.rotation),
        "center_percent": spread(100 * agreement.center),
        "focal_percent": float(100 * np.median(agreement.focal)),
        "near_far": bounds,
        "steps": steps,
        "rows": rows,
        "difference_db": mean_of(rows, FOUND) - mean_of(rows, GIVEN),
    }
    lines = report(figures, agreement)
    print("\n".join(lines))
    save_results("fox_poses", figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("fox", type=Path, nargs="?", default=SHARED, help="the folder of transforms.json and images/")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=1, help="fits of either, with seeds from 0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "outputs" / "fox_poses",
        help="gets poses, data, runs, images; what is there is not done again",
    )
    chosen = parser.parse_args()
    if not (chosen.fox / "transforms.json").is_file():
        parser.error(f"{chosen.fox} has no transforms.json: give instant-ngp's data/nerf/fox")
    return chosen


def shrink(fox: Path, out: Path, count: int | None) -> None:
    """Copy the first ``count`` (None: all) photos at half their size, and the poses that came with them."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    content = json.loads((fox / "transforms.json").read_text())
    content["frames"] = sorted(content["frames"], key=lambda frame: frame["file_path"])[:count]
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].replace(".jpg", ".png")
        if not (out / frame["file_path"]).exists():
            Image.open((fox / frame["file_path"]).with_suffix(".jpg")).reduce(2).save(out / frame["file_path"])
    (out / "transforms.json").write_text(json.dumps(content))


def solve(work: Path, quick: bool, threads: int) -> float:
    """Find the poses and pack them; returns the processor's seconds, those of an earlier run where it has been done."""
    start, note = time.process_time(), work / "seconds.json"
    options = ["--feature-size", "640", "--features", "1500"] if quick else ["--feature-size", "960"]
    poses([str(work / "fox" / "images"), *whole(work, FOUND), *options, "--threads", str(threads)])
    if not note.exists():
        note.write_text(json.dumps(time.process_time() - start))
    return json.loads(note.read_text())


def whole(work: Path, which: str) -> list[str]:
    """Where and how all views of one world are packed, in its own unit."""
    return [str(work / which / "whole"), "--size", SIZE, "--recenter"]


def pack_alike(work: Path) -> tuple[float, float]:
    """Pack both worlds at one scale, parted into training and test views; returns near and far of both."""
    records = {which: read_index(work / which / "whole").read(0) for which in (GIVEN, FOUND)}
    scales = {which: DISTANCE / aim_of(record.c2w).distance for which, record in records.items()}
    near, far = (bound * scales[FOUND] for bound in (records[FOUND].t_near, records[FOUND].t_far))
    model = work / FOUND / "whole.colmap" / "images"
    sources = {
        GIVEN: ["transforms", str(work / "fox")],
        FOUND: ["colmap", str(model), "--images", str(work / "fox" / "images")],
    }
    for which, (form, source, *more) in sources.items():
        for split in ("train", "test"):
            options = ["--split", split, "--hold-out-views", str(HOLD_OUT), "--scale", str(scales[which])]
            bounds = ["--near", str(near), "--far", str(far)]
            out = str(work / which / split)
            pack([form, source, out, *more, "--size", SIZE, "--recenter", *options, *bounds])
    return near, far


def learned(work: Path, which: str, seed: int, steps: int, out: Path) -> dict:
    """Train on one world's training views, and measure; what an earlier run has measured is read again."""
    run = out / f"{which}_{seed}_{steps}"
    if not (run / "figures.json").exists():
        data = "--data.train", work / which / "train", "--data.val", work / which / "test"
        budget = "--trainer.max_steps", steps, "--trainer.val_check_interval", steps, "--seed_everything", seed
        vcgen("fit", "-c", "configs/one_scene.yaml", *data, *budget, "--trainer.default_root_dir", run)
        vcgen("export", "--checkpoint", run / "checkpoints" / "last.ckpt", "--out", run / "model")
        figures = {"poses": which, "seed": seed, **measured(run, work / which / "test")}
        (run / "figures.json").write_text(json.dumps(figures))
    return json.loads((run / "figures.json").read_text())


def measured(run: Path, data: Path) -> dict:
    """PSNR of the test views, dB per image."""
    truth = test_views(data, None)
    images, _ = rendered(run / "model", truth)
    values = psnr(quantise(images), quantise(truth.images))
    save_example(torch.cat([truth.images[len(images) // 2], images[len(images) // 2]], -1), run / "example.png")
    return {"views": len(values), "psnr": values.mean().item(), "psnr_least": values.min().item()}


def mean_of(rows: list[dict], which: str) -> float:
    """Mean PSNR over seeds."""
    return float(np.mean([row["psnr"] for row in rows if row["poses"] == which]))


def spread(values: np.ndarray) -> dict[str, float]:
    """Median and largest."""
    return {"median": float(np.median(values)), "largest": float(values.max())}


def report(figures: dict, agreement: Agreement) -> list[str]:
    """The two tables."""
    lines = [
        f"{agreement.views} photos placed; poses beside those that came with them, after a similarity",
        "",
        "| | median | largest |",
        "| --- | --- | --- |",
        "| rotation, degrees | {median:.3f} | {largest:.3f} |".format(**figures["rotation_degrees"]),
        "| center, % of the distance | {median:.3f} | {largest:.3f} |".format(**figures["center_percent"]),
        "",
        f"{figures['steps']} steps of configs/one_scene.yaml on them, {SIZE} pixels",
        "",
        "| poses | seed | test views | PSNR dB | worst view |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += ["| {poses} | {seed} | {views} | {psnr:.2f} | {psnr_least:.2f} |".format(**row) for row in figures["rows"]]
    return [*lines, "", f"found minus given: {figures['difference_db']:+.2f} dB"]


if __name__ == "__main__":
    main()
