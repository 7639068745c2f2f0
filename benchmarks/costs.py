"""What NerfDiff costs, part by part: FLOPs, seconds and memory of using a model, and of a joint training step.

FLOPs are those of matrix products and convolutions (torch.utils.flop_counter; a multiplication with its addition counts
two), so look-ups and compositing count nothing. "of peak" is the fraction of what a large matrix product reaches on the
same machine in the same precision. Weights are random: they do not matter here. Memory is the most that was taken
during the part, by tensors on a GPU, by the process with all that it has loaded on a CPU; "added" is how much more that
is than before the part. Distillation is that of configs/distill.yaml: one object from beginning to end, and its two
kinds of steps.

  python benchmarks/costs.py                                                  the 64 px model, as configs/cars64.yaml
  with its prior python benchmarks/costs.py --configs configs/nerfdiff.yaml --device cuda    the 128 px one
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from common import ROOT, command_line, hardware, save_results
from memory import watch_memory
from timing import load_system, matmul_peak, measure
from vcgen.cameras import orbit, pinhole
from vcgen.systems.distillation.distilled import read_distillation
from vcgen.systems.distillation.loop import Distillation, distill
from vcgen.types import Example, Views

DEFAULT = ["configs/cars64.yaml", "configs/cars64_prior.yaml"]


@dataclass(frozen=True)
class Part:
    """Something to measure. unit: what one call does. whole: a call of many steps, which is timed once and chooses its
    own precision.
    """

    name: str
    unit: str
    call: Callable[[], object]
    whole: bool = False


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--configs", nargs="+", default=DEFAULT, help="merged in this order, as vcgen fit does")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="scenes per training step; the configuration's unless given")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    config = OmegaConf.to_container(
        OmegaConf.merge(*(OmegaConf.load(ROOT / path) for path in chosen.configs)), resolve=True
    )
    config["model"]["init_args"]["train_field"] = True
    if chosen.batch:
        config["data"]["init_args"]["batch_size"] = chosen.batch
    system = load_system(config).to(chosen.device)
    parts = [*using(system, chosen.quick), *training(system, config)]
    peak = matmul_peak(torch.bfloat16, 0.5 if chosen.quick else 2.0, device=chosen.device)
    rows = [measured(part, 1 if chosen.quick else chosen.rounds, chosen.device, peak) for part in parts]
    lines = [
        (
            f"{', '.join(Path(path).stem for path in chosen.configs)}; bfloat16; matrix products reach"
            f" {peak / 1e12:.2f} TFLOP/s here."
        ),
        "",
        "| part | one call is | GFLOP | ms | of peak | memory GB | added GB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(line(r) for r in rows),
    ]
    if not all(r["memory_exact"] for r in rows):
        lines += [
            "",
            "This system cannot measure the memory of parts: memory is the most that the process has taken so far.",
        ]
    print("\n".join(lines))
    figures = {
        "program": "costs",
        "configs": chosen.configs,
        "device": chosen.device,
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "peak_tflops": peak / 1e12,
        "rows": rows,
    }
    save_results("costs_" + Path(chosen.configs[-1]).stem, figures, lines, chosen.quick)
    print(json.dumps(figures))


def measured(part: Part, rounds: int, device: str, peak: float) -> dict:
    """FLOPs, median time and memory of a part."""
    cuda = device.startswith("cuda")

    def call() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16) if not part.whole else nullcontext():
            part.call()
        if cuda:
            torch.cuda.synchronize()

    with watch_memory(torch.device(device)) as memory:
        with FlopCounterMode(display=False) as counter:
            call()
        seconds = measure({part.name: call}, 1 if part.whole else rounds)[part.name].wall
    flop = counter.get_total_flops()
    return {
        "name": part.name,
        "unit": part.unit,
        "gflop": flop / 1e9,
        "ms": 1000 * seconds,
        "of_peak": flop / seconds / peak,
        "memory_gb": memory.bytes / 1e9,
        "added_gb": None if memory.added is None else memory.added / 1e9,
        "memory_exact": memory.exact,
    }


def line(row: dict) -> str:
    """A part in Markdown."""
    added = "" if row["added_gb"] is None else f"{row['added_gb']:.2f}"
    figures = f"{row['gflop']:.2f} | {row['ms']:.1f} | {row['of_peak']:.0%} | {row['memory_gb']:.2f} | {added}"
    return f"| {row['name']} | {row['unit']} | {figures} |"


def using(system, quick: bool) -> list[Part]:
    """Inference and distillation of one image."""
    system.eval()
    guidance, options = read_distillation(str(ROOT / "configs" / "distill.yaml"))
    if quick:
        guidance = replace(guidance, rounds=1, updates=2)
    size = system.prior.size
    context = views(system, 1, 1, size)
    cameras = context.cameras
    field = no_grad(lambda: system.field(context))()
    state = Distillation(system, context, guidance, options)
    state.advance(0, noise(system))
    optimizer = state.optimizer()

    def update() -> None:
        optimizer.zero_grad()
        sum(state.losses(1, noise(system)).values()).backward()
        optimizer.step()

    whole = f"one object: {guidance.rounds} rounds, {guidance.updates} updates after each"
    return [
        Part("encode", "one image", no_grad(lambda: system.field(context))),
        Part("render", f"one view, {size} px", no_grad(lambda: system.render(field, cameras, (size, size)))),
        Part("sample", "one view, as vcgen draws it", no_grad(lambda: system.sample(context, cameras, noise(system)))),
        Part("distillation: round", f"{options.views} views denoised once", lambda: state.advance(0, noise(system))),
        Part("distillation: update", f"{options.rays} rays and {options.input_rays} of the input", update),
        Part("distillation", whole, lambda: distill(system, context, guidance, options), whole=True),
    ]


def training(system, config: dict) -> list[Part]:
    """A joint training step and its parts."""
    data = config["data"]["init_args"]
    size = system.prior.size
    scenes = views(system, data["batch_size"], 1 + data["targets"], size)
    example = Example(scenes[:, :1], scenes[:, 1:], tuple(map(str, range(data["batch_size"]))))
    optimizer = system.optimizer_options.build(system.parameters())
    prior = system.prior

    def field_alone() -> None:
        system.prior = None
        try:
            sum(system.losses(example, noise(system)).values()).backward()
        finally:
            system.prior = prior

    def prior_alone() -> None:
        with torch.no_grad():
            field = system.field(example.context)
        system.denoising_losses(field, example, noise(system))[0].mean().backward()

    def joint() -> None:
        optimizer.zero_grad()
        sum(system.losses(example, noise(system)).values()).backward()
        optimizer.step()

    images = data["batch_size"] * min(data["targets"], system.prior_options.views)
    rays = data["batch_size"] * data["targets"] * system.rays_per_view
    return [
        Part("training: field", f"{data['batch_size']} images, {rays} rays, forward and backward", field_alone),
        Part("training: prior", f"{images} views rendered and denoised, forward and backward", prior_alone),
        Part("training: optimizer", "all weights", optimizer.step),
        Part("training: joint step", "all of it", joint),
    ]


def views(system, batch: int, count: int, size: int) -> Views:
    """Random images with alpha, cameras around the object."""
    cameras = orbit(
        torch.arange(batch * count) * 40.0, torch.full((batch * count,), 25.0), 1.3, pinhole(1.025), 0.8, 1.8
    )
    images = torch.rand(batch, count, 3, size, size)
    return Views(images, cameras.reshape(batch, count), torch.ones(batch, count, 1, size, size)).to(system.device)


def noise(system) -> torch.Generator:
    return torch.Generator(system.device).manual_seed(0)


def no_grad(call: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(call)


if __name__ == "__main__":
    main()
