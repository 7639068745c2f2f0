"""Processors, GPUs and space."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vcgen.cli.doctor.finding import Finding

CGROUP = Path("/sys/fs/cgroup")
#: Bytes: a run's two checkpoints at the paper's scale take some 3 GB.
LITTLE, TOO_LITTLE = 10 * 10**9, 10**9


def processors(cgroup: Path = CGROUP) -> Iterator[Finding]:
    """Cores this process may use: all, or what affinity and control group leave it."""
    import torch

    total = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    fraction = cgroup_cores(cgroup)
    usable = min(allowed, fraction or allowed)
    limits = [f"affinity {allowed}"] * (allowed < total) + (
        [f"control group {fraction:g}"] if fraction and fraction < allowed else []
    )
    text = (
        f"{usable:g} of {total} cores"
        + (f" ({', '.join(limits)})" if limits else "")
        + f", {torch.get_num_threads()} threads"
    )
    if torch.get_num_threads() > max(1, usable):
        yield Finding(
            "warning", "processors", f"{text} would fight over them; export OMP_NUM_THREADS={max(1, int(usable))}"
        )
    else:
        yield Finding("ok", "processors", text)


def cgroup_cores(folder: Path) -> float | None:
    """The cores that a control group (version 2 or 1) grants, None without a limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def gpus() -> Iterator[Finding]:
    """What PyTorch can use."""
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
            found = f"there is an NVIDIA driver, but PyTorch {torch.__version__} ({built}) cannot use it"
            yield Finding("warning", "gpus", f"{found}; install one that fits")
        else:
            yield Finding("ok", "gpus", "none: everything runs on the processor")
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        text = f"{number}: {about.name}, {about.total_memory / 1e9:.0f} GB"
        if about.major >= 8:
            yield Finding("ok", "gpus", f"{text}, bfloat16")
        else:
            yield Finding("warning", "gpus", f"{text}, no fast bfloat16; give --trainer.precision 32-true")


def space(folder: Path = Path(".")) -> Iterator[Finding]:
    """Room for outputs in the current folder."""
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free in {folder.resolve()}"
    if not os.access(folder, os.W_OK):
        yield Finding("problem", "space", f"{folder.resolve()} cannot be written to; change to another folder")
    elif free < LITTLE:
        yield Finding(
            "problem" if free < TOO_LITTLE else "warning",
            "space",
            f"{text}; make room, or give another trainer.default_root_dir",
        )
    else:
        yield Finding("ok", "space", text)
