"""How peaked is the attention of a prior's U-Net? Of each layer, while views of test cars are sampled: the largest
logit, and how much of its attention a cell gives to one other, on average (1: it looks at nothing else).

A layer whose input is not normalized (`middle_norm: false`) can come to look at single cells alone, and its gradients
then suffer from rounding (vcgen/diffusion/unet_prior.py).

  python benchmarks/prior_attention.py [data/pretrained/cars64 ...]
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from common import ROOT, hardware, save_results
from vcgen.checkpoints import model_folder
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index


class Watched:
    """Keeps what :func:`measured` reports of one attention layer."""

    def __init__(self, layer: Attention):
        self.layer, self.largest, self.peaks = layer, 0.0, []
        layer.register_forward_hook(self.look, with_kwargs=True)

    def look(self, layer: Attention, given: tuple, kwargs: dict, _: Tensor) -> None:
        cells = given[0]
        if cells.ndim == 4:
            cells = cells.flatten(2)
            cells = (layer.group_norm(cells) if layer.group_norm is not None else cells).mT
        others = kwargs.get("encoder_hidden_states")
        queries, keys = layer.to_q(cells), layer.to_k(cells if others is None else others)
        queries, keys = (x.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for x in (queries, keys))
        logits = queries @ keys.mT * layer.scale
        self.largest = max(self.largest, float(logits.abs().max()))
        self.peaks.append(float(logits.softmax(-1).amax(-1).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", default=[ROOT / "data" / "pretrained" / "cars64"])
    parser.add_argument("--cars", type=int, default=5)
    options = parser.parse_args()
    rows = [row for model in options.models for row in measured(model, options.cars)]
    lines = ["| model | layer | largest logit | attention on one cell |", "| --- | --- | --- | --- |"]
    lines += [f"| {r['name']} | {r['layer']} | {r['largest']:.3g} | {r['peak']:.2f} |" for r in rows]
    print("\n".join(lines))
    figures = {"program": "prior_attention", "hardware": hardware(), "cars": options.cars, "rows": rows}
    save_results("prior_attention", figures, lines)
    print(json.dumps(figures))


@torch.no_grad()
def measured(folder: Path, cars: int) -> list[dict]:
    """A row for each attention layer of the prior in a model folder."""
    model = model_folder.load(folder)
    if model.prior is None:
        raise SystemExit(
            f"prior_attention: error: {folder} holds no diffusion prior: give a model that was trained with one"
        )
    layers = {name: Watched(part) for name, part in model.prior.unet.named_modules() if isinstance(part, Attention)}
    scenes = FixedScenes(read_index(ROOT / "data" / "cars64" / "test"), cars, 2)
    for number in range(cars):
        example = scenes[number]
        model.sample(example.context, example.target.cameras, torch.Generator().manual_seed(number), steps=5)
    return [
        {"name": folder.name, "layer": name, "largest": layer.largest, "peak": sum(layer.peaks) / len(layer.peaks)}
        for name, layer in layers.items()
    ]


if __name__ == "__main__":
    main()
