"""What training leaves in TensorBoard, read back with TensorBoard's own reader."""

import io
from math import log10

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import CONFIG, vcgen

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


def test_the_sheet_shows_four_pictures_of_every_scene(events):
    sheets = events.Images("val/input_target_rendering_depth")
    assert [sheet.step for sheet in sheets] == [2, 4]
    picture = Image.open(io.BytesIO(sheets[0].encoded_image_string))
    assert picture.width >= 4 * 64 and picture.height >= 2 * 64


def test_the_turntable_is_an_animation_of_so_many_frames_at_every_second_validation(events):
    turntables = events.Images("val/turntable")
    assert [turntable.step for turntable in turntables] == [2]
    animation = Image.open(io.BytesIO(turntables[0].encoded_image_string))
    assert animation.format == "GIF" and animation.n_frames == FRAMES and animation.size == (64, 64)
    assert (turntables[0].width, turntables[0].height) == (64, 64)
