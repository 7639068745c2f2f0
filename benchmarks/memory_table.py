"""How much memory a GPU needs for a training step of every shipped configuration, and how many FLOPs, without a GPU.

A step (losses, backward, optimizer) runs under fake tensors on "cuda:0", see fake_gpu.py: shapes and types are those of
a run, values there are none, so a scene counts as occupied everywhere, or to the fraction --kept. Counted are weights,
their averages, gradients, the optimizer's state and activations, in the blocks of 512 bytes in which PyTorch hands out
memory. Not counted: the CUDA context (some 0.5 GB), workspaces of cuDNN and cuBLAS, fragmentation of the allocator
(often a tenth and more), copies for DDP (another set of gradients), validation. Attention is taken to be fused (flash),
as PyTorch chooses it in bfloat16. Where shapes follow from values, as of a mesh (OPEN in memory_systems.py), the true
tensors of a step on a CPU are counted instead. No GPU has measured these numbers. What a CPU can check it does: the
tensors of a true step of small configurations must be within 10 % of the same step's fake ones.

  python benchmarks/memory_table.py             all configurations, and the checks
  python benchmarks/memory_table.py lora        those named, and their checks
"""

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common import hardware, save_results
from fake_gpu import FakeGpu, backward
from fake_memory import Allocated, Released
from memory import watch_memory
from memory_systems import CONFIGS, OPEN, answer_of, built, described, merged, placed, step_of, whole
from vcgen.systems.base import System
from vcgen.types import Example

#: Small enough for a true step on a CPU.
CHECKED = (
    "one_scene", "cars64", "distill, first step of a round", "distill, other steps", "text2image, autoencoder",
    "textual_inversion", "lora", "dreambooth",
)  # fmt: skip
#: Of them those of a second.
QUICK = ("one_scene", "distill, other steps", "textual_inversion", "lora")
#: Of the two tables, in Markdown.
HEAD = (
    "| configuration | million parameters | a step is | standing, GB | peak, GB | GFLOP forward | backward |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)
CHECKS_HEAD = (
    "",
    "| a step on a CPU | fake tensors, MB | true tensors, MB | difference | the process, MB |",
    "| --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Row:
    """Bytes and operations of one configuration's training step. standing: weights, averages, optimizer, before the
    step. A multiplication with its addition counts as two operations.
    """

    name: str
    parameters: int
    precision: str
    batch: str
    standing: int
    peak: int
    forward_flop: int
    backward_flop: int

    @property
    def line(self) -> str:
        """In Markdown."""
        flop = " | ".join(f"{n / 1e9:,.{0 if n > 1e10 else 1}f}" for n in (self.forward_flop, self.backward_flop))
        memory = f"{self.standing / 1e9:.2f} | **{self.peak / 1e9:.{1 if self.peak > 1e9 else 2}f}**"
        return f"| {self.name} | {self.parameters / 1e6:.1f} | {self.batch} | {memory} | {flop} |"


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args, **kwargs) -> Tensor:
    """The fused attention that a GPU would choose; PyTorch asks its driver for that choice, and takes the plain one."""
    if query.dtype == torch.float32 or attn_mask is not None:  # flash attention takes neither
        shape = (*query.shape[:-1], key.shape[-2])
        bias = None if attn_mask is None else attn_mask.to(query.dtype).expand(shape)
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CONFIGS)}; all unless given")
    parser.add_argument("--kept", type=float, default=1.0, help="fraction of samples, in [0, 1], in occupied cells")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, checked")
    chosen = parser.parse_args()
    names = chosen.names or (QUICK if chosen.quick else CONFIGS)
    lines, rows, checks = list(HEAD), [], {}
    print("\n".join(lines))
    for name in names:
        rows.append(measured(name, chosen.kept))
        lines.append(rows[-1].line)
        print(lines[-1], flush=True)
    lines += CHECKS_HEAD
    print("\n".join(CHECKS_HEAD))
    for name in filter(CHECKED.__contains__, names):
        checks[name] = checked(name, chosen.quick)
        lines.append(check_line(name, *checks[name]))
        print(lines[-1], flush=True)
    figures = {
        "program": "memory_table",
        "hardware": hardware(),
        "rows": [asdict(row) for row in rows],
        "checks": checks,
    }
    save_results("memory_table", figures, lines, chosen.quick or bool(chosen.names))
    print(json.dumps(figures))
    if wrong := [name for name, (fake, true, _) in checks.items() if abs(fake / true - 1) > 0.1]:
        raise SystemExit(f"estimate and true step differ by more than 10 %: {'; '.join(wrong)}")


def measured(name: str, kept: float = 1.0) -> Row:
    """A configuration's step on a fake GPU, or a true one on the CPU."""
    config = merged(name)
    system, batch = built(name, config)
    precision = config["trainer"]["precision"]
    device = "cpu" if name in OPEN else "cuda"
    with ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(FakeGpu(answer_of(system), kept))
            stack.enter_context(mock.patch.object(nn.functional, "scaled_dot_product_attention", attention))
        memory = stack.enter_context(Allocated(device))
        batch = batch.to(device)
        system = placed(system, batch, step_of(name, config), device)
        learning = [p for p in system.parameters() if p.requires_grad]
        averages = [p.detach().clone() for p in learning] if config["ema"]["decay"] else []
        optimizer = optimizer_of(system)
        step(system, batch, optimizer, precision)  # the optimizer's state comes with its first step
        standing = memory.now
        memory.peak = memory.now
        flop = step(system, batch, optimizer, precision)
    del averages
    weights = sum(p.numel() for p in whole(system).parameters())
    return Row(name, weights, precision, described(name, config), standing, memory.peak, *flop)


def optimizer_of(system: System) -> torch.optim.Optimizer:
    """The one that a trainer gets."""
    found = system.configure_optimizers()
    return found["optimizer"] if isinstance(found, dict) else found


def step(system: System, batch: Example, optimizer: torch.optim.Optimizer, precision: str) -> tuple[int, int]:
    """A training step where the batch is; FLOPs forward and backward."""
    device = batch.context.images.device.type
    generator, counter = torch.Generator(device), FlopCounterMode(display=False)
    with Released() as saved, counter, mock.patch.object(torch._C, "_current_graph_task_id", return_value=0):
        with torch.autocast(device, torch.bfloat16, enabled="bf16" in precision):
            losses = system.losses(batch, generator)
        forward = counter.get_total_flops()
        backward(torch.stack(list(losses.values())).sum(), saved.release)
    optimizer.step()
    optimizer.zero_grad()
    return forward, counter.get_total_flops() - forward


def checked(name: str, quick: bool = False) -> tuple[int, int, int | None]:
    """Bytes that a step on the CPU adds at its peak: fake tensors, true tensors, the process by the kernel's mark,
    which a quick check leaves out.
    """
    config = merged(name)
    number, precision = step_of(name, config), config["trainer"]["precision"]
    system, batch = built(name, config)
    with Allocated("cpu") as memory:
        call = cpu_step(placed(system, batch, number), batch, precision)
        true = added(call, memory)
    with watch_memory(torch.device("cpu")) as process:
        if not quick:
            call()
    system, batch = built(name, config)
    true_ones = [mock.patch(f"vcgen.{module}.require") for module in ("cameras", "diffusion.base")]
    with FakeGpu(answer_of(system)), true_ones[0], true_ones[1], Allocated("cpu") as memory:
        batch = batch.to("cpu")
        fake = added(cpu_step(placed(system, batch, number, "cpu"), batch, precision), memory)
    return fake, true, None if quick else process.added


def added(call: Callable[[], None], memory: Allocated) -> int:
    """Bytes of the second step above what the first one has left."""
    call()
    before = memory.peak = memory.now
    call()
    return memory.peak - before


def cpu_step(system: System, batch: Example, precision: str) -> Callable[[], None]:
    """A training step on the CPU."""
    optimizer = optimizer_of(system)

    def call() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in precision):
            losses = system.losses(batch, torch.Generator())
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return call


def check_line(name: str, fake: int, true: int, process: int | None) -> str:
    """A check, in Markdown."""
    taken = "-" if process is None else f"{process / 1e6:.0f}"
    return f"| {name} | {fake / 1e6:.1f} | {true / 1e6:.1f} | {fake / true - 1:+.1%} | {taken} |"


if __name__ == "__main__":
    main()
