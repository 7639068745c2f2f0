"""How fast are the triplane model and the pixelNeRF baseline, on the same machine, data, renderer and trainer step?

  python benchmarks/field_speed.py                     minutes: the baseline's training step and its image are slow
  python benchmarks/field_speed.py --quick             a smaller baseline batch, and fewer rays of its image, scaled
  python benchmarks/field_speed.py --parts             also look-ups, precisions and numbers of samples, each by itself
  python benchmarks/field_speed.py --learning JSON     also the time to a quality, from results of
  benchmarks/learning.py

Both systems are built from their shipped configurations, each with its own batch shape and precision. Training: the
system's own losses on a real batch, backward, gradient clipping, optimizer step; the encoder is included. Rendering:
one 64 x 64 image of an encoded field. The two take turns. On a machine with other work, --threads 1 and the ratios of
processor time are the ones to trust."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from common import ROOT, command_line, hardware, save_results
from field_parts import ablations, learning_times
from subject import MODELS, Subject
from timing import Timing, matmul_peak, measure, table
from vcgen.data.datamodules.stream import SceneStream
from vcgen.data.shards.files import read_index
from vcgen.systems.base import System


def count_flops(function) -> int:
    """FLOPs of matrix products, convolutions and attention in a call, backward included; look-ups and elementwise work
    are not counted.
    """
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def mlp_flops(system: System) -> int:
    """FLOPs of one point through the decoder, from its layer sizes; both of pixelNeRF's networks are alike."""
    network = getattr(system.encoder, "decoder", None) or system.encoder.mlp_fine
    return sum(2 * m.in_features * m.out_features for m in network.modules() if isinstance(m, torch.nn.Linear))


def loader_rate(subject: Subject, batches: int) -> float:
    """Scenes per second of the training stream through the DataLoader as configured, nothing else running."""
    data = subject.config["data"]["init_args"]
    stream = SceneStream(read_index(ROOT / data["train"]), data["batch_size"], data["targets"], seed=0)
    batches_of = iter(DataLoader(stream, batch_size=None, num_workers=data["num_workers"]))

    def read() -> None:
        for _ in range(batches):
            next(batches_of)

    return batches * data["batch_size"] / measure({"read": read}, rounds=3)["read"].wall


def figures_of(subject: Subject, train: Timing, encode: Timing, render: Timing, peak: float) -> dict[str, Any]:
    """All numbers of one system."""
    train_flops, render_flops = count_flops(subject.train), count_flops(subject.render) * subject.scale
    analytic = subject.rays * subject.points * mlp_flops(subject.system)
    return {
        "precision": subject.config["trainer"]["precision"],
        "parameters": sum(p.numel() for p in subject.system.parameters()),
        "rays_per_step": subject.rays,
        "points_per_ray": subject.points,
        "train": dataclasses.asdict(train),
        "encode": dataclasses.asdict(encode),
        "render": dataclasses.asdict(render),
        "render_scale": subject.scale,
        "train_rays_per_second": subject.rays / train.wall,
        "image_seconds": render.wall * subject.scale,
        "train_flops_per_step": train_flops,
        "render_flops": render_flops,
        "mlp_forward_flops_per_step_analytic": analytic,
        "train_fraction_of_peak": train_flops / train.wall / peak,
        "render_fraction_of_peak": render_flops / (render.wall * subject.scale) / peak,
    }


def summary(name: str, f: dict[str, Any]) -> list[str]:
    """A row of the table."""
    return [
        name,
        f["precision"],
        f"{f['rays_per_step']} x {f['points_per_ray']}",
        f"{f['train']['wall']:.3f}",
        f"{f['train_rays_per_second']:.1f}",
        f"{f['train_flops_per_step'] / 1e9:.1f}",
        f"{f['train_fraction_of_peak']:.0%}",
        f"{f['encode']['wall'] * 1e3:.1f}",
        f"{f['image_seconds'] * 1e3:.1f}",
        f"{f['render_flops'] / 1e9:.2f}",
        f"{f['render_fraction_of_peak']:.0%}",
    ]


COLUMNS = [
    "model",
    "precision",
    "rays x points / step",
    "s / step",
    "rays / s",
    "GFLOP / step",
    "of peak",
    "encode ms",
    "image ms",
    "GFLOP / image",
    "of peak",
]


def main() -> None:
    """Measure, print, and file a full run's results."""
    parser = command_line(__doc__)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--learning", type=Path, metavar="JSON")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of PyTorch's operators; default: all cores"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = {"program": "field_speed", "quick": chosen.quick, "hardware": hardware()}
    found |= {"threads": chosen.threads, "load_before": os.getloadavg()[0]}
    found |= compare(chosen.quick)
    subject = found.pop("subject")
    lines = table("Field speed", COLUMNS, [summary(name, found[name]) for name in MODELS]) + closing(found)
    if chosen.parts:
        lines += ablations(subject, 1 if chosen.quick else 3, found)
    if chosen.learning:
        lines += learning_times(chosen.learning, found)
    print("\n".join(lines))
    save_results("field_speed", found, lines, chosen.quick)
    print(json.dumps(found))


def compare(quick: bool) -> dict[str, Any]:
    """The figures of both systems and their ratios; ``subject`` is the triplane model."""
    found = {}
    peaks = {name: matmul_peak(dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    subjects = {name: Subject.build(config, quick) for name, config in MODELS.items()}
    rounds = 1 if quick else 3
    # In training and rendering, calls follow each other: seconds of them per turn, so that each is timed in the caches
    # and memory of its own.
    turn = 0.3 if quick else 3.0
    timings = {
        kind: measure({n: getattr(s, kind) for n, s in subjects.items()}, rounds, turn)
        for kind in ("train", "encode", "render")
    }
    for name, subject in subjects.items():
        peak = peaks["bf16" if subject.config["trainer"]["precision"] == "bf16-mixed" else "fp32"]
        found[name] = figures_of(subject, *(timings[kind][name] for kind in ("train", "encode", "render")), peak)
    fast, slow = (found[name] for name in MODELS)
    scenes = loader_rate(subjects["triplane"], 4 if quick else 16)
    consumed = len(subjects["triplane"].example.keys) / fast["train"]["wall"]
    train, render = ([f[kind]["processor"] for f in (fast, slow)] for kind in ("train", "render"))
    return found | {
        "subject": subjects["triplane"],
        "peak_flops": peaks,
        "ratio_train_rays_per_second": fast["train_rays_per_second"] / slow["train_rays_per_second"],
        "ratio_render": slow["image_seconds"] / fast["image_seconds"],
        "ratio_train_processor_time": fast["rays_per_step"] / train[0] / (slow["rays_per_step"] / train[1]),
        "ratio_render_processor_time": render[1] * slow["render_scale"] / render[0],
        "loader_scenes_per_second": scenes,
        "loader_target_images_per_second": scenes * subjects["triplane"].example.target.cameras.shape[1],
        "training_consumes_scenes_per_second": consumed,
        "ratio_loader": scenes / consumed,
    }


def closing(found: dict[str, Any]) -> list[str]:
    """The ratios in words."""
    peaks, scaled = found["peak_flops"], found["pixelNeRF"]["render_scale"]
    lines = [
        (
            f"Matmul peak: {peaks['fp32'] / 1e9:.0f} GFLOP/s in fp32, {peaks['bf16'] / 1e9:.0f} in bf16, on"
            f" {found['threads']} threads."
        ),
        (
            f"Training rays/s: {found['ratio_train_rays_per_second']:.0f} x pixelNeRF's (goal 500); by processor time "
            f"{found['ratio_train_processor_time']:.0f} x."
        ),
        (
            f"Rendering: {found['ratio_render']:.0f} x pixelNeRF's speed (goal 1500); by processor time "
            f"{found['ratio_render_processor_time']:.0f} x."
        ),
        (
            f"Loader alone: {found['loader_scenes_per_second']:.0f} scenes/s, {found['ratio_loader']:.1f} x what"
            " training consumes (goal 5)."
        ),
    ]
    if scaled != 1:
        lines.append(
            f"Quick run: pixelNeRF trained on a smaller batch, and rendered 1/{scaled:.0f} of the rays, its time"
            " scaled."
        )
    return [*lines, ""]


if __name__ == "__main__":
    main()
