"""Parts of the triplane model, each timed by itself, and the time that training takes to a given quality."""

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from timing import measure, table
from vcgen.fields.lookup import sample_by_bags, sample_by_grid
from vcgen.rendering.volume import RenderOptions

if TYPE_CHECKING:
    from subject import Subject

SAMPLING = [RenderOptions(n) for n in (16, 24, 32, 48)] + [RenderOptions(n, importance=n) for n in (12, 16, 32)]
TITLES = {
    "lookup": "Look-ups of one training step's points",
    "precision": "Precision of the triplane model",
    "samples": "Intervals per ray (first pass + second pass)",
    "rays": "Training step by rays per target view",
}


def ablations(subject: "Subject", rounds: int, found: dict[str, Any]) -> list[str]:
    """Lines of the parts' tables; their figures, in milliseconds, are added to ``found``."""
    parts = {
        "lookup": lookups(subject, rounds),
        "precision": precisions(subject, rounds),
        "samples": sampling(subject, rounds),
        "rays": ray_counts(subject, rounds),
    }
    found["parts_ms"] = parts
    tables = [
        table(TITLES[key], ["variant", "ms"], [[name, f"{ms:.1f}"] for name, ms in part.items()])
        for key, part in parts.items()
    ]
    return [row for table in tables for row in table]


def lookups(subject: "Subject", rounds: int) -> dict[str, float]:
    """The two implementations on the points of a training step: milliseconds forward, and forward with backward."""
    batch = len(subject.example.keys)
    planes = subject.field.planes.clone().repeat(batch, 1, 1, 1, 1).requires_grad_()
    points = torch.rand(batch, subject.rays * subject.points // batch, 3, 2) * 2 - 1

    def forward(sample):
        with torch.no_grad():
            sample(planes, points, True)

    def both(sample):
        planes.grad = None
        sample(planes, points, True).sum().backward()

    implementations = {"grid_sample": sample_by_grid, "embedding_bag": sample_by_bags}
    runs = {f"{name}, forward": lambda s=s: forward(s) for name, s in implementations.items()}
    runs |= {f"{name}, forward + backward": lambda s=s: both(s) for name, s in implementations.items()}
    return milliseconds(runs, rounds)


def precisions(subject: "Subject", rounds: int) -> dict[str, float]:
    """Training step and image in single precision and with bfloat16 autocast, in milliseconds."""
    runs = {}
    for precision in ("32-true", "bf16-mixed"):
        config = copy.deepcopy(subject.config)
        config["trainer"]["precision"] = precision
        variant = dataclasses.replace(subject, config=config)
        runs |= {f"{precision}, training step": variant.train, f"{precision}, image": variant.render}
    return milliseconds(runs, rounds)


def sampling(subject: "Subject", rounds: int) -> dict[str, float]:
    """Training step and image with other numbers of intervals per ray, in milliseconds."""
    runs = {}
    for options in SAMPLING:
        name = f"{options.samples}" + (f" + {options.importance}" if options.importance else "")

        def run(kind: str, options: RenderOptions = options) -> None:
            subject.system.render_options, subject.system.render_eval = options, options
            getattr(subject, kind)()

        runs |= {
            f"{name}, training step": lambda run=run: run("train"),
            f"{name}, image": lambda run=run: run("render"),
        }
    kept = subject.system.render_options, subject.system.render_eval
    try:
        return milliseconds(runs, rounds)
    finally:
        subject.system.render_options, subject.system.render_eval = kept


def ray_counts(subject: "Subject", rounds: int) -> dict[str, float]:
    """Training step with other numbers of rays per target view, in milliseconds: the encoder's fraction does not grow
    with them.
    """
    kept = subject.system.rays_per_view

    def run(rays: int) -> None:
        subject.system.rays_per_view = rays
        subject.train()

    try:
        return milliseconds({f"{rays} rays": lambda rays=rays: run(rays) for rays in (64, 128, 256, 512)}, rounds)
    finally:
        subject.system.rays_per_view = kept


def milliseconds(runs: dict, rounds: int) -> dict[str, float]:
    """Median wall time of each run."""
    return {name: timing.wall * 1e3 for name, timing in measure(runs, rounds).items()}


def learning_times(path: Path, found: dict[str, Any]) -> list[str]:
    """Quality after training, from results of benchmarks/learning.py, and how long vcgen needs for pixelNeRF's best."""
    rows = [row for row in json.loads(path.read_text())["rows"] if re.fullmatch(r"\w+_[\d.]+min", row["name"])]
    fewest = min(row["images"] for row in rows)
    named = [(*row["name"].removesuffix("min").rsplit("_", 1), row["psnr"]) for row in rows if row["images"] == fewest]
    runs = [(method, float(minutes), psnr) for method, minutes, psnr in named]
    found["time_to_quality"], words = time_to_quality(runs)
    cells = [[method, f"{minutes:g}", f"{psnr:.2f}"] for method, minutes, psnr in runs]
    return [*table("Quality after training", ["model", "minutes", "PSNR dB"], cells), *words]


def time_to_quality(runs: list[tuple[str, float, float]]) -> tuple[dict[str, Any], list[str]]:
    """Of (method, minutes, PSNR): the shortest training of vcgen that is as good as pixelNeRF's best, as figures and in
    words.

    Trainings are filed at a few lengths, so the shortest one says "at most", and neither method's true time is known.
    """
    theirs = max((run for run in runs if run[0] == "pixelnerf"), key=lambda run: (run[2], -run[1]), default=None)
    if theirs is None:
        return {"runs": runs}, []
    _, minutes, best = theirs
    ours = min((run for run in runs if run[0] == "vcgen" and run[2] >= best), key=lambda run: run[1], default=None)
    figures = {
        "runs": runs,
        "pixelnerf_best_psnr": best,
        "pixelnerf_minutes": minutes,
        "vcgen_minutes_at_most": ours and ours[1],
    }
    reached = f"pixelNeRF's best is {best:.2f} dB, after {minutes:g} minutes"
    if ours is None:
        return figures, [f"{reached}; no filed training of vcgen is as good.", ""]
    figures["factor"] = minutes / ours[1]
    lengths = ", ".join(f"{method} {length:g}" for method, length, _ in sorted(runs))
    return figures, [
        f"{reached}; vcgen is at least as good after at most {ours[1]:g} minutes ({ours[2]:.2f} dB), "
        + (
            f"and pixelNeRF's training was {figures['factor']:.3g} times as long."
            if figures["factor"] > 1
            else "which is no shorter."
        ),
        f"Trainings are filed at these lengths only, in minutes: {lengths}. Either may have got there sooner.",
        "",
    ]
