"""Does `vcgen render` know an image that is far from the training data? For the first view of each object: the part of
its contrast that the field misses from the input's own side (`vcgen.cli.render_outputs.missed`), above which a warning
is printed, beside how much better than the copied input the other sides are.

python benchmarks/far_images.py [--model data/pretrained/cars64] [SHARDS ...]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from common import ROOT, hardware, save_results
from vcgen.checkpoints import model_folder
from vcgen.cli.render_outputs import FAR, missed
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index

#: What the model was not trained on: objects like its own, and others.
SHARDS = ("data/cars64/test", "data/furniture64/test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", type=Path, default=[ROOT / name for name in SHARDS])
    parser.add_argument("--model", type=Path, default=ROOT / "data" / "pretrained" / "cars64")
    parser.add_argument("--objects", type=int, default=30, help="of each data set, at most (default: 30)")
    parser.add_argument("--quick", action="store_true", help="three objects of each")
    options = parser.parse_args()
    model = model_folder.load(options.model)
    rows = [row(model, folder, 3 if options.quick else options.objects) for folder in options.shards]
    lines = [
        "| images | objects | missed: median (least to most) | warned | dB above the copied input |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['name']} | {r['objects']} | {r['median']:.3f} ({r['least']:.3f} to {r['most']:.3f}) | {r['warned']:.0%} "
        f"| {r['gain']:.1f} |"
        for r in rows
    ]
    print("\n".join(lines))
    figures = {"program": "far_images", "hardware": hardware(), "threshold": FAR, "rows": rows}
    save_results("far_images", figures, lines, options.quick)
    print(json.dumps(figures))


def row(model, folder: Path, count: int) -> dict:
    """Figures of one data set."""
    scenes = FixedScenes(read_index(folder), scenes=count, targets=4)
    found = np.array([measure(model, scenes[number]) for number in range(len(scenes))])
    lost, gain = found.T
    return {
        "name": f"{folder.parent.name}/{folder.name}",
        "objects": len(found),
        "median": float(np.median(lost)),
        "least": float(lost.min()),
        "most": float(lost.max()),
        "warned": float((lost > FAR).mean()),
        "gain": float(gain.mean()),
    }


@torch.inference_mode()
def measure(model, example) -> tuple[float, float]:
    """(missed, dB that the other sides are above the copied input) of one object."""
    field, target = model.field(example.context), example.target
    truth = target.on(1.0)[0]
    seen = model.render(field, target.cameras, target.size).rgb[0]
    errors = [(images - truth).square().mean((1, 2, 3)) for images in (seen, example.context.on(1.0)[0])]
    gain = (10 * (errors[1] / errors[0]).log10()).mean()
    return missed(model, field, example.context, 1.0), float(gain)


if __name__ == "__main__":
    main()
