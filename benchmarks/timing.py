"""Systems built from the shipped configurations, and how fast a call is on a machine that has other work too."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import vcgen.encoders.pixelnerf
import vcgen.encoders.scene_triplane
import vcgen.encoders.triplane
import vcgen.systems.nerfdiff  # noqa: F401  (imported so that their classes are known by short names)
from common import ROOT
from vcgen.checkpoints.build import build_system
from vcgen.systems.base import System


@dataclass(frozen=True)
class Timing:
    """Seconds per call: wall clock and processor time of all threads, median and least over the rounds."""

    wall: float
    least: float
    processor: float
    least_processor: float


def load_config(name: str) -> dict[str, Any]:
    """A shipped configuration, ``configs/NAME.yaml``, as plain data."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / f"{name}.yaml"), resolve=True)


def load_system(config: Mapping[str, Any]) -> System:
    """The system a configuration describes, with fresh weights: exactly what ``vcgen fit`` would start to train."""
    torch.manual_seed(int(config["seed_everything"]))
    return build_system(f"vcgen.systems.nerfdiff.{config['model']['class_path']}", config["model"]["init_args"])


def precision_of(config: Mapping[str, Any]) -> contextlib.AbstractContextManager:
    """Autocast as Lightning would set it up on CPU for ``trainer.precision``."""
    return torch.autocast("cpu", torch.bfloat16, enabled=config["trainer"]["precision"] == "bf16-mixed")


def measure(
    functions: Mapping[str, Callable[[], object]], rounds: int, least_seconds: float = 0.3
) -> dict[str, Timing]:
    """Time functions in turn (A B A B ...), so that a change in the machine's load meets all of them.

    Each is called twice unmeasured; the second call tells how many make ``least_seconds``: a round times that many
    together."""
    calls = {}
    for name, function in functions.items():
        start = time.perf_counter()
        function()
        if time.perf_counter() - start < 10:
            start = time.perf_counter()
            function()
        calls[name] = max(1, math.ceil(least_seconds / (time.perf_counter() - start)))
    samples = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(calls[name]):
                function()
            samples[name].append(
                ((time.perf_counter() - wall) / calls[name], (time.process_time() - processor) / calls[name])
            )
    columns = {name: tuple(zip(*rows, strict=True)) for name, rows in samples.items()}
    return {
        name: Timing(statistics.median(wall), min(wall), statistics.median(cpu), min(cpu))
        for name, (wall, cpu) in columns.items()
    }


def matmul_peak(dtype: torch.dtype, seconds: float = 2.0, size: int | None = None, device: str = "cpu") -> float:
    """The best rate, in FLOP/s, of square matrix products within ``seconds``: what this machine can reach now."""
    cuda = torch.device(device).type == "cuda"
    size = size or (8192 if cuda else 2048)
    a = torch.randn(size, size, device=device).to(dtype)
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def table(title: str, columns: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table that reads well both as plain text and as Markdown, under a title."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [columns, *rows]
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return [title, "", *lines, ""]
