"""Being told to stop by SIGUSR1 or SIGTERM: signals are only noted; a training acts on them between two steps, and this
says how it ended.

Nothing heavy is imported here: the signals are listened to before PyTorch is, which takes its time on a cluster's file
system."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vcgen.terminal import printable
from vcgen.training.slurm import job_name, preempted, requeue

#: SLURM sends SIGUSR1 before the time limit (``--signal=USR1@300``), SIGTERM when it is about to kill.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
#: What is 0, or not there, for the process that speaks for all.
RANKS = ("SLURM_PROCID", "RANK", "NODE_RANK", "LOCAL_RANK")


#: Those that end a process which has nothing to save, or does not get to it.
ENDING = (signal.SIGTERM, signal.SIGINT)
#: Seconds after which one of them, sent again, is no echo of the first but meant.
ECHO = 5.0


class StopSignals:
    """Within ``with``, SIGUSR1 and SIGTERM do nothing but appear in ``received``; afterwards the previous handlers are
    back.

    Until ``training`` is set, as in a validation, there is nothing to save: SIGTERM and Ctrl-C end the process. So they
    do where one of them is sent again. Processes that wait for one another do so inside of PyTorch, where Python's
    handlers are not called: a thread of its own listens.

    started: the processes that this one has started and takes along.
    """

    def __init__(self) -> None:
        self.received: set[signal.Signals] = set()
        self.training = False
        self.started: Callable[[], Sequence[subprocess.Popen[bytes]]] = tuple
        self._first: dict[int, float] = {}

    def __enter__(self) -> "StopSignals":
        # Python lets its main thread alone set handlers; a training started from another one stops as it always did.
        ours = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._note) for number in ours}
        if ours:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._woken = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._listen, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._previous:
            signal.set_wakeup_fd(self._woken)
            os.write(self._writer, bytes(1))  # loader processes may have the pipe open still: its end would not come
            self._thread.join()
            os.close(self._writer)
            os.close(self._reader)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.received.add(signal.Signals(number))

    def _listen(self) -> None:
        while number := os.read(self._reader, 1)[0]:
            if number not in ENDING:
                continue
            first = self._first.setdefault(number, time.monotonic())
            if not self.training or time.monotonic() - first > ECHO:
                self._end(signal.Signals(number))

    def _end(self, number: signal.Signals) -> None:
        leader = all(os.environ.get(name, "0") == "0" for name in RANKS)
        if self.training:
            _say(
                f"{number.name} came again: ended at once, checkpoints are what they were; go on with --ckpt_path last"
            )
            status = 128 + number
        else:
            status = conclude(Stopped(number, None, "", leader, resumes=True))
            if not leader and "SLURM_JOB_ID" not in os.environ:  # whoever started this process must hear of its end
                status = 128 + number
        for started in self.started():
            started.kill()
        for child in multiprocessing.active_children():
            child.kill()
        flush = threading.Thread(target=sys.stdout.flush, daemon=True)  # it never returns where nobody reads the pipe
        flush.start()
        flush.join(ECHO)
        os._exit(status)


@dataclass
class Stopped(Exception):
    """Raised in all processes of a training once it has saved ``checkpoint`` because of ``signal``; "" where it saves
    none.

    step: None before the first. leader: whether this is the process that speaks for all. resumes: whether the same
        command goes on from the checkpoint.
    """

    signal: signal.Signals
    step: int | None
    checkpoint: str
    leader: bool
    resumes: bool


def conclude(stopped: Stopped, environ: Mapping[str, str] = os.environ) -> int:
    """Requeue the SLURM job where that is due, say in one line what happened, and return the process's exit status.

    0 if the job has been requeued; otherwise 128 + the signal's number, as shells have it: a stopped training is not a
    finished one. Only the leader speaks and fails; the others leave with 0, lest SLURM kill the leader for them."""
    if not stopped.leader:
        return 0
    saved = f"stopped by {stopped.signal.name} after step {stopped.step}, {stopped.checkpoint} is complete"
    again = "go on with the same command and --ckpt_path last"
    if stopped.step is None:
        saved, again = f"stopped by {stopped.signal.name} with nothing to save", "start again with the same command"
    elif not stopped.checkpoint:
        _say(
            f"stopped by {stopped.signal.name} after step {stopped.step}; nothing was saved, since"
            " trainer.enable_checkpointing is false"
        )
        return 128 + stopped.signal
    job = "" if stopped.signal == signal.SIGINT else job_name(environ)  # who presses Ctrl-C wants an end
    if job and stopped.signal == signal.SIGTERM and not preempted(job):
        advice = (  # one that an administrator requeued does, a canceled one must not
            f"whether job {job} runs again is up to SLURM"
        )
    elif job and not stopped.resumes:
        advice = f"job {job} is not requeued, since without --ckpt_path last it would start afresh"
    elif job:
        refusal = requeue(job)
        if not refusal:
            then = "start again" if stopped.step is None else "go on from there"
            _say(f"{saved}; job {job} is requeued and will {then}")
            return 0
        advice = (
            f"warning: job {job} could not be requeued ({refusal}); submit it again with the same"
            " trainer.default_root_dir"
        )
    else:
        advice = again
    _say(f"{saved}; {advice}")
    return 128 + stopped.signal


def _say(line: str) -> None:
    print(f"vcgen: {printable(line)}", file=sys.stderr, flush=True)
