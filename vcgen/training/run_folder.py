"""One run per folder: two that write the same checkpoints would each resume from the other's."""

import errno
import fcntl
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vcgen.errors import UserError
from vcgen.io import open_lock

LOCK = "run.lock"
#: What file systems say that know no locks.
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
SECONDS_BETWEEN_TRIES = 1.0


@contextmanager
def alone_in(folder: Path | str, patience: float = 120.0) -> Iterator[bool]:
    """Hold the lock of a run's folder, which is made if need be. Yields False where the file system knows no locks.

    The lock is the system's, on ``run.lock``: it goes with the process, however that ends, and the file stays. It is
    one that forked loader processes do not inherit, since they may outlive a killed trainer by seconds. patience:
    seconds to wait for the lock when the holder belongs to the same SLURM job, requeued while a file server still
    believes that its first process lives. Raises UserError when another process holds the lock."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / LOCK) as file:
        held = take(file, folder, time.monotonic() + patience)
        if held:
            describe_holder(file)
        try:
            yield held
        finally:
            if held:
                file.truncate(0)


def take(file: BinaryIO, folder: Path, deadline: float) -> bool:
    """Lock an open file; False where that is not supported. deadline: see ``patience``, on the monotonic clock."""
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in UNSUPPORTED:
                warnings.warn(
                    f"{folder}: this file system knows no locks ({error.strerror}): see to it that no second run writes"
                    " here",
                    stacklevel=2,
                )
                return False
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        file.seek(0)
        holder = file.read(1000).decode(errors="replace").strip()
        if f"SLURM job {os.environ.get('SLURM_JOB_ID')}," not in holder or time.monotonic() > deadline:
            raise UserError(
                f"{folder}: another run is writing here ({holder or 'it has just started'}); "
                "wait for its end or stop it, or give this one a trainer.default_root_dir of its own"
            )
        time.sleep(SECONDS_BETWEEN_TRIES)


def describe_holder(file: BinaryIO) -> None:
    """Note for others who this is."""
    job = os.environ.get("SLURM_JOB_ID")
    facts = [f"process {os.getpid()} on {socket.gethostname()}", *([f"SLURM job {job}"] if job else [])]
    file.truncate(0)
    file.seek(0)
    file.write((", ".join([*facts, time.strftime("since %Y-%m-%d %H:%M:%S %z")]) + "\n").encode())
    file.flush()
