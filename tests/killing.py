"""Trainings that say what they are doing, in processes of their own, so that a test can kill them there.

Each is forked by multiprocessing's fork server, which imports PyTorch and vcgen once: a start then takes a second, not
ten. The server itself computes nothing, so that no thread of PyTorch is lost in the fork."""

import os
import signal
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

#: What a training can be at: reading configuration, data and checkpoint; training; validating; writing a checkpoint.
PHASES = ("starting", "stepping", "validating", "writing")
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["vcgen.training.fit"])
#: Seconds that a training waits at the announcement which it is to be killed at, so that the killer comes in time.
PAUSE = 0.02
#: Seconds after the announcement within which it is killed: at it, or somewhere in what it announced.
WITHIN = {"starting": 2.0, "stepping": 0.1, "validating": 0.03, "writing": 0.04}


class End(NamedTuple):
    """How a training ended: exit status (negative: by a signal), what it was at, the step of the last ``last.ckpt`` it
    had written.
    """

    status: int
    phase: str
    saved: int


class Speaker:
    """Announces phases; waits at the announcement number ``count`` of ``target``, if that comes."""

    def __init__(self, connection: Connection, target: str, count: int):
        self.connection, self.target, self.count = connection, target, count

    def announce(self, phase: str) -> None:
        """Say what begins now."""
        self.count -= phase == self.target
        due = phase == self.target and self.count == 0
        self.connection.send((phase, due))
        if due:
            time.sleep(PAUSE)


class Phases(pl.Callback):
    """Announces steps and validations; the process's speaker is set before."""

    speaker: Speaker

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.speaker.announce("stepping")

    def on_validation_start(self, trainer, module) -> None:
        self.speaker.announce("validating")

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.speaker.announce("validating")


def announce_writing(speaker: Speaker) -> None:
    """Announces a checkpoint's stages: before it is written, flushed, renamed, and its folder flushed. For the life of
    the process.
    """
    from vcgen.checkpoints.files import CheckpointFiles

    save, flush, rename = CheckpointFiles.save_checkpoint, os.fsync, os.replace

    def announced_save(self, checkpoint, path, storage_options=None):
        speaker.announce("writing")
        save(self, checkpoint, path, storage_options)
        if path.name == "last.ckpt":
            speaker.connection.send(("saved", checkpoint["global_step"]))
        speaker.announce("written")

    def announced_flush(descriptor):
        speaker.announce("writing")
        flush(descriptor)

    def announced_rename(source, target):
        if str(target).endswith(".ckpt"):
            speaker.announce("writing")
        rename(source, target)

    CheckpointFiles.save_checkpoint, os.fsync, os.replace = announced_save, announced_flush, announced_rename


def live(connection: Connection, words: list[str], log: Path, target: str, count: int) -> None:
    """The life of a training; its loader processes are in its process group."""
    os.setsid()
    with open(log, "a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(1)
    Phases.speaker = Speaker(connection, target, count)
    Phases.speaker.announce("starting")
    announce_writing(Phases.speaker)
    from vcgen.cli import main as cli

    raise SystemExit(cli.main(words))


def train(
    config: Path, folder: Path, log: Path, target: str = "never", count: int = 1, fraction: float = 0.0, **options: Any
) -> End:
    """``vcgen fit --ckpt_path last``; killed, loaders and all, when it announces ``target`` for the ``count``-th time.

    fraction: how far into what it announced, in [0, 1).
    """
    words = ["fit", "-c", str(config), "--trainer.default_root_dir", str(folder), "--ckpt_path", "last"]
    words += ["--trainer.callbacks+", "killing.Phases"]
    words += [word for name, value in options.items() for word in ("--" + name.replace("__", "."), str(value))]
    ours, theirs = SERVER.Pipe()
    process = SERVER.Process(target=live, args=(theirs, words, log, target, count))
    process.start()
    theirs.close()
    phase, saved = "starting", 0
    try:
        while True:
            word, value = ours.recv()
            if word == "saved":
                saved = value
                continue
            phase = word
            if value:
                time.sleep(fraction * WITHIN[target])
                os.killpg(process.pid, signal.SIGKILL)
    except EOFError:  # nobody is left who could speak: loaders, too
        process.join()
        return End(process.exitcode, phase, saved)
