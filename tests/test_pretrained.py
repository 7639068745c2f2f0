"""The models that ship with the repository: they open, they are small, they show what their cards say."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import vcgen
from vcgen.cameras import view_angles
from vcgen.cli import main as cli
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.data.viewpoints import view_word
from vcgen.diffusion.text_prior import TextPrior, latents_of
from vcgen.metrics.image import psnr

FOLDER = Path(__file__).parents[1] / "data" / "pretrained" / "cars64"
FIELD = FOLDER.with_name("cars64_field")
TOYS = FOLDER.with_name("toys64")


@pytest.fixture(scope="module")
def model():
    return vcgen.load(FOLDER)


@pytest.mark.parametrize("folder", [FOLDER, FIELD], ids=lambda folder: folder.name)
def test_it_is_small_and_has_a_card(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 25e6
    assert "Licence" in (folder / "README.md").read_text()


@pytest.mark.integration
@pytest.mark.parametrize(("folder", "least"), [(FOLDER, 19.5), (FIELD, 20.0)], ids=["cars64", "cars64_field"])
def test_its_field_shows_test_cars_better_than_a_blank_page(folder, least):
    """15 cars, input view 0, 4 other views each. The card's figure is over all 39 views; empty white is at 13 dB."""
    model, scenes, values = vcgen.load(folder), FixedScenes(read_index("data/cars64/test"), 15, 4), []
    with torch.inference_mode():
        for number in range(len(scenes)):
            example = scenes[number]
            seen = model.system.render(
                model.system.field(example.context), example.target.cameras, example.target.size
            ).rgb
            values.append(psnr(seen[0].clamp(0, 1), example.target.on(1.0)[0]).mean())
    assert torch.stack(values).mean() > least


@pytest.mark.integration
def test_its_prior_draws_images_near_the_rendering_but_not_the_rendering(model):
    example = FixedScenes(read_index("data/cars64/test"), 1, 2)[0]
    system = model.system
    with torch.no_grad():
        rendering = system.render(system.field(example.context), example.target.cameras, (64, 64)).rgb
    first, second = (
        system.sample(example.context, example.target.cameras, torch.Generator().manual_seed(s), steps=10)
        for s in (0, 1)
    )
    for sample in (first, second):
        assert 15 < psnr(sample[0], rendering[0].clamp(0, 1)).mean() < 35
    assert (first - second).abs().mean() > 0.005


def test_its_views_come_from_the_command_line_and_show_the_given_car(tmp_path):
    """One view from the image's own side, of a test car as it is."""
    view = FixedScenes(read_index("data/cars64/test"), 1, 1)[0].context
    truth = view.on(1.0)[0, 0]
    pixels = torch.cat([view.images[0, 0], view.alpha[0, 0]]).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "car.png")
    _, elevation = view_angles(view.cameras.centers[0, 0])
    words = [
        "render",
        "--model",
        str(FOLDER),
        "--image",
        str(tmp_path / "car.png"),
        "--out",
        str(tmp_path / "out"),
        "--as-is",
        "--views",
        "1",
    ]
    words += [
        "--input-elevation",
        f"{float(elevation):.3f}",
        "--turntable-frames",
        "0",
        "--mesh-resolution",
        "0",
        "--device",
        "cpu",
    ]
    assert cli.main(words) == 0
    (path,) = (tmp_path / "out" / "views").glob("*.png")
    shown = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1) / 255
    assert shown.shape == truth.shape and float(psnr(shown[None], truth[None])) > 24  # an empty image has about 12 dB


def test_diffusers_opens_its_network_and_schedule():
    unet = diffusers.UNet2DModel.from_pretrained(FOLDER / "unet")
    schedule = diffusers.DDIMScheduler.from_pretrained(FOLDER / "scheduler")
    assert sum(p.numel() for p in unet.parameters()) > 5e6 and len(schedule.alphas_cumprod) == 1000


def test_the_text_prior_is_small_has_a_card_and_opens_in_diffusers():
    assert sum(path.stat().st_size for path in TOYS.rglob("*")) < 40e6
    assert "Licence" in (TOYS / "README.md").read_text()
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(TOYS, local_files_only=True, safety_checker=None)
    assert sum(p.numel() for p in pipeline.unet.parameters()) > 1e7


@pytest.mark.integration
def test_the_text_prior_knows_a_car_by_its_name_and_its_side():
    """Cars that it was not trained on: easier to denoise under their own word than under another, from the side under
    "side" than "front".
    """
    prior, scenes = TextPrior.load(TOYS), FixedScenes(read_index("data/cars64/test"), 15, 5)
    views = [scenes[number].target[0] for number in range(len(scenes))]
    latents = latents_of(prior, torch.cat([view.on(1.0) for view in views]), torch.Generator().manual_seed(0))

    def loss(words: list[str]) -> float:
        text = prior.embed(words)
        with torch.no_grad():
            found = [
                prior.loss(latents, text, torch.Generator().manual_seed(seed), None)[0].mean() for seed in range(3)
            ]
        return float(torch.stack(found).mean())

    azimuth, elevation = (torch.cat(angles) for angles in zip(*(view_angles(view.cameras.centers) for view in views)))
    sides = [view_word(float(a), float(e)) for a, e in zip(azimuth, elevation)]
    turned = [{"front": "side", "back": "side"}.get(side, "front") for side in sides]
    right = loss([f"a photo of a car, {side} view" for side in sides])
    assert right < loss([f"a photo of a tree, {side} view" for side in sides])
    assert right < loss([f"a photo of a car, {side} view" for side in turned])
