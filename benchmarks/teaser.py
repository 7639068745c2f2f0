"""The README's image from a trained model: per test car the input, then truth and rendering of three other views.

python benchmarks/teaser.py outputs/demo/model docs/images/teaser.png
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
from vcgen.visualization.images import contact_sheet, to_uint8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    model = folder.load(options.model)
    scenes = FixedScenes(read_index(ROOT / "data" / "cars64" / "test"), scenes=5, targets=3)
    images = [image for i in range(len(scenes)) for image in row(model, scenes[i])]
    sheet = Image.fromarray(contact_sheet(np.stack(images), columns=7, gap=4))
    sheet.resize((sheet.width * 3 // 2, sheet.height * 3 // 2), Image.Resampling.LANCZOS).save(
        options.out, optimize=True
    )


@torch.inference_mode()
def row(model, example) -> list[np.ndarray]:
    """Input, then truth and rendering per target view; each (H, W, 3) uint8."""
    seen = model.render(model.field(example.context), example.target.cameras, example.target.size).rgb[0]
    pairs = zip(example.target.on(1.0)[0], seen, strict=True)
    return [to_uint8(example.context.on(1.0)[0, 0]), *(to_uint8(image) for pair in pairs for image in pair)]


if __name__ == "__main__":
    main()
