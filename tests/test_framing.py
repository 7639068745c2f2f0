"""An image is framed by exact means over areas, in a small multiple of its own bytes however large it is."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vcgen.data.images import framing, photo
from vcgen.data.images.framing import RgbaImage, resample
from vcgen.data.images.photo import prepare

RED, GRAY = (200, 40, 40), (240, 240, 240)


def noise(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, channels), np.uint8)


def red_box(height: int, width: int) -> np.ndarray:
    """A red box over the middle 80 % of a gray photo."""
    pixels = np.full((height, width, 3), GRAY, np.uint8)
    pixels[height // 10 : -height // 10, width // 10 : -width // 10] = RED
    return pixels


@pytest.mark.parametrize("band", [1 << 20, 400, 1])
@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_a_new_pixel_is_the_mean_of_those_it_covers(monkeypatch, band, factor):
    monkeypatch.setattr(framing, "BAND", band)  # in one part or in many
    pixels = noise(6 * factor, 8 * factor, 4)
    alpha = pixels[..., 3:] / 255
    blocks = np.concatenate([pixels[..., :3] / 255 * alpha, alpha], -1).reshape(6, factor, 8, factor, 4).mean((1, 3))
    made = prepare(pixels, (6, 8), as_is=True)
    assert made.alpha == pytest.approx(blocks[..., 3], abs=1e-6)
    assert made.color == pytest.approx(blocks[..., :3] / blocks[..., 3:], abs=1e-4)


@pytest.mark.parametrize("pad", [False, True])
def test_beyond_the_image_all_is_clear_or_repeats_the_edge(pad):
    color = np.zeros((4, 4, 3), np.uint8)
    color[:, :2] = RED
    made = resample(RgbaImage(color, np.full((4, 4), 255, np.uint8)), (0.0, 0.0, 4.0, 4.0), (8, 16), fill=0.25, pad=pad)
    # A frame of 16 x 32 pixels, two to a new one: the image lies in rows 3 and 4, columns 7 and 8.
    inside = np.zeros((8, 16))
    inside[3:5, 7:9] = 1
    assert np.array_equal(made.alpha, np.ones((8, 16)) if pad else inside)
    assert made.color[3, 7] == pytest.approx(np.array(RED) / 255) and made.color[4, 8].max() == 0
    assert not pad or (made.color[0, 0] == pytest.approx(np.array(RED) / 255) and made.color[-1, -1].max() == 0)


def test_enlarging_interpolates():
    ramp = np.repeat(np.arange(0, 250, 50, dtype=np.uint8)[None, :, None], 5, 0).repeat(3, 2)
    made = prepare(ramp, (10, 10), as_is=True)
    assert made.color[5, :, 0] * 255 == pytest.approx([0, 12.5, 37.5, 62.5, 87.5, 112.5, 137.5, 162.5, 187.5, 200])


@pytest.mark.parametrize("kind", ["plain", "as_is", "alpha"])
def test_a_large_photo_takes_little_more_memory_than_its_bytes(kind):
    pixels = red_box(1200, 1600)
    if kind == "alpha":
        pixels = np.concatenate([pixels, np.where(pixels[..., 1:2] == RED[1], np.uint8(255), np.uint8(0))], -1)
    prepare(pixels[:32, :32], (8, 8), as_is=True)
    tracemalloc.start()
    made = prepare(pixels, (64, 64), as_is=kind == "as_is")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # parts in floats, and what marks the background; whole and padded in floats it were 280 MB
    assert made.color[32, 32] * 255 == pytest.approx(RED) and made.alpha[32, 32] == 1


def test_a_large_masked_photo_is_shrunk_before_its_rim_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(photo, "ENOUGH", 100 * 75)
    Image.fromarray(red_box(300, 400)).save(tmp_path / "photo.png")
    mask = np.zeros((300, 400), np.uint8)
    mask[27:273, 37:363] = 255  # three pixels too wide all round
    Image.fromarray(mask).save(tmp_path / "mask.png")
    made = photo.load_photo(tmp_path / "photo.png", tmp_path / "mask.png", 16)
    assert np.abs(made.color[made.alpha > 0.02] * 255 - RED).max() < 1
    assert made.alpha.sum() == pytest.approx((0.78 * 16) ** 2 * 246 / 326, rel=0.02)
    shrunk = photo.shrunk(RgbaImage(red_box(300, 400), mask), 16, "photo")
    assert shrunk.alpha.shape == (75, 100) and shrunk.alpha.sum() * 16 == pytest.approx(246 * 326)
    # its object would become too small
    assert photo.shrunk(RgbaImage(red_box(300, 400), mask), 60, "photo").alpha is mask
