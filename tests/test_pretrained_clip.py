"""The CLIPs that ship with the repository: small, with a card, and they know cars that they were not trained on."""

from pathlib import Path

import pytest
import torch

from vcgen.data.captions import sentence
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.diffusion.clip import Clip

FOLDER = Path(__file__).parents[1] / "data" / "pretrained"
CATEGORIES = ("car", "seat", "fish", "spaceship", "food item", "piece of furniture", "tree", "building")


@pytest.mark.parametrize("name", ["clip64_guide", "clip64_judge"])
@torch.no_grad()
def test_test_cars_are_called_cars(name):
    """15 cars, eight views each averaged; chance is an eighth."""
    clip, scenes = Clip.from_folder(FOLDER / name), FixedScenes(read_index("data/cars64/test"), 15, 7)
    texts = clip.embed_texts([sentence(category) for category in CATEGORIES])
    views = [scenes[number] for number in range(len(scenes))]
    images = torch.stack([torch.cat([e.context.on(1.0)[0], e.target.on(1.0)[0]]) for e in views])
    seen = clip.embed_images(images.flatten(0, 1).movedim(1, -1)).unflatten(0, (15, 8)).mean(1)
    assert ((seen @ texts.T).argmax(1) == 0).float().mean() >= 0.8
    assert sum(path.stat().st_size for path in (FOLDER / name).iterdir()) < 5.4e6
    assert "Held-out" in (FOLDER / name / "README.md").read_text()
