"""How a training ends before its last step: by the clock, by Ctrl-C, by preemption before its first; signals do not end
its loader processes.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from queue import Queue

import pytest
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, IterableDataset

from training import CONFIG, FIT, Witness, last_checkpoint, load, vcgen
from vcgen.data.datamodules.shards import leave_signals_to_the_trainer
from vcgen.training.stopping import StopSignals

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path):
    """The tiny configuration as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.integration
def test_the_clock_ends_a_run_with_a_checkpoint_of_the_last_step(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Witness, "seen", [])
    # No validation comes in these seconds: it would save a checkpoint, too.
    options = {"trainer__max_steps": -1, "trainer__max_time": "00:00:00:03", "trainer__val_check_interval": 100_000}
    assert vcgen("fit", config, tmp_path / "run", trainer__callbacks__plus="training.Witness", **options) == 0
    checkpoint = last_checkpoint(tmp_path / "run")
    assert checkpoint["global_step"] == len(Witness.seen) > 0


class Ending(Callback):
    """Asks to end after every step; sends this process SIGTERM in a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        trainer.should_stop = True
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_training_that_ends_after_its_least_steps_hears_signals_until_then(config, tmp_path):
    options = dict(trainer__max_steps=6, trainer__min_steps=4, trainer__val_check_interval=100, ckpt_path="last")
    ending = dict(trainer__callbacks__plus="test_stopping.Ending", trainer__callbacks__step=2)
    for step, status in ((2, 128 + signal.SIGTERM), (4, 0)):
        assert vcgen("fit", config, tmp_path / "run", **options, **ending) == status
        assert load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == step


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 240) -> None:
    """Until a file is there; the process must not end before."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"no {path.name} yet"
        time.sleep(0.1)


@pytest.mark.slow
def test_ctrl_c_leaves_the_checkpoint_of_the_last_validation_from_which_the_run_goes_on(config, tmp_path):
    command = [
        *FIT,
        str(config),
        "--trainer.default_root_dir",
        str(tmp_path / "run"),
        "--trainer.max_steps",
        "100000",
        "--data.num_workers",
        "1",
        "--samples.scenes",
        "0",
    ]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "log.txt", "w") as log:
        # A terminal sends the signal to all processes of its foreground group: the loader, too. Under nohup, or in the
        # background of a script, this process ignores it, and a child would inherit that.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            wait_for(last, process)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(120) == 1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]  # nothing half written
    step = load(last)["global_step"]
    assert step > 0 and step % 2 == 0  # validations come every two steps
    assert vcgen("fit", config, tmp_path / "run", ckpt_path="last", trainer__max_steps=step + 1, samples__scenes=0) == 0
    assert load(last)["global_step"] == step + 1


class Processes(IterableDataset):
    """Endlessly the number of the process it is in."""

    def __iter__(self):
        while True:
            yield os.getpid()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_loader_processes_outlive_the_signals(number):
    stream = iter(DataLoader(Processes(), batch_size=None, num_workers=1, worker_init_fn=leave_signals_to_the_trainer))
    worker = next(stream)
    assert worker != os.getpid()
    os.kill(worker, number)
    assert [next(stream) for _ in range(20)] == [worker] * 20  # more than are fetched ahead


@pytest.mark.parametrize(
    ("rank", "preempt", "status", "notes"),
    [(0, "2026-11-21T19:49:11", 0, "requeue 12"), (1, "2026-11-21T19:49:11", 0, ""), (0, "None", 143, "")],
    ids=["preempted", "not the first process", "canceled"],
)
def test_a_job_preempted_before_its_first_step_is_requeued(tmp_path, monkeypatch, capfd, rank, preempt, status, notes):
    """While PyTorch is being imported, or processes wait for one another. A program stands in for scontrol."""
    program = tmp_path / "scontrol"
    shown = f'[ "$1" = show ] && echo "JobState=RUNNING PreemptTime={preempt}"'
    program.write_text(f'#!/bin/sh\n[ "$1" = requeue ] && echo "$@" >> {tmp_path}/notes\n{shown}\nexit 0\n')
    program.chmod(0o755)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in {"JOB_ID": "12", "JOB_NAME": "vcgen", "PROCID": str(rank)}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    statuses: Queue[int] = Queue()
    monkeypatch.setattr(os, "_exit", statuses.put)
    with StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert statuses.get(timeout=60) == status
    assert (tmp_path / "notes").exists() == bool(notes)
    if notes:
        assert (tmp_path / "notes").read_text() == notes + "\n"
        said = "vcgen: stopped by SIGTERM with nothing to save; job 12 is requeued and will start again\n"
        assert capfd.readouterr().err == said
