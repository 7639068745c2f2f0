"""Training attention on a CPU in bfloat16: PyTorch's fused kernel beside the plain formulas, which keep the
probabilities (vcgen/diffusion/attention.py takes them for short sequences). First one layer, forward and backward, by
length of the sequence; then the gradient step of the shipped priors, without optimizer. One thread.

  python benchmarks/attention_kernels.py [--quick]
"""

import json
from collections.abc import Callable

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from common import ROOT, command_line, hardware, save_results
from timing import Timing, measure, table
from vcgen.checkpoints import model_folder
from vcgen.diffusion.attention import SHORT, keep_attention
from vcgen.diffusion.base import Condition
from vcgen.diffusion.text_prior import TextPrior

LENGTHS = 16, 32, 64, 128, 256, 512, 1024
TOKENS = 2048  # of all sequences together
IMAGES = 32
MODELS = ROOT / "data" / "pretrained"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if chosen.quick else chosen.rounds
    rows = [row(f"attention, {n} tokens", n <= SHORT, measure(one_layer(n), rounds)) for n in LENGTHS]
    steps = {"text prior toys64": text_step(), "view prior cars64": view_step()}
    rows += [row(name, True, measure(both_ways(*step), rounds)) for name, step in steps.items()]
    cells = [
        [r["name"], f"{1e3 * r['fused']:.2f}", f"{1e3 * r['plain']:.2f}", f"{r['ratio']:.2f}", r["taken"]] for r in rows
    ]
    lines = table("", ["forward and backward", "fused, ms", "plain, ms", "fused / plain", "taken"], cells)
    print("\n".join(lines))
    figures = {"program": "attention_kernels", "hardware": hardware(), "rounds": rounds, "rows": rows}
    save_results("attention_kernels", figures, lines, chosen.quick)
    print(json.dumps(figures))


def row(name: str, plain: bool, found: dict[str, Timing]) -> dict:
    """Processor seconds of both ways, medians, and which of them vcgen takes."""
    fused, kept = found["fused"].processor, found["plain"].processor
    return {"name": name, "fused": fused, "plain": kept, "ratio": fused / kept, "taken": "plain" if plain else "fused"}


def one_layer(length: int) -> dict[str, Callable[[], object]]:
    """Forward and backward of 6 heads of 32 numbers."""
    given = [torch.randn(TOKENS // length, 6, length, 32).bfloat16().requires_grad_() for _ in range(3)]

    def fused() -> None:
        F.scaled_dot_product_attention(*given).sum().backward()

    def plain() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            fused()

    return {"fused": fused, "plain": plain}


def text_step() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """The shipped text prior's U-Net, and its loss over random latents and texts."""
    prior = TextPrior.load(MODELS / "toys64").requires_grad_(True)
    latents, texts = torch.randn(IMAGES, *prior.latent_shape), prior.embed(["a photo of a red car"] * IMAGES).detach()

    def loss() -> torch.Tensor:
        return prior.loss(latents, texts, torch.Generator().manual_seed(0))[0].mean()

    return prior.unet, loss


def view_step() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """The shipped view prior's U-Net, and its loss over random images and conditions."""
    prior = model_folder.load(MODELS / "cars64").prior.requires_grad_(True)
    size = prior.unet.config.sample_size * prior.patch
    maps = prior.unet.config.in_channels // prior.patch**2 - 3
    condition = Condition(torch.rand(IMAGES, maps, size, size), None, torch.ones(IMAGES))
    images = torch.rand(IMAGES, 3, size, size)

    def loss() -> torch.Tensor:
        return prior.loss(images, condition, torch.Generator().manual_seed(0))[0].mean()

    return prior.unet, loss


def both_ways(unet: nn.Module, loss: Callable[[], torch.Tensor]) -> dict[str, Callable[[], object]]:
    """The gradient step as diffusers computes attention, and as vcgen does."""
    layers = [layer for layer in unet.modules() if isinstance(layer, Attention)]

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss().backward()

    def fused() -> None:
        for layer in layers:
            layer.set_processor(AttnProcessor2_0())
        step()

    def plain() -> None:
        keep_attention(unet)
        step()

    return {"fused": fused, "plain": plain}


if __name__ == "__main__":
    main()
