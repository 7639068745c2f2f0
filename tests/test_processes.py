"""Lightning starts the processes: what each trains on, that a stopped training goes on exactly, and what happens when
one dies.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from training import FIT, equal, load

ROOT = Path(__file__).parents[1]


def start(config: Path, folder: Path, log, *options: str) -> subprocess.Popen:
    """``vcgen fit`` on two CPU processes, as on a shell's command line."""
    command = [
        *FIT,
        str(config),
        "--trainer.default_root_dir",
        str(folder / "run"),
        "--trainer.devices",
        "2",
        "--trainer.accelerator",
        "cpu",
        "--trainer.strategy",
        "ddp",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def wait(condition, what: str, seconds: float) -> None:
    """Until ``condition()``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def is_running(process: int) -> bool:
    """Whether a process is there, and not only waits for its parent to take note of its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds the processes in /proc, which this system lacks"
)
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_process_ends_soon_after_one_was_killed_and_says_why(config, tmp_path, victim):
    last, second = tmp_path / "run" / "checkpoints" / "last.ckpt", 0
    with open(tmp_path / "log.txt", "w") as log:
        first = start(config, tmp_path, log, "--trainer.max_steps", "1000000", "--samples.scenes", "0")
    try:
        wait(lambda: last.exists() or first.poll() is not None, "no checkpoint", 400)
        assert first.poll() is None, (tmp_path / "log.txt").read_text()[-3000:]
        children = map(int, Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
        second = next(child for child in children if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes())
        os.kill([first.pid, second][victim], signal.SIGKILL)
        assert first.wait(60) != 0
        wait(lambda: not is_running(second), "the second process hangs", 60)
    finally:
        for process in filter(is_running, (first.pid, second)):
            os.kill(process, signal.SIGKILL)
    said = (tmp_path / "log.txt").read_text()
    assert (
        "vcgen: error: rank 1: the connection to another process broke" in said or "terminated with code -9" in said
    ), said[-3000:]
    assert load(last)["global_step"] % 2 == 0  # that of a validation


@pytest.mark.slow
def test_two_processes_train_with_different_noise_and_end_with_equal_weights(config, tmp_path):
    with open(tmp_path / "log.txt", "w") as log:
        options = (
            "--trainer.max_steps",
            "2",
            "--trainer.callbacks+",
            "training.Ranks",
            "--trainer.callbacks.folder",
            str(tmp_path),
        )
        assert start(config, tmp_path, log, *options).wait(300) == 0, (tmp_path / "log.txt").read_text()[-2000:]
    first, second = (load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert equal(first["weights"], second["weights"])
    assert not torch.equal(first["noise"], second["noise"])
    assert not set(first["scenes"]) & set(second["scenes"])
    assert not set(first["validated"]) & set(second["validated"]) and first["validated"] and second["validated"]
