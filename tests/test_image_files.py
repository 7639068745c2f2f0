"""Animations, sheets and colored depth, decoded by other programs."""

import io

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from vcgen.io import replacing
from vcgen.visualization.images import contact_sheet, gif_bytes, write_gif, write_mp4, write_png

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 64, 200)]


def plain_frames(height=32, width=48):
    return np.stack([np.full((height, width, 3), color, np.uint8) for color in COLORS])


def decode_mp4(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_gif_keeps_frames_colors_and_speed():
    with Image.open(io.BytesIO(gif_bytes(plain_frames(), fps=20))) as image:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
        assert image.info["duration"] == 50 and image.info["loop"] == 0
    np.testing.assert_array_equal(np.stack(frames), plain_frames())


def test_gif_colors_of_a_gradient_are_close():
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frame = np.stack(
        [np.broadcast_to(ramp, (64, 64)), np.broadcast_to(ramp[:, None], (64, 64)), np.full((64, 64), 90, np.uint8)], -1
    )
    with Image.open(io.BytesIO(gif_bytes(frame[None]))) as image:
        assert np.abs(np.asarray(image.convert("RGB"), int) - frame).mean() < 8


def test_write_gif_writes_the_bytes(tmp_path):
    assert write_gif(tmp_path / "new" / "turn.gif", plain_frames(), 10).read_bytes() == gif_bytes(plain_frames(), 10)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (64, 64)])
def test_mp4_keeps_frames_and_colors(tmp_path, size):
    meta, frames = decode_mp4(write_mp4(tmp_path / "turn.mp4", plain_frames(*size), fps=5))
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p") and meta["fps"] == 5
    assert frames.shape == (len(COLORS), size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(frames.astype(int) - np.array(COLORS)[:, None, None]).max() <= 6


def test_odd_sizes_are_padded_by_repetition_not_stretched(tmp_path):
    frames = np.full((3, 16, 17, 3), 255, np.uint8)
    frames[:, :, 8:] = 0
    _, decoded = decode_mp4(write_mp4(tmp_path / "turn.mp4", frames))
    assert decoded[1, 8, 4:7].min() > 235 and decoded[1, 8, 10:].max() < 20


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_wrong_frames_are_refused(frames):
    with pytest.raises(ValueError, match="uint8"):
        gif_bytes(frames)


def test_contact_sheet_places_images_row_by_row():
    sheet = contact_sheet(plain_frames(4, 6), columns=3, gap=2)
    assert sheet.shape == (2 * 4 + 2, 3 * 6 + 2 * 2, 3)
    assert sheet[0, 8].tolist() == list(COLORS[1]) and sheet[6, 0].tolist() == list(COLORS[3])
    assert sheet[4:6].min() == 255 and sheet[6:, 16:].min() == 255


def test_sixteen_bit_images_survive(tmp_path):
    values = np.array([[0, 1, 40000, 65535]], np.uint16)
    with Image.open(write_png(tmp_path / "depth.png", values)) as image:
        np.testing.assert_array_equal(np.asarray(image), values)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
