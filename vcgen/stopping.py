"""Being told to stop by SIGUSR1 or SIGTERM: signals are only noted; a training acts on them between two steps, and this says how it ended.

Nothing heavy is imported here: the signals are listened to before PyTorch is, which takes its time on a cluster's file system.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from vcgen.terminal import printable

#: SLURM sends SIGUSR1 before the time limit (``--signal=USR1@300``), SIGTERM when it is about to kill.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopSignals:
    """Within ``with``, SIGUSR1 and SIGTERM do nothing but appear in ``received``; afterwards the previous handlers are back."""

    def __init__(self):
        self.received: set[signal.Signals] = set()

    def __enter__(self) -> "StopSignals":
        # Python lets its main thread alone set handlers; a training started from another one stops as it always did.
        ours = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._note) for number in ours}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.received.add(signal.Signals(number))


@dataclass
class Stopped(Exception):
    """Raised in all processes of a training once it has saved ``checkpoint`` because of ``signal``; "" where it saves none.

    leader: whether this is the process that speaks for all. resumes: whether the same command goes on from the checkpoint.
    """

    signal: signal.Signals
    step: int
    checkpoint: str
    leader: bool
    resumes: bool


def conclude(stopped: Stopped, environ: Mapping[str, str] = os.environ) -> int:
    """Requeue the SLURM job where that is due, say in one line what happened, and return the process's exit status.

    0 if the job has been requeued; otherwise 128 + the signal's number, as shells have it: a stopped training is not a finished one.
    Only the leader speaks and fails; the others leave with 0, lest SLURM kill the leader for them.
    """
    if not stopped.leader:
        return 0
    saved = f"stopped by {stopped.signal.name} after step {stopped.step}, {stopped.checkpoint} is complete"
    if not stopped.checkpoint:
        _say(f"stopped by {stopped.signal.name} after step {stopped.step}; nothing was saved, since trainer.enable_checkpointing is false")
        return 128 + stopped.signal
    job = job_name(environ)
    if job and stopped.signal == signal.SIGTERM and not preempted(job):
        advice = f"whether job {job} runs again is up to SLURM"  # one that an administrator requeued does, a cancelled one must not
    elif job and not stopped.resumes:
        advice = f"job {job} is not requeued, since without --ckpt_path last it would start afresh"
    elif job:
        refusal = requeue(job)
        if not refusal:
            _say(f"{saved}; job {job} is requeued and will go on from there")
            return 0
        advice = f"warning: job {job} could not be requeued ({refusal}); submit it again with the same trainer.default_root_dir"
    else:
        advice = "go on with the same command and --ckpt_path last"
    _say(f"{saved}; {advice}")
    return 128 + stopped.signal


def job_name(environ: Mapping[str, str]) -> str:
    """What ``scontrol`` calls this batch job, or "" outside SLURM and in an interactive shell."""
    if "SLURM_JOB_ID" not in environ or environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return ""
    if "SLURM_ARRAY_TASK_ID" in environ:
        # The number of one task's job can be that of the whole array.
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def preempted(job: str) -> bool:
    """Whether SIGTERM began the grace time of a preemption. A job that ends within it has failed, for SLURM, and is not requeued after it.

    Jobs that SLURM requeues, cancels or stops at their time limit are no longer RUNNING when they get SIGTERM.
    """
    output, refusal = scontrol("show", "job", job)
    known = dict(re.findall(r"(\S+?)=(\S*)", output))
    return not refusal and known.get("JobState") == "RUNNING" and known.get("PreemptTime", "None") not in ("None", "N/A", "Unknown")


def requeue(job: str) -> str:
    """``scontrol requeue``; returns why it failed, "" if it did not. From here on SLURM may kill this job at any moment."""
    return scontrol("requeue", job)[1]


def scontrol(*words: str) -> tuple[str, str]:
    """(its output, why it failed or "")."""
    try:
        done = subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", " ".join(str(error).split())
    return done.stdout, "" if done.returncode == 0 else " ".join(done.stderr.split()) or f"scontrol's status is {done.returncode}"


def _say(line: str) -> None:
    print(f"vcgen: {printable(line)}", file=sys.stderr, flush=True)
