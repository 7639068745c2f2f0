"""Several ranks as forks of the test's process: they import nothing, so that a training with them takes seconds."""

import os
import socket
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from training import vcgen


def free_port() -> int:
    """A TCP port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_rank(rank: int, port: int, command: str, config: Path, folder: Path, options: dict[str, Any]) -> None:
    """The life of one rank; its exit status is that of the command."""
    # One thread: OpenMP's others stayed in the parent, and whoever waits for them waits for ever. The variable keeps
    # Lightning from more.
    torch.set_num_threads(1)
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    rank_zero_only.rank = rank
    raise SystemExit(vcgen(command, config, folder, **options))


def vcgen_ranks(
    world: int, command: str, config: Path, folder: Path, /, seconds: float = 300, **options: Any
) -> list[int]:
    """Run ``vcgen COMMAND -c CONFIG`` on ``world`` CPU ranks; returns their exit statuses. See :func:`training.vcgen`
    for the options.
    """
    options = {"trainer__accelerator": "cpu", "trainer__devices": world, "trainer__strategy": "ddp", **options}
    port, context = free_port(), get_context("fork")
    ranks = [
        context.Process(target=run_rank, args=(rank, port, command, config, folder, options)) for rank in range(world)
    ]
    for process in ranks:
        process.start()
    try:
        for process in ranks:
            process.join(seconds)
        return [process.exitcode for process in ranks]
    finally:
        for process in ranks:
            process.kill()
