"""What every output says of how it came about: command, versions, commit, machine, date."""

import functools
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vcgen import __version__
from vcgen.redaction import hide_word

#: Packages that can move a number.
PACKAGES = (
    "torch", "torchvision", "torchmetrics", "lightning", "diffusers", "nerfacc", "lpips", "numpy", "pillow",
    "scikit-image", "trimesh", "webdataset", "jsonargparse", "omegaconf",
)  # fmt: skip


def record() -> dict[str, Any]:
    """All of it: "command", "date" (UTC), "versions" and "hardware"."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"command": command(), "date": date, "versions": versions(), "hardware": hardware()}


def versions() -> dict[str, str]:
    """Of vcgen, Python and the packages that can move a number; "git" is the commit, in a checkout alone."""
    found = {"vcgen": __version__, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return found | ({"git": git_commit()} if git_commit() else {})


@functools.cache
def git_commit() -> str:
    """The commit of the source tree vcgen runs from, with "+" appended when it has local changes; "" outside a git
    checkout.
    """
    try:
        if not _git("ls-files", "provenance.py"):
            return ""
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def command() -> str:
    """The words of the vcgen command that runs, without secrets; of any other program the name alone."""
    program = Path(sys.argv[0])
    ours = "vcgen" in (program.name, program.parent.name)
    return shlex.join(["vcgen", *map(hide_word, sys.argv[1:])]) if ours else program.name


def hardware() -> dict[str, Any]:
    """The processor's name, the cores that this process may use, and the name of the GPU, None without one."""
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": name, "cores": cores, "gpu": gpu}


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return found.stdout.strip()
