"""SLURM, and where the processes of a training meet."""

import shutil
import socket
from collections.abc import Callable, Iterator, Mapping

from vcgen.cli.doctor.finding import Finding
from vcgen.training.slurm import job_state, slurm_layout

#: Set by launchers for the processes they start; left over in a shell, they make a training wait for processes that
#: never come.
LEFT_OVER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK")


def slurm(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Commands, and inside a job its counts and whether it can be requeued."""
    absent = [name for name in ("sbatch", "srun", "scontrol") if not shutil.which(name)]
    if "SLURM_JOB_ID" not in environ:
        yield Finding(
            "ok", "slurm", "no SLURM here" if absent else "not in a job; see slurm/README.md for how to submit one"
        )
        return
    job = environ["SLURM_JOB_ID"]
    if absent:
        yield Finding(
            "problem",
            "slurm",
            f"in job {job}, but without {', '.join(absent)}; put SLURM's commands on the PATH of jobs",
        )
        return
    layout = slurm_layout({"SLURM_STEP_ID": "0", **environ})  # as under srun
    text = f"{layout.nodes} nodes x {layout.per_node} tasks" if layout else "one process of its own"
    yield Finding(
        "ok",
        "slurm",
        f"job {job}: {text}" + ("" if "SLURM_STEP_ID" in environ else "; trainings are started with srun"),
    )
    yield requeueing(job, job_state(job))


def requeueing(job: str, known: Mapping[str, str]) -> Finding:
    """Whether a training that is stopped can go on by itself."""
    if not known:
        return Finding(
            "warning", "slurm", f"scontrol says nothing of job {job}: submit a stopped training again by hand"
        )
    if known.get("BatchFlag") == "0":
        return Finding(
            "warning", "slurm", f"job {job} is interactive and cannot be requeued; use sbatch slurm/fit.sbatch"
        )
    if known.get("Requeue") == "0":
        return Finding("warning", "slurm", f"job {job} may not be requeued; give sbatch --requeue")
    return Finding("ok", "slurm", f"job {job} may be requeued")


def meeting(environ: Mapping[str, str], resolve: Callable[[str], str] = socket.gethostbyname) -> Iterator[Finding]:
    """MASTER_ADDR, MASTER_PORT and variables of other launchers. resolve: a host's name -> its address."""
    left = [name for name in LEFT_OVER if name in environ]
    if left and "TORCHELASTIC_RUN_ID" not in environ:
        yield Finding("warning", "launch", f"{', '.join(left)} are set, though no launcher runs; unset them")
    nodes = int(environ.get("SLURM_NNODES", 1)) if "SLURM_JOB_ID" in environ else 1
    address = environ.get("MASTER_ADDR")
    if nodes == 1 and address is None:
        yield Finding("ok", "launch", "processes meet on this computer")
        return
    if address is None:
        from lightning.pytorch.plugins.environments import SLURMEnvironment

        address = SLURMEnvironment.resolve_root_node_address(environ.get("SLURM_NODELIST", ""))
    port = environ.get("MASTER_PORT", "made of the job's number" if "SLURM_JOB_ID" in environ else "any")
    try:
        resolve(address)
    except OSError:
        advice = (
            "correct or unset MASTER_ADDR"
            if "MASTER_ADDR" in environ
            else "export MASTER_ADDR with an address that all nodes reach"
        )
        yield Finding("problem", "launch", f"processes would meet at {address}, which is no known host; {advice}")
        return
    yield Finding("ok", "launch", f"processes meet at {address}, port {port}")
