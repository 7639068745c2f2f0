"""Being told to stop: one checkpoint at the next boundary, one requeue, and an exit status that says so."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ranks import vcgen_ranks
from training import assert_same_end, equal, last_checkpoint, load, vcgen
from vcgen.training.stopping import SIGNALS, Stopped, StopSignals, conclude

ROOT = Path(__file__).parents[1]


@pytest.fixture
def outside_slurm(monkeypatch):
    """As on a computer without SLURM, wherever the tests run."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


class Kill(pl.Callback):
    """Sends the process of a rank a signal: in set-up, in validation, or after ``step`` batches of the whole
    training.
    """

    def __init__(self, number: int, moment: str = "batch", step: int = 3, rank: int = 0):
        self.number, self.moment, self.step, self.rank = number, moment, step, rank

    def _at(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""
            os.kill(os.getpid(), self.number)

    def setup(self, trainer, pl_module, stage) -> None:
        self._at("setup")

    def on_sanity_check_start(self, trainer, module) -> None:
        handlers = [signal.getsignal(number) for number in SIGNALS]
        assert all(getattr(handler, "__self__", None).__class__ is StopSignals for handler in handlers)
        self._at("sanity check")

    def on_validation_start(self, trainer, module) -> None:
        if not trainer.sanity_checking:
            self._at("validation")

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        taken = self.step * len(batch.keys) * trainer.world_size
        if batch.cursor.scenes == taken and trainer.global_rank == self.rank:
            self._at("batch")


def stop(config, folder, number, moment="batch", step=3, **options) -> int:
    """A training of six steps that gets a signal; returns its exit status."""
    kill = {"trainer__callbacks__plus": "test_requeue.Kill", "trainer__callbacks__number": int(number)}
    kill |= {"trainer__callbacks__moment": moment, "trainer__callbacks__step": step}
    return vcgen("fit", config, folder, **{"trainer__max_steps": 6, **options}, **kill)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("number", "moment", "step"),
    [
        (signal.SIGUSR1, "setup", 1),
        (signal.SIGUSR1, "sanity check", 1),
        (signal.SIGTERM, "batch", 3),
        (signal.SIGTERM, "validation", 3),
    ],
)
def test_a_signal_ends_the_training_with_the_checkpoint_of_that_step(
    config, tmp_path, capfd, outside_slurm, number, moment, step
):
    before = [signal.getsignal(each) for each in SIGNALS]
    assert stop(config, tmp_path / "run", number, moment, trainer__num_sanity_val_steps=1) == 128 + number
    assert last_checkpoint(tmp_path / "run")["global_step"] == step
    assert not [name for name in os.listdir(tmp_path / "run" / "checkpoints") if name not in ("last.ckpt", "best.ckpt")]
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("vcgen: ")]
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    what = f"vcgen: stopped by {number.name} after step {step}, {path} is complete"
    assert said == [f"{what}; go on with the same command and --ckpt_path last"]
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_handlers_are_restored_after_an_error(config, tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(RuntimeError, match="a fault in validation"):
        vcgen("fit", config, tmp_path / "run", trainer__callbacks__plus="training.Fault")
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"data__num_workers": 2}, id="workers", marks=pytest.mark.slow),
        pytest.param({"trainer__accumulate_grad_batches": 2}, id="accumulating", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_training_goes_on_to_the_very_end_of_one_that_never_stopped(config, tmp_path, outside_slurm, options):
    options = {"trainer__max_steps": 4, **options}
    assert vcgen("fit", config, tmp_path / "whole", **options) == 0
    assert stop(config, tmp_path / "parts", signal.SIGUSR1, **options) == 128 + signal.SIGUSR1
    accumulated = options.get("trainer__accumulate_grad_batches", 1)
    found = last_checkpoint(tmp_path / "parts")
    batches = found["ShardData"]["scenes"] / 2
    assert batches == found["global_step"] * accumulated == (4 if accumulated == 2 else 3)  # whole steps only
    assert vcgen("fit", config, tmp_path / "parts", **options, ckpt_path="last") == 0
    assert assert_same_end(tmp_path / "whole", tmp_path / "parts")["global_step"] == 4


def scores(folder) -> list[tuple[int, float]]:
    """The steps and values of ``val/psnr`` in a run's TensorBoard files, in the order in which they were written."""
    files = sorted(folder.glob("events.*"))
    return [
        (event.step, event.value)
        for file in files
        for event in EventAccumulator(str(file)).Reload().Scalars("val/psnr")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_a_validation_that_was_due_at_the_stop_is_made_up_for(config, tmp_path, outside_slurm, world):
    """Of the validations after steps 2, 4 and 6 the stop comes before the second."""
    options = dict(trainer__max_steps=6, checkpoint__keep_best=3, trainer__val_check_interval=2)
    kill = dict(
        trainer__callbacks__plus="test_requeue.Kill",
        trainer__callbacks__number=int(signal.SIGTERM),
        trainer__callbacks__step=4,
    )
    stopped = 128 + signal.SIGTERM
    assert vcgen_ranks(world, "fit", config, tmp_path / "whole", **options) == [0] * world
    assert vcgen_ranks(world, "fit", config, tmp_path / "parts", **options, **kill) == [stopped] + [0] * (world - 1)
    found = last_checkpoint(tmp_path / "parts")
    assert found["global_step"] == 4 and set(found["callbacks"]["Checkpoints"]["best"]) == {2}
    assert vcgen_ranks(world, "fit", config, tmp_path / "parts", **options, ckpt_path="last") == [0] * world
    assert scores(tmp_path / "parts") == scores(tmp_path / "whole") and len(scores(tmp_path / "whole")) == 3
    names = sorted(path.name for path in (tmp_path / "whole" / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "step-2.ckpt", "step-4.ckpt", "step-6.ckpt"]
    assert sorted(path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()) == names
    for name in names:
        a, b = (load(tmp_path / run / "checkpoints" / name) for run in ("whole", "parts"))
        for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "ShardData", "callbacks"):
            assert equal(a[part], b[part]), (name, part)


@pytest.mark.slow
def test_a_warning_after_the_end_finds_the_training_finished(config, tmp_path, outside_slurm):
    words = ["fit", "-c", str(config), "--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.max_steps", "1"]
    program = f"""
import atexit, os, sys
from vcgen.cli import main as cli
sys.argv[1:] = {words!r}
atexit.register(os.kill, os.getpid(), {signal.SIGUSR1:d})
sys.exit(cli.main())"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert last_checkpoint(tmp_path / "run")["global_step"] == 1


def test_a_signal_during_the_last_step_finds_the_training_finished(config, tmp_path, outside_slurm):
    assert stop(config, tmp_path / "run", signal.SIGTERM, step=6) == 0
    assert last_checkpoint(tmp_path / "run")["global_step"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_ends_both_at_the_same_step(config, tmp_path, rank, outside_slurm):
    options = (
        "--trainer.max_steps 6 --trainer.devices 2 --trainer.strategy ddp --trainer.callbacks+ test_requeue.Kill"
        f" --trainer.callbacks.number {int(signal.SIGTERM)} --trainer.callbacks.rank {rank}"
    ).split()
    given = ["-c", str(config), "--trainer.default_root_dir", str(tmp_path / "run"), *options]
    command = [sys.executable, "-m", "vcgen", "fit", *given]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr[-2000:]
    assert last_checkpoint(tmp_path / "run")["global_step"] == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("vcgen: ")]
    assert line.startswith("vcgen: stopped by SIGTERM after step 3")


# --- in SLURM ---


BATCH = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "vcgen"}


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A stand-in that notes what it requeues: (the file of notes, a function that changes what else it does)."""
    notes, program = tmp_path / "notes", tmp_path / "bin" / "scontrol"
    program.parent.mkdir()

    def write(rest: str) -> None:
        program.write_text(f'#!/bin/sh\n[ "$1" = requeue ] && echo "$@" >> {notes}\n{rest}\nexit 0\n')
        program.chmod(0o755)

    write("")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return notes, write


def ended(number=signal.SIGUSR1, leader=True, resumes=True) -> Stopped:
    return Stopped(number, 7, "run/checkpoints/last.ckpt", leader, resumes)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        (BATCH, "12"),
        # "10" or "12" could be the whole array
        ({**BATCH, "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}, "10_3"),
    ],
)
def test_a_stopped_job_is_requeued_once_by_one_process(scontrol, capfd, environ, name):
    assert conclude(ended(leader=False), environ) == 0 and not scontrol[0].exists()
    assert conclude(ended(), environ) == 0
    assert scontrol[0].read_text() == f"requeue {name}\n"
    assert (
        capfd.readouterr().err
        == f"vcgen: stopped by SIGUSR1 after step 7, run/checkpoints/last.ckpt is complete; job {name} is requeued and"
        " will go on from there\n"
    )


def test_a_refusal_of_scontrol_is_one_line_and_a_failed_job(scontrol, capfd):
    scontrol[1]('echo "Requested operation is presently disabled\nfor job 12" >&2; exit 1')
    assert conclude(ended(), BATCH) == 128 + signal.SIGUSR1
    said = capfd.readouterr().err
    assert (
        said.count("\n") == 1
        and "job 12 could not be requeued (Requested operation is presently disabled for job 12)" in said
    )


def test_a_missing_scontrol_is_one_line_and_a_failed_job(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert conclude(ended(), BATCH) == 128 + signal.SIGUSR1
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "could not be requeued" in said and "scontrol" in said


@pytest.mark.parametrize(
    ("state", "time", "requeued"),
    [
        ("RUNNING", "2026-11-21T19:49:11", True),  # the grace time of a preemption has begun
        ("RUNNING", "None", False),  # somebody's own SIGTERM
        ("COMPLETING", "None", False),  # scontrol requeue, scancel or the time limit
        ("CANCELLED", "2026-11-21T19:49:11", False),
    ],
)
def test_a_job_in_the_grace_time_of_a_preemption_is_requeued(scontrol, state, time, requeued):
    shown = f"   JobState={state} Reason=None\n   Requeue=1 PreemptEligibleTime=2026-11-21T19:00:00 PreemptTime={time}"
    scontrol[1](f'[ "$1" = show ] && echo "{shown}"')
    assert conclude(ended(signal.SIGTERM), BATCH) == (0 if requeued else 128 + signal.SIGTERM)
    assert scontrol[0].exists() == requeued


@pytest.mark.parametrize(
    ("stopped", "environ"),
    [
        (ended(signal.SIGTERM), BATCH),  # requeued: SLURM does it; canceled: nobody may
        (Stopped(signal.SIGINT, None, "", True, True), BATCH),  # somebody's Ctrl-C, before the first step
        (ended(resumes=False), BATCH),
        (ended(), {**BATCH, "SLURM_JOB_NAME": "interactive"}),
        (ended(), {}),
    ],
    ids=["SIGTERM", "SIGINT", "would start afresh", "interactive", "no SLURM"],
)
def test_nothing_else_is_requeued(scontrol, capfd, stopped, environ):
    assert conclude(stopped, environ) == 128 + stopped.signal
    assert not scontrol[0].exists() and capfd.readouterr().err.count("\n") == 1


def test_the_checkpoint_is_complete_before_the_job_is_requeued(config, tmp_path, monkeypatch, scontrol, outside_slurm):
    notes = scontrol[0]
    (notes.parent / "bin" / "scontrol").write_text(
        f'#!/bin/sh\necho "$@" >> {notes}; cp -r {tmp_path}/run/checkpoints {tmp_path}/then\n'
    )
    for name, value in BATCH.items():
        monkeypatch.setenv(name, value)
    assert stop(config, tmp_path / "run", signal.SIGUSR1, ckpt_path="last") == 0
    assert notes.read_text() == "requeue 12\n"
    assert load(tmp_path / "then" / "last.ckpt")["global_step"] == 3
    assert set(os.listdir(tmp_path / "then")) == {"last.ckpt", "best.ckpt"}
