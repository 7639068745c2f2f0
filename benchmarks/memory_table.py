"""How much memory a GPU needs for a training step of every shipped configuration, and how many FLOPs, without a GPU.

A step (losses, backward, optimizer) runs under fake tensors on "cuda:0", see fake_gpu.py: shapes and types are those of
a run, values there are none, so a scene counts as occupied everywhere, or to the fraction --kept. Counted are weights,
their averages, gradients, the optimizer's state and activations, in the blocks of 512 bytes in which PyTorch hands out
memory. Not counted: the CUDA context (some 0.5 GB), workspaces of cuDNN and cuBLAS, fragmentation of the allocator
(often a tenth and more), copies for DDP (another set of gradients), validation. Attention is taken to be fused (flash),
as PyTorch chooses it in bfloat16. No GPU has measured these numbers. What a CPU can check it does: the tensors of a
true step of small configurations must be within 10 % of the same step's fake ones.

  python benchmarks/memory_table.py             all configurations, and the checks
  python benchmarks/memory_table.py nerfdiff    those named, without checks
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from unittest import mock

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common import ROOT, hardware, save_results
from fake_gpu import FakeGpu, backward, to_gpu
from fake_memory import Allocated, Released
from memory import watch_memory
from vcgen.cameras import focal_from_fov, orbit, pinhole
from vcgen.checkpoints.build import build_system
from vcgen.data.viewpoints import VIEWS
from vcgen.diffusion.schedule import noise_schedule
from vcgen.diffusion.text_prior import TextPrior
from vcgen.systems.base import System
from vcgen.types import Example, Views

#: Name -> configurations that lie on each other.
CONFIGS = {
    "cars64": ["cars64"],
    "cars64_prior": ["cars64", "cars64_prior"],
    "pixelnerf64": ["pixelnerf64"],
    "one_scene": ["one_scene"],
    "one_scene_hashgrid": ["one_scene_hashgrid"],
    "nerfdiff": ["nerfdiff"],
    "nerfdiff_400m": ["nerfdiff", "nerfdiff_400m"],
    **{f"realfusion_{size}gb": ["realfusion", f"realfusion_{size}gb"] for size in (8, 16, 24, 40)},
}
#: Small enough for a true step on a CPU.
CHECKED = ("cars64", "one_scene")


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
        figures = f"{self.standing / 1e9:.2f} | **{self.peak / 1e9:.1f}** | {self.forward_flop / 1e9:,.0f} | "
        return (
            f"| {self.name} | {self.parameters / 1e6:.1f} | {self.batch} | {figures}{self.backward_flop / 1e9:,.0f} |"
        )


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *args, **kwargs) -> Tensor:
    """The fused attention that a GPU would choose; PyTorch asks its driver for that choice, and takes the plain one."""
    if mask is not None:
        raise NotImplementedError("attention with a mask is not counted")
    if query.dtype == torch.float32:
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CONFIGS)}; all unless given")
    parser.add_argument("--kept", type=float, default=1.0, help="fraction of samples, in [0, 1], in occupied cells")
    parser.add_argument("--quick", action="store_true", help="two small configurations, one of them checked")
    chosen = parser.parse_args()
    names = chosen.names or (("one_scene_hashgrid", "cars64") if chosen.quick else CONFIGS)
    rows = [measured(name, chosen.kept) for name in names]
    lines = [
        "| configuration | million parameters | a step is | standing, GB | peak, GB | GFLOP forward | backward |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(row.line for row in rows),
    ]
    checks = {name: checked(name) for name in (CHECKED[:1] if chosen.quick else () if chosen.names else CHECKED)}
    if checks:
        lines += ["", *(check_line(name, *found) for name, found in checks.items())]
    print("\n".join(lines))
    figures = {
        "program": "memory_table",
        "hardware": hardware(),
        "rows": [asdict(row) for row in rows],
        "checks": checks,
    }
    save_results("memory_table", figures, lines, chosen.quick or bool(chosen.names))
    print(json.dumps(figures))
    if wrong := [name for name, (fake, true, _) in checks.items() if abs(fake / true - 1) > 0.1]:
        raise SystemExit(f"estimate and true step differ by more than 10 %: {', '.join(wrong)}")


def measured(name: str, kept: float = 1.0) -> Row:
    """A configuration's step on a fake GPU."""
    config = merged(name)
    system, data = built(name, config)
    precision, batch = config["trainer"]["precision"], described(config)
    fused = mock.patch.object(nn.functional, "scaled_dot_product_attention", attention)
    with FakeGpu(kept=kept), fused, Allocated("cuda") as memory:
        data = data.to("cuda")
        system = placed(system, config, data.context)
        system._trainer = SimpleNamespace(max_steps=10, global_step=0)
        learning = [p for p in system.parameters() if p.requires_grad]
        averages = [p.detach().clone() for p in learning] if config["ema"]["decay"] else []
        optimizer = system.configure_optimizers()
        optimizer = optimizer["optimizer"] if isinstance(optimizer, dict) else optimizer
        step(system, data, optimizer, precision)  # the optimizer's state comes with its first step
        standing = memory.now
        memory.peak = memory.now
        flop = step(system, data, optimizer, precision)
    weights = sum(p.numel() for p in system.parameters()) + sum(
        p.numel() for p in getattr(system, "text_prior", nn.Module()).parameters()
    )
    del averages
    return Row(name, weights, precision, batch, standing, memory.peak, *flop)


def step(system: System, example: Example, optimizer: torch.optim.Optimizer, precision: str) -> tuple[int, int]:
    """A training step; FLOPs forward and backward."""
    generator, counter = torch.Generator("cuda"), FlopCounterMode(display=False)
    with Released() as saved, counter, mock.patch.object(torch._C, "_current_graph_task_id", return_value=0):
        with torch.autocast("cuda", torch.bfloat16, enabled="bf16" in precision):
            losses = system.losses(example, generator)
        forward = counter.get_total_flops()
        backward(torch.stack(list(losses.values())).sum(), saved.release)
    optimizer.step()
    optimizer.zero_grad()
    return forward, counter.get_total_flops() - forward


def merged(name: str) -> dict:
    """A configuration, as vcgen fit merges it."""
    parts = [OmegaConf.load(ROOT / "configs" / f"{part}.yaml") for part in CONFIGS[name]]
    return OmegaConf.to_container(OmegaConf.merge({"ema": {"decay": 0.999}}, *parts), resolve=True)


def described(config: dict) -> str:
    """What a step works on."""
    data, model = config["data"]["init_args"], config["model"]["init_args"]
    if config["model"]["class_path"] == "RealFusion":
        options = model["options"]
        return f"a view of {options['render_size']} px, {options['reference_rays']} rays of the photo"
    images = (
        "" if model.get("prior") is None else f", {data['batch_size'] * model['prior_options'].get('views', 1)} images"
    )
    rays = data["batch_size"] * data["targets"] * model["rays_per_view"] if model.get("train_field", True) else 0
    return f"{data['batch_size']} scenes, {rays} rays{images}"


def built(name: str, config: dict) -> tuple[System, Example]:
    """The system with random weights on the CPU, and data of the right shapes."""
    data, model = config["data"]["init_args"], config["model"]
    if model["class_path"] == "RealFusion":
        system = build_system("vcgen.systems.realfusion.system.RealFusion", {**model["init_args"], "prior": "unused"})
        return system, example(1, 1, data["size"], data["distance"], data["fov"])
    system = build_system(f"vcgen.systems.nerfdiff.{model['class_path']}", model["init_args"])
    size = system.prior.size if system.prior else 128 if name.startswith("one_scene") else 64
    return system, example(data["batch_size"], data["targets"], size)


def example(scenes: int, targets: int, size: int, distance: float = 1.3, fov: float = 52.0) -> Example:
    """One view of each scene, and targets."""
    count = scenes * (1 + targets)
    cameras = orbit(
        torch.arange(count) * 40.0, torch.full((count,), 25.0), distance, pinhole(focal_from_fov(fov)), 0.8, 2.6
    )
    images, alpha = torch.rand(count, 3, size, size), torch.ones(count, 1, size, size)
    images, alpha = (x.unflatten(0, (scenes, -1)) for x in (images, alpha))
    views = Views(images, cameras.reshape(scenes, -1), alpha)
    return Example(views[:, :1], views[:, 1:], tuple(map(str, range(scenes))))


def placed(system: System, config: dict, photo: Views) -> System:
    """On the fake GPU, with what a trainer and a photo bring."""
    to_gpu(system)
    system.train()
    if config["model"]["class_path"] != "RealFusion":
        return system
    system.progress = lambda step: 0.5
    system.reference = photo
    prior = to_gpu(stable_diffusion(), torch.bfloat16 if system.half_prior else None).requires_grad_(False).eval()
    if system.checkpoint_encoder:
        prior.vae.enable_gradient_checkpointing()
    object.__setattr__(system, "text_prior", prior)
    words = torch.zeros(1, prior.text_encoder.config.max_position_embeddings, 768, device="cuda")
    system.text = system.negative = dict.fromkeys(VIEWS, words)
    return system


def stable_diffusion() -> TextPrior:
    """Stable Diffusion 1.5's networks, by the configuration files of its release, with random weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    widths = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    )
    # diffusers' own defaults are those of the release
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    tokenizer = SimpleNamespace(model_max_length=77)
    return TextPrior(tokenizer, CLIPTextModel(text), vae, unet, noise_schedule("epsilon"), "stable-diffusion-1.5")


def checked(name: str) -> tuple[int, int, int]:
    """Bytes that a step on the CPU adds at its peak: fake tensors, true tensors, the process by the kernel's mark."""
    config = merged(name)
    system, data = built(name, config)
    call = cpu_step(system, data, config["trainer"]["precision"])
    call()
    with watch_memory(torch.device("cpu")) as process:
        call()
    with Allocated("cpu") as true:
        call()
    with FakeGpu(), Allocated("cpu") as fake:
        call = cpu_step(to_gpu(system, device="cpu"), data.to("cpu"), config["trainer"]["precision"])
        call()
        before = fake.peak = fake.now
        call()
    return fake.peak - before, true.peak, process.added


def cpu_step(system: System, data: Example, precision: str) -> Callable[[], None]:
    """A training step on the CPU."""
    optimizer = system.optimizer_options.build(system.parameters())

    def call() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in precision):
            losses = system.losses(data, torch.Generator())
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return call


def check_line(name: str, fake: int, true: int, process: int) -> str:
    """A check in words."""
    sizes = f"{fake / 1e6:.0f} MB of fake tensors, {true / 1e6:.0f} MB of true ones ({fake / true - 1:+.1%})"
    return f"A step of {name} on a CPU: {sizes}; the process took {process / 1e6:.0f} MB."


if __name__ == "__main__":
    main()
