"""Image files of anybody: only known formats, within bounds, or one line; nothing is run, and no memory is taken
first.
"""

import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from scenes import noise, png
from training import refusal
from vcgen.cli import main as cli
from vcgen.data.images.reading import FORMATS, MAX_BYTES, decode_png, image_to_array, read_header, read_image
from vcgen.errors import UserError

RED, BLUE = (200, 30, 30), (30, 30, 200)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *more: bytes, depth: int = 8, color: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG file whose header says this size; its pixels may be missing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def tiff_of(width: int, height: int) -> bytes:
    """A TIFF file of gray whose header says this size, without pixels."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def said(path: Path) -> str:
    """The line that refuses an image; a second one, or a warning, is none."""
    with warnings.catch_warnings(), pytest.raises(UserError) as error:
        warnings.simplefilter("error")
        read_image(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value) and str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.eps", "photo"])
def test_postscript_reaches_no_program(tmp_path, monkeypatch, name):
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / name).write_bytes(POSTSCRIPT)
    assert "none of PNG, JPEG, WEBP, BMP, TIFF, GIF, PPM" in said(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(OSError):  # that it would be run, were it Pillow's choice
        Image.open(tmp_path / name).load()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_told_by_its_content(tmp_path, kind):
    image = Image.new("RGB", (5, 3), RED)
    image.save(tmp_path / "image.dat", kind)
    pixels = read_image(tmp_path / "image.dat")
    assert pixels.shape == (3, 5, 3) and pixels.dtype == np.uint8 and np.abs(pixels.astype(int) - RED).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, kind):
    frames = [Image.new("RGB", (5, 3), color) for color in (RED, BLUE)]
    frames[0].save(tmp_path / "animation", kind, save_all=True, append_images=frames[1:])
    assert np.abs(read_image(tmp_path / "animation").astype(int) - RED).max() <= 4


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("PNG", png_of(13300, 13300)),
        ("PNG", png_of(9700, 10400)),  # where Pillow only warns
        ("PNG", png_of(2**31 - 1, 2**31 - 1)),
        ("PPM", b"P6 60000 60000 255\n"),
        (
            "GIF",
            b"GIF89a"
            + struct.pack("<HH", 65535, 65535)
            + b"\0\0\0,\0\0\0\0"
            + struct.pack("<HH", 65535, 65535)
            + b"\0\2\0;",
        ),
        ("TIFF", tiff_of(50000, 50000)),
        ("WEBP", b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff\x3f\0\xff\x3f\0"),
        ("BMP", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 40000, 40000, 1, 24, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_a_bomb_is_refused_before_memory_is_taken(tmp_path, monkeypatch, kind, content):
    (tmp_path / "bomb.png").write_bytes(content)
    asked = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: asked.append(image.size))
    line = said(tmp_path / "bomb.png")
    assert ("million" in line or "exceeds limit" in line) and asked == []


def test_a_bomb_ends_the_command_in_one_line(tmp_path, capsys):
    (tmp_path / "bomb.png").write_bytes(png_of(13300, 13300))
    model = Path(__file__).parents[1] / "data" / "pretrained" / "cars64"
    status = cli.main(
        ["render", "--model", str(model), "--image", str(tmp_path / "bomb.png"), "--out", str(tmp_path / "out")]
    )
    assert "13300 x 13300 pixels" in refusal(capsys, status)


BOMB = zlib.compress(bytes(80 << 20))


@pytest.mark.parametrize(
    "part",
    [
        chunk(b"zTXt", b"note\0\0" + BOMB),
        chunk(b"iTXt", b"note\0\1\0\0\0" + BOMB),
        chunk(b"iCCP", b"profile\0\0" + BOMB),
        chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(20)),
        chunk(b"iCCP", b"\xff" * 50),
        chunk(b"acTL", bytes(8)),
        chunk(b"tRNS", b"\0"),
        chunk(b"pHYs", b""),
        chunk(b"gAMA", b""),
        chunk(b"iTXt", b"\xff\0\1\0\0\0nothing"),
        chunk(b"cHRM", b"\0"),
        chunk(b"IHDR", b"\0\1"),
    ],
)
def test_odd_parts_of_a_png_end_in_pixels_or_in_one_line(tmp_path, part):
    (tmp_path / "odd.png").write_bytes(png_of(2, 2, part, pixels=bytes(14)))
    tracemalloc.start()
    try:
        assert not read_image(tmp_path / "odd.png", upright=True).any()
    except UserError as error:
        assert "\n" not in str(error) and str(error).endswith("give a PNG or JPEG file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_anywhere_or_with_changed_bytes_is_pixels_or_one_line(tmp_path, kind):
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random.integers(0, 255, (9, 7, 3), np.uint8)).save(tmp_path / "whole", kind, exif=exif)
    whole = (tmp_path / "whole").read_bytes()
    for _ in range(60):
        damaged = bytearray(whole[: random.integers(len(whole))] if random.random() < 0.3 else whole)
        for position in random.integers(0, max(len(damaged), 1), 3 if damaged else 0):
            damaged[position] = random.integers(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            assert read_image(tmp_path / "damaged", upright=True).ndim == 3
        except UserError as error:
            assert "\n" not in str(error)


def test_a_damaged_tiff_is_one_line_though_its_library_prints(tmp_path, capfd):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(
        tmp_path / "a.tif", compression="tiff_deflate"
    )
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[8:200] = bytes(192)
    (tmp_path / "a.tif").write_bytes(data)
    said(tmp_path / "a.tif")
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_what_is_no_file_of_bounded_size_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with open(tmp_path / "long.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "not a regular file" in said(tmp_path / "pipe.png")
    assert "longer than 500 MB" in said(tmp_path / "long.png")
    assert "is missing" in said(tmp_path / "none.png") and "cannot be read" in said(tmp_path)
    Image.new("I;16", (8, 6)).save(tmp_path / "deep.png")
    assert "more than 8 bits" in said(tmp_path / "deep.png")


def test_messages_hold_no_control_characters(tmp_path):
    path = tmp_path / "\x1b[31mred\n.png"
    path.write_bytes(b"text")
    with pytest.raises(UserError) as error:
        read_image(path)
    assert str(error.value).isprintable() and r"\x1b[31mred\n.png" in str(error.value)


@pytest.mark.parametrize("orientation", range(10))
def test_images_are_turned_as_the_camera_noted(orientation):
    """Against the numbers' meaning: which side of the image holds its first row, and which its first column."""
    sides = {
        1: "top left",
        2: "top right",
        3: "bottom right",
        4: "bottom left",
        5: "left top",
        6: "right top",
        7: "right bottom",
        8: "left bottom",
    }
    corner = sides.get(orientation, "top left").split()  # an unknown number turns nothing
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 1] = RED  # on the first row, next to the first column
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    turned = image_to_array(image, "image", upright=True)
    rows = {"top": 0, "bottom": turned.shape[0] - 1}
    columns = {"left": 0, "right": turned.shape[1] - 1}
    swapped = corner[0] in columns
    row, column = (rows[corner[1]], columns[corner[0]]) if swapped else (rows[corner[0]], columns[corner[1]])
    inward = 1 if corner[1] in ("left", "top") else -1
    row, column = (row + inward, column) if swapped else (row, column + inward)
    assert turned.shape[:2] == ((6, 4) if swapped else (4, 6)) and tuple(turned[row, column]) == RED


@pytest.mark.parametrize("transparency", ["palette", "color", "alpha"])
def test_any_transparency_becomes_alpha(tmp_path, transparency):
    image = Image.new("RGBA", (4, 2), (*RED, 255))
    image.putpixel((3, 1), (0, 0, 0, 0))
    if transparency == "palette":
        image = image.convert("RGB").quantize(2)
        image.info["transparency"] = image.getpixel((3, 1))
    if transparency == "color":
        image = image.convert("RGB")
        image.info["transparency"] = (0, 0, 0)
    image.save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png")[..., 3].tolist() == [[255] * 4, [255, 255, 255, 0]]


def test_a_stored_png_has_the_shape_of_its_header():
    second = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 3, 8, 2, 0, 0, 0))
    rows = bytes(7) * 2
    assert decode_png(png_of(2, 2, pixels=rows), (2, 2, 3), "view").tolist() == [[[0, 0, 0]] * 2] * 2
    for data in (png_of(2, 2, second, pixels=bytes(30)), png_of(2, 2, chunk(b"tRNS", bytes(6)), pixels=rows)):
        with pytest.raises(UserError, match="view: the PNG decodes to the shape"):
            decode_png(data, (2, 2, 3), "view")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 5])
def test_files_of_all_formats_are_turned_once_and_their_headers_tell_the_upright_size(tmp_path, kind, orientation):
    exif, pixels = Image.Exif(), np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "image", kind, exif=exif)
    wanted = {
        1: pixels,
        3: np.rot90(pixels, 2),
        6: np.rot90(pixels, -1),
        8: np.rot90(pixels),
        5: pixels.swapaxes(0, 1),
    }[orientation]
    assert np.abs(read_image(tmp_path / "image", upright=True).astype(int) - wanted).max() < 30
    assert read_header(tmp_path / "image") == (wanted.shape[:2], orientation)


def test_an_orientation_that_cannot_be_read_is_none(tmp_path):
    Image.new("RGB", (6, 4), RED).save(tmp_path / "image.png", exif=b"Exif\0\0no such thing")
    assert read_header(tmp_path / "image.png") == ((4, 6), 1)
    assert read_image(tmp_path / "image.png", upright=True).shape == (4, 6, 3)


def test_every_flipped_bit_of_a_png_is_found_and_what_follows_its_end_is_not_looked_at(tmp_path):
    """Pillow alone takes many of them for other colors."""
    data = png(noise(0, channels=3))
    (tmp_path / "a.png").write_bytes(data + b"more")
    assert np.array_equal(read_image(tmp_path / "a.png"), noise(0, channels=3))
    for place in range(len(data)):
        (tmp_path / "b.png").write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        with pytest.raises(UserError, match="cannot be read as an image"):
            read_image(tmp_path / "b.png")
