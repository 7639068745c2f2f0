"""SLURM: how many processes it has started, what it knows of a job, and how it is asked to run one again.

Where SLURM and the Trainer disagree, processes would wait for one another for ever: that is refused in one line.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vcgen.errors import UserError

#: Job names by which SLURM users, and Lightning, mark shells.
INTERACTIVE = ("bash", "interactive")


@dataclass(frozen=True)
class Layout:
    """The processes of a training: ``per_node`` on each of ``nodes``."""

    nodes: int
    per_node: int


def slurm_layout(
    environ: Mapping[str, str], accelerator: Any = "auto", devices: Any = "auto", num_nodes: int = 1
) -> Layout | None:
    """The processes that SLURM has started, or None where SLURM has no part in it: then Lightning starts them.

    accelerator, devices, num_nodes: as given to the Trainer. Raises UserError, in each process alike, for what cannot
    work."""
    if "SLURM_JOB_ID" not in environ or "TORCHELASTIC_RUN_ID" in environ:
        return None
    job, tasks, nodes = (
        environ["SLURM_JOB_ID"],
        int(environ.get("SLURM_NTASKS", 1)),
        int(environ.get("SLURM_NNODES", 1)),
    )
    if "SLURM_STEP_ID" not in environ:
        if tasks > 1 or nodes > 1:
            found = f"SLURM job {job} has {tasks} tasks on {nodes} nodes, but this process was not started by srun"
            raise UserError(
                f"{found} and would wait for the others; use `sbatch slurm/fit.sbatch`, or `srun vcgen fit ...`"
            )
        return None
    if environ.get("SLURM_JOB_NAME") in INTERACTIVE:
        if tasks > 1:
            found = f"SLURM job {job} has {tasks} tasks and the name {environ['SLURM_JOB_NAME']!r}, which marks a shell"
            raise UserError(f"{found}; use `sbatch slurm/fit.sbatch`, or `srun --job-name=train vcgen fit ...`")
        return None
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environ:
        raise UserError(
            f"SLURM job {job} has {tasks} tasks, but not how many per node; give sbatch --ntasks-per-node instead of"
            " --ntasks"
        )
    per_node = int(environ.get("SLURM_NTASKS_PER_NODE", 1))
    if nodes * per_node != tasks:
        found = f"SLURM job {job} started {tasks} tasks on {nodes} nodes, but --ntasks-per-node is {per_node}"
        raise UserError(f"{found}; give srun and sbatch the same --nodes and --ntasks-per-node, and no --ntasks")
    check_trainer(job, Layout(nodes, per_node), count(devices), num_nodes)
    if accelerator in ("auto", "gpu", "cuda"):
        check_gpus(job, per_node, environ, idle_is_meant=count(devices) is not None)
    return Layout(nodes, per_node)


def check_trainer(job: str, layout: Layout, devices: int | None, num_nodes: int) -> None:
    """What the Trainer was told must be what SLURM does; num_nodes 1 is the Trainer's default."""
    if devices not in (None, layout.per_node):
        found = f"trainer.devices is {devices}, but SLURM job {job} has {layout.per_node} tasks per node"
        raise UserError(f"{found}; leave trainer.devices at auto, or give sbatch --ntasks-per-node={devices}")
    if num_nodes not in (1, layout.nodes):
        found = f"trainer.num_nodes is {num_nodes}, but SLURM job {job} has {layout.nodes} nodes"
        raise UserError(f"{found}; leave trainer.num_nodes out, or give sbatch --nodes={num_nodes}")


def check_gpus(job: str, per_node: int, environ: Mapping[str, str], idle_is_meant: bool) -> None:
    """One GPU per task. A job without GPUs trains on CPUs."""
    allocated, visible = environ.get("SLURM_GPUS_ON_NODE"), environ.get("CUDA_VISIBLE_DEVICES")
    gpus = (
        int(allocated or 0)
        if visible is None
        else len([name for name in visible.split(",") if name not in ("", "NoDevFiles")])
    )
    if 0 < gpus < per_node and allocated and int(allocated) >= per_node:
        found = f"each of the {per_node} tasks per node of SLURM job {job} sees {gpus} GPUs only"
        raise UserError(f"{found}; give sbatch --gpus-per-node={per_node} without --gpus-per-task and --gpu-bind")
    if 0 < gpus < per_node:
        raise UserError(
            f"SLURM job {job} has {per_node} tasks per node for {gpus} GPUs; give sbatch --ntasks-per-node={gpus}"
        )
    if gpus > per_node and not idle_is_meant:
        found = f"SLURM job {job} has {gpus} GPUs per node, but {per_node} tasks, one for each GPU that is used"
        raise UserError(f"{found}; give sbatch --ntasks-per-node={gpus}, or set trainer.devices to {per_node}")


def count(devices: Any) -> int | None:
    """How many devices ``trainer.devices`` asks for; None for "auto" and -1, which leave it open."""
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    if "," in text:
        return len([name for name in text.split(",") if name.strip()])
    return int(text) if text.isdecimal() else None


def job_name(environ: Mapping[str, str]) -> str:
    """What ``scontrol`` calls this batch job, or "" outside SLURM and in an interactive shell."""
    if "SLURM_JOB_ID" not in environ or environ.get("SLURM_JOB_NAME") in INTERACTIVE:
        return ""
    if "SLURM_ARRAY_TASK_ID" in environ:
        # The number of one task's job can be that of the whole array.
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def preempted(job: str) -> bool:
    """Whether SIGTERM began the grace time of a preemption. A job that ends within it has failed, for SLURM, and is not
    requeued after it.

    Jobs that SLURM requeues, cancels or stops at their time limit are no longer RUNNING when they get SIGTERM.
    """
    known = job_state(job)
    return known.get("JobState") == "RUNNING" and known.get("PreemptTime", "None") not in ("None", "N/A", "Unknown")


def job_state(job: str) -> dict[str, str]:
    """What SLURM knows of a job, by its own names; empty where it does not answer."""
    output, refusal = scontrol("show", "job", job)
    return {} if refusal else dict(re.findall(r"(\S+?)=(\S*)", output))


def requeue(job: str) -> str:
    """``scontrol requeue``; returns why it failed, "" if it did not. From here on SLURM may kill this job at any
    moment.
    """
    return scontrol("requeue", job)[1]


def scontrol(*words: str) -> tuple[str, str]:
    """(its output, why it failed or "")."""
    try:
        done = subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", " ".join(str(error).split())
    return done.stdout, (
        "" if done.returncode == 0 else " ".join(done.stderr.split()) or f"scontrol's status is {done.returncode}"
    )
