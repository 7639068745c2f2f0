"""Does `vcgen render` know an image that is far from the training data? Two scores warn: the image's distance from the
training images (`vcgen.data.familiar`), and the part of its contrast that its field misses from the input's own side
(`vcgen.cli.render_outputs.missed`). Both, beside how much better than the copied input the other sides are, for the
test cars as they are, darkened and on gray, cars in foreign light from any elevation, and furniture. AUC: the chance
that an image's distance exceeds that of a test car.

python benchmarks/far_images.py [--model data/pretrained/cars64] [--learn data/cars64/train]
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from common import ROOT, hardware, save_results
from vcgen.cameras import view_angles
from vcgen.checkpoints import model_folder
from vcgen.cli.render_outputs import FAR, missed
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.familiar import KNOWN, Familiar
from vcgen.data.familiar_statistics import familiar
from vcgen.data.shards.files import read_index
from vcgen.io import write_bytes
from vcgen.types import Example, Views


def darkened(factor: float) -> Callable[[Views], Views]:
    """The linear light times a factor, about."""
    return lambda views: replace(views, images=views.images * factor ** (1 / 2.2))


def on_gray(views: Views) -> Views:
    """Not cut out, as with --as-is."""
    return Views(views.on(0.5), views.cameras, torch.ones_like(views.images[..., :1, :, :]))


#: Name -> shards, change of the input image. Foreign cars are seen from -86 to 86 degrees, all others from -5 to 75.
SETS = {
    "cars64/test": ("data/cars64/test", lambda views: views),
    "the same at a quarter of the light": ("data/cars64/test", darkened(0.25)),
    "the same at a tenth of the light": ("data/cars64/test", darkened(0.1)),
    "the same on gray, not cut out": ("data/cars64/test", on_gray),
    "cars64/foreign": ("data/cars64/foreign", lambda views: views),
    "furniture64/test": ("data/furniture64/test", lambda views: views),
}
#: Elevations of the training data, degrees.
TRAINED = (-5, 75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "data" / "pretrained" / "cars64")
    parser.add_argument("--learn", type=Path, help="training shards: write what they are like into the model first")
    parser.add_argument("--objects", type=int, default=30, help="of each data set, at most (default: 30)")
    parser.add_argument("--views", type=int, default=4, help="of each object, as inputs (default: 4)")
    parser.add_argument("--quick", action="store_true", help="three objects of each, one view")
    options = parser.parse_args()
    if options.learn:
        learn(options.model, options.learn)
    model = model_folder.load(options.model)
    known = Familiar.of(model.config)
    if known is None:
        parser.error(f"{options.model} does not know its training images: give --learn")
    count, views = (3, 1) if options.quick else (options.objects, options.views)
    found = {
        name: measured(model, known, ROOT / folder, count, views, change) for name, (folder, change) in SETS.items()
    }
    foreign = found["cars64/foreign"]
    inside = (foreign[:, 0] > TRAINED[0]) & (foreign[:, 0] < TRAINED[1])
    found |= {"foreign, elevations as trained": foreign[inside], "foreign, from beyond them": foreign[~inside]}
    rows = [row(name, values, found["cars64/test"], known) for name, values in found.items() if len(values)]
    lines = table(rows)
    print("\n".join(lines))
    figures = {"program": "far_images", "hardware": hardware(), "missed_limit": FAR, "distance_limit": known.limit}
    figures |= {"known": KNOWN, "rows": rows}
    save_results("far_images", figures, lines, options.quick)
    print(json.dumps(figures))


def learn(model: Path, shards: Path) -> None:
    """What `vcgen export` does for a model that it exports."""
    config = model_folder.read_config(model) | {"familiar": asdict(familiar(read_index(shards)))}
    write_bytes(model / model_folder.CONFIG, (json.dumps(config, indent=2, allow_nan=False) + "\n").encode())


def measured(
    model, known: Familiar, folder: Path, count: int, views: int, change: Callable[[Views], Views]
) -> np.ndarray:
    """(images, 4): elevation, distance, missed, dB that the other sides are above the copied input."""
    found = []
    for view in range(views):
        scenes = FixedScenes(read_index(folder), scenes=count, targets=4, context=view)
        found += [measure(model, known, scenes[number], change) for number in range(len(scenes))]
    return np.array(found)


@torch.inference_mode()
def measure(model, known: Familiar, example: Example, change: Callable[[Views], Views]) -> tuple[float, ...]:
    """A row of :func:`measured`. The truth is what the camera would see under the light of the other views."""
    context, target = change(example.context), example.target
    field, truth = model.field(context), target.on(1.0)[0]
    seen = model.render(field, target.cameras, target.size).rgb[0]
    errors = [(images - truth).square().mean((1, 2, 3)) for images in (seen, context.on(1.0)[0])]
    gain = float((10 * (errors[1] / errors[0]).log10()).mean())
    _, elevation = view_angles(context.cameras.centers[0, 0])
    return float(elevation), known.distance(context), missed(model, field, context, 1.0), gain


def row(name: str, values: np.ndarray, usual: np.ndarray, known: Familiar) -> dict:
    """Figures of one set; usual: those of the test cars."""
    _, distance, lost, gain = values.T
    far, blind = distance > known.limit, lost > FAR
    return {
        "name": name,
        "images": len(values),
        "distance": float(np.median(distance)),
        "far": float(far.mean()),
        "auc": float((distance[:, None] > usual[:, 1]).mean()),
        "missed": float(np.median(lost)),
        "blind": float(blind.mean()),
        "warned": float((far | blind).mean()),
        "gain": float(gain.mean()),
    }


def table(rows: list[dict]) -> list[str]:
    """In Markdown."""
    head = "| images | number | distance (median) | far | AUC | missed (median) | missed too much | warned by either |"
    lines = [f"{head} dB above the copied input |", "| --- " * 9 + "|"]
    return lines + [
        f"| {r['name']} | {r['images']} | {r['distance']:.1f} | {r['far']:.0%} | {r['auc']:.2f} | {r['missed']:.3f} | "
        f"{r['blind']:.0%} | {r['warned']:.0%} | {r['gain']:.1f} |"
        for r in rows
    ]


if __name__ == "__main__":
    main()
