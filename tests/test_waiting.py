"""Processes that wait for one another: a signal ends them, and the time-out says who is missing."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
import torch

from ranks import free_port, vcgen_ranks
from vcgen.training import fit, stopping
from vcgen.training.refusals import rendezvous_refusal
from vcgen.training.stopping import Stopped, StopSignals, conclude


def wait_in_pytorch(ready, training: bool, port: int, child) -> None:
    """The life of a process that nobody joins: it waits where Python's own handlers are not called.

    child: None, or what takes the number of a process that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" lets what it starts ignore Ctrl-C
    with StopSignals() as signals:
        signals.training = training
        if child is not None:
            started = subprocess.Popen(["sleep", "100"])
            signals.started = lambda: [started]
            child.value = started.pid
        ready.set()
        torch.distributed.TCPStore("127.0.0.1", port, 2, True, timeout=timedelta(seconds=100))


@pytest.fixture
def waiting():
    """Starts such a process; it is there when it waits."""
    processes, context = [], get_context("fork")

    def start(training: bool, child=None):
        ready = context.Event()
        processes.append(context.Process(target=wait_in_pytorch, args=(ready, training, free_port(), child)))
        processes[-1].start()
        assert ready.wait(30)
        time.sleep(0.5)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_training_begins_a_signal_ends_a_process_whatever_it_waits_for(waiting, number, capfd):
    process = waiting(training=False)
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == 128 + number
    assert f"stopped by {number.name} with nothing to save; start again with the same command" in capfd.readouterr().err


def test_a_warning_of_the_time_limit_is_only_noted(waiting):
    process = waiting(training=False)
    os.kill(process.pid, signal.SIGUSR1)
    process.join(1)
    assert process.exitcode is None


def test_in_training_the_first_signal_waits_for_the_step_and_the_second_does_not(waiting, monkeypatch, capfd):
    monkeypatch.setattr(stopping, "ECHO", 0.5)
    process = waiting(training=True)
    for _ in range(2):  # an echo of the first: SLURM tells all processes of a step, and so may srun
        os.kill(process.pid, signal.SIGTERM)
    process.join(1)
    assert process.exitcode is None
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert (
        process.exitcode == 143
        and "SIGTERM came again: ended at once, checkpoints are what they were" in capfd.readouterr().err
    )


def test_the_processes_that_it_has_started_end_with_it(waiting):
    child = get_context("fork").Value("i", 0)
    process = waiting(False, child)
    ended = os.pidfd_open(child.value)  # it can be read from once the process has ended
    assert not select.select([ended], [], [], 0)[0]
    os.kill(process.pid, signal.SIGTERM)
    assert select.select([ended], [], [], 20)[0]
    os.close(ended)


def test_a_stopped_process_ends_although_nobody_reads_what_it_prints(monkeypatch):
    flushing, ends = threading.Event(), []
    monkeypatch.setattr(stopping, "ECHO", 0.1)
    monkeypatch.setattr(os, "_exit", ends.append)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=lambda: flushing.wait(20)))
    StopSignals()._end(signal.SIGTERM)
    assert ends == [128 + signal.SIGTERM] and not flushing.is_set()
    flushing.set()


def test_signals_are_what_they_were_when_a_training_is_over():
    before = [signal.getsignal(number) for number in stopping.SIGNALS], signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before[1])
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.05)
    assert signals.received == {signal.SIGUSR1}
    assert ([signal.getsignal(number) for number in stopping.SIGNALS], signal.set_wakeup_fd(-1)) == before


def test_one_process_speaks_for_all_that_are_stopped_before_training(capfd):
    stopped = Stopped(signal.SIGTERM, None, "", leader=False, resumes=True)
    assert conclude(stopped, {}) == 0 and capfd.readouterr().err == ""


@pytest.mark.integration
def test_a_node_that_does_not_come_is_named_when_the_time_is_up(tmp_path, monkeypatch, capfd):
    from training import CONFIG

    (tmp_path / "tiny.yaml").write_text(CONFIG)
    monkeypatch.setattr(fit, "PATIENCE", timedelta(seconds=1))
    assert vcgen_ranks(1, "fit", tmp_path / "tiny.yaml", tmp_path / "run", trainer__num_nodes=2) == [2]
    lines = [line for line in capfd.readouterr().err.splitlines() if "error" in line or "Traceback" in line]
    assert len(lines) == 1 and "only 1 of 2 processes came to MASTER_ADDR 127.0.0.1, port " in lines[0]
    assert "this is NODE_RANK 0 of 2 nodes, and waits for 1; start the same command on every node" in lines[0]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "Timed out after 601 seconds waiting for clients. 3/8 clients joined.",
            "only 3 of 8 processes came to MASTER_ADDR n0, port 7",
        ),
        (
            "The client socket has timed out after 600000ms while trying to connect to (n0, 7).",
            "this is NODE_RANK 1 of 4 nodes, and waits for 0, 2, 3",
        ),
        (
            "The server socket has failed to listen on any local network address. port: 7, EADDRINUSE",
            "port 7 of n0 (MASTER_PORT) is in use",
        ),
    ],
)
def test_time_outs_name_the_nodes_and_the_variables(message, words):
    assert words in rendezvous_refusal(message, 4, {"MASTER_ADDR": "n0", "MASTER_PORT": "7", "NODE_RANK": "1"})
    assert rendezvous_refusal("shape mismatch", 4, {}) is None
