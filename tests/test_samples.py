"""What training leaves in TensorBoard, read back with TensorBoard's own reader."""

import io
from math import log10

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training import CONFIG, vcgen
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.systems.nerfdiff import NerfDiff

FRAMES = 3


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """The log of four steps with validation after every second, a turntable at every other validation."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(CONFIG)
    assert vcgen("fit", folder / "tiny.yaml", folder, samples__turntable=FRAMES, samples__every=2) == 0
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def test_losses_psnr_and_learning_rate_are_logged_at_every_step(events):
    for name in ("train/loss", "train/rgb", "train/psnr", "lr-AdamW"):
        assert [event.step for event in events.Scalars(name)] == [0, 1, 2, 3], name


def test_training_psnr_is_that_of_the_logged_loss(events):
    for loss, psnr in zip(events.Scalars("train/rgb"), events.Scalars("train/psnr")):
        assert psnr.value == pytest.approx(-10 * log10(loss.value), abs=1e-4)


def test_validation_psnr_is_logged_at_every_validation(events):
    assert len(events.Scalars("val/psnr")) == 2


def test_the_sheet_shows_four_images_of_every_scene(events):
    sheets = events.Images("val/input_target_rendering_depth")
    assert [sheet.step for sheet in sheets] == [2, 4]
    image = Image.open(io.BytesIO(sheets[0].encoded_image_string))
    assert image.width >= 4 * 64 and image.height >= 2 * 64


@pytest.mark.integration
def test_beside_rendering_and_truth_the_sheet_shows_what_the_prior_draws(tmp_path, monkeypatch):
    config = yaml.safe_load(CONFIG)
    config["model"]["init_args"]["prior"] = {
        "class_path": "vcgen.diffusion.prior.ViewPrior",
        "init_args": {"channels": [16, 32], "attention": [False, True]},
    }
    (tmp_path / "prior.yaml").write_text(yaml.safe_dump(config))
    drawn, sample = [], NerfDiff.sample
    monkeypatch.setattr(
        NerfDiff, "sample", lambda *given, **named: (drawn.append(sample(*given, **named, steps=2)), drawn[-1])[1]
    )
    assert vcgen("fit", tmp_path / "prior.yaml", tmp_path, trainer__max_steps=2) == 0
    accumulator = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    accumulator.Reload()
    (sheet,) = accumulator.Images("val/input_target_rendering_depth_sample")
    pixels = np.asarray(Image.open(io.BytesIO(sheet.encoded_image_string)).convert("RGB")).astype(int)
    # two scenes, five images each, two white pixels between
    assert len(drawn) == 2 and pixels.shape == (2 * 64 + 2, 5 * 64 + 4 * 2, 3)
    scenes = FixedScenes(read_index("data/cars64/test"), 2, 1)
    for row, image in enumerate(drawn):
        shown = [pixels[66 * row : 66 * row + 64, 66 * column : 66 * column + 64] for column in range(5)]
        expected = {0: scenes[row].context.on(1.0)[0, 0], 1: scenes[row].target.on(1.0)[0, 0], 4: image[0, 0]}
        for column, colors in expected.items():
            assert abs(shown[column] - 255 * colors.float().permute(1, 2, 0).numpy()).max() <= 1, (row, column)
        assert abs(shown[4] - shown[2]).mean() > 5  # not the rendering


def test_the_turntable_is_an_animation_of_so_many_frames_at_every_second_validation(events):
    turntables = events.Images("val/turntable")
    assert [turntable.step for turntable in turntables] == [2]
    animation = Image.open(io.BytesIO(turntables[0].encoded_image_string))
    assert animation.format == "GIF" and animation.n_frames == FRAMES and animation.size == (64, 64)
    assert (turntables[0].width, turntables[0].height) == (64, 64)
