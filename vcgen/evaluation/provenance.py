"""What a number must carry to be reproduced: versions, commit, command, hardware, time."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from vcgen import __version__
from vcgen.evaluation.records import ObjectScore
from vcgen.redaction import hide_word


def versions() -> dict[str, str]:
    """Versions of everything that can move a number, and the commit where vcgen runs from a git checkout."""
    found = {"vcgen": __version__, "python": platform.python_version()}
    found |= {name: metadata.version(name) for name in ("torch", "lpips", "torchvision", "numpy", "pillow")}
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    if not (Path(__file__).parents[2] / ".git").exists():
        return found
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return found
    return found | {"commit": git.stdout.strip()}


def run_summary(device: str, views_per_call: int, scores: Sequence[ObjectScore], seconds: float) -> dict[str, Any]:
    """When, where and how fast; nothing in here is part of a number."""
    on_gpu = torch.device(device).type == "cuda"
    hardware = torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()} CPU, {os.cpu_count()} cores"
    views, program = sum(len(score.images) for score in scores), Path(sys.argv[0]).name
    return {
        "command": " ".join(["vcgen", *map(hide_word, sys.argv[1:])]) if program.startswith("vcgen") else program,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "seconds_per_view": round(sum(score.seconds for score in scores) / views, 4),
        "hardware": hardware,
        "device": device,
        "views_per_call": views_per_call,
    }
