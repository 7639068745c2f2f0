"""The README's images from a trained model with a prior, of five held-out cars.

teaser.png: per car the input, then truth, amortized field and distilled field from two other sides. turntable.gif: the
inputs, and beneath them the amortized and the distilled fields once around.

python benchmarks/teaser.py data/pretrained/cars64 docs/images
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import ROOT
from vcgen.checkpoints import model_folder as folder
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.systems.distillation.distilled import distilled
from vcgen.training.callbacks.samples import turntable_frames
from vcgen.visualization.images import contact_sheet, to_uint8, write_gif


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path, help="folder of the images")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "cars64" / "test")
    parser.add_argument("--rounds", type=int, help="of the distillation (default: those of configs/distill.yaml)")
    options = parser.parse_args()
    model = folder.load(options.model)
    scenes = FixedScenes(read_index(options.data), scenes=5, targets=2)
    cars = [Car(model, scenes[i], options.rounds) for i in range(len(scenes))]
    sheet = Image.fromarray(contact_sheet(np.stack([image for car in cars for image in car.row()]), columns=7, gap=4))
    sheet.resize((sheet.width * 3 // 2, sheet.height * 3 // 2), Image.Resampling.LANCZOS).save(
        options.out / "teaser.png", optimize=True
    )
    turns = np.stack([car.turns(24) for car in cars], 2)  # (2, frames, cars, H, W, 3)
    seen = np.broadcast_to(np.stack([to_uint8(car.seen) for car in cars]), turns[0].shape)
    frames = [contact_sheet(np.concatenate(rows), columns=len(cars), gap=4) for rows in zip(seen, *turns, strict=True)]
    write_gif(options.out / "turntable.gif", np.stack(frames), fps=10)


class Car:
    """One test car: its views, its field as it is, and distilled."""

    def __init__(self, model, example, rounds: int | None):
        self.model, self.example = model, example
        self.seen = example.context.on(1.0)[0, 0]
        self.distilled = distilled(model, "default", rounds=rounds).field(example.context)
        with torch.inference_mode():
            self.amortized = model.field(example.context)

    @torch.inference_mode()
    def row(self) -> list[np.ndarray]:
        """Input, then truth, amortized and distilled per target view; each (H, W, 3) uint8."""
        target = self.example.target
        fields = (self.amortized, self.distilled)
        amortized, final = (self.model.render(field, target.cameras, target.size).rgb[0] for field in fields)
        views = zip(target.on(1.0)[0], amortized, final, strict=True)
        return [to_uint8(self.seen), *(to_uint8(image) for view in views for image in view)]

    @torch.inference_mode()
    def turns(self, count: int) -> np.ndarray:
        """The amortized and the distilled field once around: (2, count, H, W, 3) uint8."""
        fields = (self.amortized, self.distilled)
        return np.stack([turntable_frames(self.model, field, self.example, count) for field in fields])


if __name__ == "__main__":
    main()
