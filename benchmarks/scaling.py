"""What training on many ranks rests on, measured: loaders beside loose files, communication, exact resume, checkpoints,
memory.

All on the bundled cars and the model of configs/cars64.yaml. docs/scaling.md computes from the figures what 64 GPUs
need. Ranks run on CPUs over gloo, and share the cores that there are. `--quick` shows only that the program works."""

import json
import statistics
import tempfile
from pathlib import Path

import torch

from common import command_line, hardware, save_results
from scaling_loading import loader_rates
from scaling_parts import (
    BATCH,
    CONFIG,
    TARGETS,
    ListIndex,
    checkpoint_cost,
    ddp_steps,
    index_cost,
    resume_parts,
    start_seconds,
    synthetic_index,
    worker_memory,
)
from timing import table
from vcgen.data.shards.files import write_shards
from vcgen.data.shards.record import SceneRecord


def main() -> None:
    """Measure, print, and file a full run's results."""
    parser = command_line(__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="PART", help="of ranks, loading and resuming (both need ranks), ...; not filed"
    )
    choice = parser.parse_args()
    quick = choice.quick
    torch.set_num_threads(1)
    figures = {
        "program": "scaling",
        "hardware": hardware(),
        "batch": BATCH,
        "targets": TARGETS,
        "precision": CONFIG["trainer"]["precision"],
    }
    lines: list[str] = []
    for measure_part in (ranks, loading, resuming, checkpoints, memory, starting):
        if measure_part.__name__ not in (choice.only or PARTS):
            continue
        name, values, text = measure_part(quick, figures)
        figures[name] = values
        print("\n".join(text), flush=True)
        lines += text
    save_results("scaling", figures, lines, quick or bool(choice.only))
    print(json.dumps(figures))


PARTS = ("ranks", "loading", "resuming", "checkpoints", "memory", "starting")
Part = tuple[str, object, list[str]]


def ranks(quick: bool, figures: dict) -> Part:
    """Step time on one and two ranks, with and without the all-reduce of gradients."""
    found = {world: ddp_steps(world, steps=2 if quick else 4) for world in (1, 2)}
    rows = [
        [
            str(world),
            f"{f['seconds']:.3f}",
            f"{f['processor']:.3f}",
            f"{f['alone']:.3f}",
            f"{1 - f['alone'] / f['seconds']:.1%}",
            f"{f['memory_last'] / 1e6:.0f}",
        ]
        for world, f in found.items()
    ]
    columns = ["ranks", "s / step", "processor s", "s without all-reduce", "fraction", "MB of each rank"]
    title = (
        f"Steps of cars64, {BATCH} scenes a rank, {found[1]['parameters'] / 1e6:.1f} million parameters; medians, in"
        " turn"
    )
    return "ranks", found, table(title, columns, rows)


def loading(quick: bool, figures: dict) -> Part:
    """Scenes per second from shards and from loose files, and how many training takes."""
    found = loader_rates((0, 1, 2) if quick else (0, 1, 2, 4), batches=3 if quick else 40, rounds=1 if quick else 3)
    need = BATCH / figures["ranks"][1]["seconds"]
    rows = [
        [
            str(count),
            f"{f['shards']:.0f}",
            f"{f['files']:.0f}",
            f"{f['shards'] / f['files']:.2f}",
            f"{f['shards'] / need:.0f} x",
        ]
        for count, f in found.items()
    ]
    columns = ["workers", "scenes / s, shards", "loose PNG files", "ratio", f"of the {need:.1f} that training takes"]
    alone = found[0]
    spent = (
        f"processor time per scene {alone['shards_processor'] * 1e3:.2f} ms from shards,"
        f" {alone['files_processor'] * 1e3:.2f} from files"
    )
    return "loading", found, table(f"Loading, {TARGETS + 1} views a scene; medians, in turn; {spent}", columns, rows)


def resuming(quick: bool, figures: dict) -> Part:
    """What exact resume costs per step."""
    found, step = resume_parts(), figures["ranks"][1]["processor"]
    rows = [[name, f"{seconds * 1e6:.1f}", f"{seconds / step:.4%}"] for name, seconds in found.items()]
    rows.append(["all", f"{sum(found.values()) * 1e6:.1f}", f"{sum(found.values()) / step:.4%}"])
    return (
        "resuming",
        found,
        table("What exact resume costs, of a step's processor time", ["part", "µs / step", "of a step"], rows),
    )


def checkpoints(quick: bool, figures: dict) -> Part:
    """Size and time of a checkpoint, and of larger models at the same rate."""
    found = checkpoint_cost(rounds=2 if quick else 7)
    per_parameter, rate = found["bytes"] / found["parameters"], found["bytes"] / found["seconds"]
    sizes = {"measured": found["parameters"], "estimated": 100e6, "estimated ": 400e6}
    rows = [
        [f"{n / 1e6:.1f} million", kind.strip(), f"{n * per_parameter / 1e6:.0f}", f"{n * per_parameter / rate:.2f}"]
        for kind, n in sizes.items()
    ]
    title = (
        f"Checkpoints: {per_parameter:.1f} bytes a parameter, {rate / 1e6:.0f} MB/s with flush and reading back;"
        " training waits"
    )
    return "checkpoints", found, table(title, ["parameters", "", "MB", "s"], rows)


def memory(quick: bool, figures: dict) -> Part:
    """Own memory of rank and loader processes while batches go by, beside an index that is a list of objects."""
    scenes, batches = (10_000, 200) if quick else (1_000_000, 10_000)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        index = synthetic_index(scenes, write_shards([small_scene()], Path(folder) / "one", (8, 8)))
        found["array"] = worker_memory(index, batches)
        found["list"] = worker_memory(ListIndex(index), batches)
    rows = [
        [kind, str(row["batches"]), f"{row['rank'] / 1e6:.1f}", f"{row['worker'] / 1e6:.1f}"]
        for kind, rows in found.items()
        for row in rows
    ]
    title = f"Own memory (USS) with {scenes:,} scenes, 2 loader processes; 'list': the index as Python objects instead"
    return "memory", found, table(title, ["index", "batches", "MB of the rank", "MB of a loader process"], rows)


def small_scene() -> SceneRecord:
    """Two black images of 8 x 8 pixels: reading them costs little."""
    import io

    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    K = np.tile(np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]), (2, 1, 1))
    return SceneRecord("scene", [file.getvalue()] * 2, np.tile(np.eye(4), (2, 1, 1)), K, (8, 8), 1.0, 2.0, ["0", "1"])


def starting(quick: bool, figures: dict) -> Part:
    """Reading the index, and from the command to the first step."""
    index = index_cost(10_000 if quick else 1_000_000)
    found = {"index": index, "start_seconds": statistics.median(start_seconds() for _ in range(1 if quick else 3))}
    sizes = f"{index['file_bytes'] / 1e6:.0f} MB, {index['memory_bytes'] / 1e6:.0f} in memory"
    rows = [
        [f"reading the index of {index['scenes']:,} scenes ({sizes})", f"{index['seconds']:.2f}"],
        ["from the command to the end of the first step of cars64", f"{found['start_seconds']:.1f}"],
    ]
    return "starting", found, table("Starting", ["what", "s"], rows)


if __name__ == "__main__":
    main()
