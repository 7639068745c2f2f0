"""Two runs in one folder: the second is refused before it writes, and a killed run is in nobody's way."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training import refusal, vcgen
from vcgen.errors import UserError
from vcgen.io import beside
from vcgen.training import run_folder
from vcgen.training.run_folder import LOCK, alone_in

ROOT = Path(__file__).parents[1]
#: Takes the lock of the folder given, forks a process that outlives it (as loaders do), says so, and waits.
HOLDER = """
import os, sys, time
from vcgen.training.run_folder import alone_in
with alone_in(sys.argv[1]):
    if os.fork():
        print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``tmp_path``, as SLURM job 77; a child of it lives on when it is
    killed.
    """
    environment = {**os.environ, "SLURM_JOB_ID": "77"}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), "100"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_the_second_run_is_refused_with_the_name_of_the_first_and_writes_nothing(capsys, config, tmp_path, holder):
    before = sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir())
    line = refusal(capsys, vcgen("fit", config, tmp_path))
    assert (
        f"{tmp_path}: another run is writing here (process {holder.pid} on " in line
        and "SLURM job 77, since 20" in line
    )
    assert "a trainer.default_root_dir of its own" in line
    assert sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir()) == before


def test_a_killed_run_is_not_in_the_way_even_while_its_loaders_live(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert f"process {holder.pid} on " in (tmp_path / LOCK).read_text()
    with alone_in(tmp_path) as alone:
        assert alone and f"process {os.getpid()} on " in (tmp_path / LOCK).read_text()
    assert (tmp_path / LOCK).read_text() == ""
    os.killpg(holder.pid, 0)  # its child is still there


def test_a_requeued_job_waits_for_the_end_of_its_first_process(tmp_path, holder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(run_folder, "SECONDS_BETWEEN_TRIES", 0.05)
    with pytest.raises(UserError, match="another run is writing"), alone_in(tmp_path, patience=0.2):
        pass
    waits = []

    def wait(seconds):
        waits.append(seconds)
        holder.kill()
        holder.wait()

    monkeypatch.setattr(time, "sleep", wait)
    with alone_in(tmp_path, patience=60) as alone:
        assert alone and len(waits) == 1


def test_where_locks_are_unknown_a_warning_is_given_and_training_goes_on(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with (
        pytest.warns(UserWarning, match="knows no locks .No locks available.: see to it that no second run"),
        alone_in(tmp_path) as alone,
    ):
        assert not alone


def test_validation_needs_no_lock(config, finished, tmp_path, holder):
    path = finished / "checkpoints" / "best.ckpt"
    assert vcgen("validate", config, tmp_path, ckpt_path=path) == 0


def test_a_run_removes_what_a_killed_one_was_writing(config, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    left = [beside(folder / "last.ckpt"), beside(tmp_path / "config.yaml"), beside(tmp_path / "run.json")]
    for path in left:
        path.write_bytes(b"half")
    assert vcgen("fit", config, tmp_path, trainer__max_steps=1, data__val="null") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt"] and not any(path.exists() for path in left)
    assert (tmp_path / LOCK).read_text() == ""
