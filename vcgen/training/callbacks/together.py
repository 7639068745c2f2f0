"""When one of several processes fails, all end at once, and the terminal says why: others would wait for it, or
complain about that.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

import lightning.pytorch as pl

from vcgen.errors import UserError
from vcgen.redaction import hide
from vcgen.terminal import complain
from vcgen.training.lightning_private import dismiss_watchman, started_by
from vcgen.training.stopping import Stopped

#: Errors of a process whose partner has gone: consequences, never the cause.
BROKEN = re.compile(r"Connection (closed|reset) by peer|NCCL|ncclRemoteError|gloo", re.IGNORECASE)
#: Seconds that a process other than the first gives that one to say the same: one line is enough where all refuse
#: alike.
GRACE = 3.0
SECONDS_BETWEEN_LOOKS = 0.5


class Together(pl.Callback):
    """Ends a process that fails, and where Lightning started the others, those too.

    Python's own way out of a failed process can wait for the others for ever: it is not taken. A single process is left
    alone.

    explain: the line for an exception that users can mend, or None where they need the traceback.
    """

    def __init__(self, explain: Callable[[BaseException], str | None]):
        self.explain = explain
        self.over = threading.Event()

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """The process that started the others watches them, in place of Lightning's watchman, who kills that one, too,
        status and all.
        """
        if started := started_by(trainer):
            dismiss_watchman()
            threading.Thread(target=self._watch, args=(started,), daemon=True).start()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Say what happened; end."""
        if trainer.world_size == 1:
            return
        if isinstance(exception, (Stopped, KeyboardInterrupt, SystemExit)):  # all processes end by themselves
            self.over.set()
            return
        rank, line = trainer.global_rank, self.explain(exception)
        broken = not isinstance(exception, UserError) and BROKEN.search(str(exception))
        if rank > 0 or broken:
            time.sleep(GRACE)
        if broken:
            line = (
                "the connection to another process broke: its own message says why"
                f" ({' '.join(str(exception).split())[:120]})"
            )
        if line is None:
            print(hide("".join(traceback.format_exception(exception))), file=sys.stderr, end="")
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.finalize("failed")
        end(started_by(trainer), 1 if line is None else 2, f"rank {rank}: {line}" if rank and line else line)

    def _watch(self, started: Sequence[subprocess.Popen[bytes]]) -> None:
        while not self.over.wait(SECONDS_BETWEEN_LOOKS):
            for number, process in enumerate(started, 1):
                status = process.poll()
                if status and status < 0:
                    name = signal.Signals(-status).name
                    found = f"process {number} of {len(started) + 1} terminated with code {status} ({name}"
                    end(
                        started, 128 - status, f"{found}: by the system if memory ran out); go on with --ckpt_path last"
                    )
                if status:
                    end(started, status)


def end(started: Sequence[subprocess.Popen[bytes]], status: int, line: str | None = None) -> None:
    """Leave at once with ``status`` and ``line``, and take the processes along that this one has started."""
    if line:
        complain(line)
    sys.stdout.flush()
    sys.stderr.flush()
    for process in started:
        process.kill()
    os._exit(status)
