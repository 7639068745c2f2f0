"""The measurements of scaling.py, one function each: ranks, what exact resume costs, checkpoints, memory, the index."""

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn
from torch.utils.data import DataLoader

from common import ROOT
from timing import load_config, load_system, measure, precision_of
from vcgen.checkpoints.files import CheckpointFiles
from vcgen.data.datamodules.sampler import batch_starts, epoch_order, scene_generator
from vcgen.data.datamodules.shards import ShardData
from vcgen.data.datamodules.stream import SceneStream
from vcgen.data.shards.files import ShardEntry, ShardIndex, read_index, read_sample, write_index
from vcgen.data.shards.table import SceneTable
from vcgen.training.callbacks.cursor import Cursor
from vcgen.types import Example, Position

CONFIG = load_config("cars64")
DATA = CONFIG["data"]["init_args"]
TRAIN = ROOT / DATA["train"]
BATCH, TARGETS = DATA["batch_size"], DATA["targets"]


class _Losses(nn.Module):
    """A system's sum of losses as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, system: nn.Module):
        super().__init__()
        self.system = system

    def forward(self, example: Example, noise: torch.Generator) -> torch.Tensor:
        return torch.stack(list(self.system.losses(example, noise).values())).sum()


def ddp_steps(world: int, steps: int) -> dict[str, float]:
    """Median seconds of a training step of cars64 on ``world`` ranks over gloo, with and without the all-reduce of
    gradients (in turn), its processor seconds, and the memory that is each rank's own, in bytes, before and after."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (world, steps, folder), nprocs=world)
        ranks = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world)]
    return {name: statistics.mean(rank[name] for rank in ranks) for name in ranks[0]}


def _rank(rank: int, world: int, steps: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    system = load_system(CONFIG)
    model = nn.parallel.DistributedDataParallel(_Losses(system))
    optimizer = system.optimizer_options.build(system.parameters())
    stream = iter(SceneStream(read_index(TRAIN), BATCH, TARGETS, 0, Position(), rank, world))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    processor: list[float] = []
    for step in range(steps + 1):
        for reduce in (True, False):
            example, noise = next(stream), torch.Generator().manual_seed(step)
            start, used = time.perf_counter(), time.process_time()
            optimizer.zero_grad()
            with precision_of(CONFIG), contextlib.nullcontext() if reduce else model.no_sync():
                model(example, noise).backward()
            optimizer.step()
            seconds[reduce].append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
        if step == 0:
            before = own_memory()
    found = {"seconds": statistics.median(seconds[True][1:]), "alone": statistics.median(seconds[False][1:])}
    found["processor"] = statistics.median(processor[2:])
    found |= {
        "memory_first": before,
        "memory_last": own_memory(),
        "parameters": sum(p.numel() for p in system.parameters()),
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


# --- exact resume and checkpoints ---


def resume_parts() -> dict[str, float]:
    """Processor seconds per step of all that exists for exact resume alone. Nothing is subtracted for what a plain
    loader would do instead.
    """
    system, data = load_system(CONFIG), ShardData(str(TRAIN))
    starts = batch_starts(1 << 20, BATCH)
    cursor, steps = Cursor(), itertools.count()
    example = SimpleNamespace(cursor=Position(0, 8))

    def commit() -> None:
        trainer = SimpleNamespace(global_step=next(steps), datamodule=data, overfit_batches=0)
        cursor.on_train_batch_end(trainer, system, None, example, 0)

    calls: dict[str, Callable[[], object]] = {
        "position of the batch": lambda: next(starts),
        "order of the epoch": lambda: [int(epoch_order(1 << 20, 0, 0)[place]) for place in range(BATCH)],
        "draws of its scenes": lambda: [scene_generator(0, 0, place) for place in range(BATCH)],
        "noise generator": system.step_generator,
        "callback": commit,
    }
    parts = {name: timing.processor for name, timing in measure(calls, rounds=5, least_seconds=0.05).items()}
    shuffle = measure({"shuffle": lambda: epoch_order.__wrapped__(1 << 20, 0, 0)}, rounds=3)["shuffle"].processor
    return {**parts, "shuffle of 2^20 scenes, once an epoch": shuffle / ((1 << 20) // BATCH)}


def checkpoint_cost(rounds: int) -> dict[str, float]:
    """Bytes and median seconds of a checkpoint of cars64 with optimizer and averages, and seconds of loading it."""
    system = load_system(CONFIG)
    optimizer = system.optimizer_options.build(system.parameters())
    for parameter in system.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weights = system.state_dict()
    checkpoint = {"state_dict": weights, "optimizer_states": [optimizer.state_dict()], "vcgen": {}}
    checkpoint["callbacks"] = {"EMA": {"weights": {name: value.clone() for name, value in weights.items()}}}
    files, seconds, loading = CheckpointFiles(system, {}), [], []
    (ROOT / "outputs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "outputs") as folder:  # not in memory, as temporary folders may be
        path = Path(folder) / "last.ckpt"
        for _ in range(rounds):
            start = time.perf_counter()
            files.save_checkpoint(checkpoint, path)
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            files.load_checkpoint(path)
            loading.append(time.perf_counter() - start)
        size = path.stat().st_size
    return {
        "bytes": size,
        "seconds": statistics.median(seconds),
        "load_seconds": statistics.median(loading),
        "parameters": sum(p.numel() for p in system.parameters()),
    }


# --- memory, index, start ---


def own_memory(process: int | str = "self") -> int:
    """Bytes of memory that a process shares with no other (USS); copies of its parent's pages count from when they are
    written to.
    """
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


class ListIndex:
    """A table of contents as it is usually held, a list of Python objects, to compare with."""

    def __init__(self, index: ShardIndex):
        self.index, self.entries = index, list(index.samples)
        self.folder, self.samples, self.scenes = index.folder, index.samples, index.scenes

    def read(self, number: int):
        assert self.entries[number][1].views
        return self.index.read(number)


class OneScene(ShardIndex):
    """Of its scenes only the first is in the file; it stands for all."""

    def read(self, number: int):
        assert self.samples[number][1].views
        return read_sample(self.folder, self.shards[0].name, 0, self.samples[0][1].size)


def synthetic_index(scenes: int, real: ShardIndex) -> OneScene:
    """As many scenes as long as the first real one, which is read for each."""
    first = real.samples[0][1]
    rows = np.zeros(scenes, [("key", "S32"), ("offset", "i8"), ("size", "i8"), ("views", "i4"), ("group", "S32")])
    rows["key"] = rows["group"] = np.arange(scenes).astype("S32")
    rows["offset"], rows["size"], rows["views"] = np.arange(scenes) * first.size, first.size, first.views
    shard = ShardEntry(real.shards[0].name, (scenes + 1) * first.size, real.shards[0].sha256, SceneTable(rows))
    return OneScene(real.folder, real.image_size, "", "", "", (shard,))


def worker_memory(index: ShardIndex | ListIndex, batches: int, workers: int = 2) -> list[dict[str, float]]:
    """Own bytes of the training process and of the mean loader process after a tenth, a half and all of the batches (of
    two scenes).
    """
    iterator = iter(DataLoader(SceneStream(index, 2, 1, seed=0), batch_size=None, num_workers=workers))
    rows = []
    for batch in range(1, batches + 1):
        next(iterator)
        if batch in (batches // 10, batches // 2, batches):
            own = [own_memory(worker.pid) for worker in iterator._workers]
            rows.append({"batches": batch, "rank": own_memory(), "worker": statistics.mean(own)})
    return rows


def index_cost(scenes: int) -> dict[str, float]:
    """Bytes of the table of contents of so many scenes on disk and in memory, and seconds to read it."""
    index = synthetic_index(scenes, read_index(TRAIN))
    with tempfile.TemporaryDirectory() as folder:
        write_index(ShardIndex(Path(folder), index.image_size, "", "", "", index.shards))
        with open(Path(folder) / index.shards[0].name, "wb") as file:
            file.truncate(index.shards[0].bytes)
        start = time.perf_counter()
        read_index(folder)
        seconds = time.perf_counter() - start
        size = (Path(folder) / "index.json").stat().st_size
    return {"scenes": scenes, "file_bytes": size, "memory_bytes": index.scenes.rows.nbytes, "seconds": seconds}


def start_seconds() -> float:
    """From the command to the end of the first step of cars64, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "vcgen",
            "fit",
            "-c",
            "configs/cars64.yaml",
            "--trainer.default_root_dir",
            folder,
        ]
        command += [
            "--trainer.max_steps",
            "1",
            "--trainer.max_time",
            "null",
            "--trainer.accelerator",
            "cpu",
            "--data.hold_out",
            "0",
        ]
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - start
