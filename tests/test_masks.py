"""Masks of a transforms file become coverage."""

import json

import numpy as np
import pytest
from PIL import Image

from packing_command import Packing
from scenes import looking_inwards, noise, posed_frames, write_transforms
from vcgen.data.shards.record import decode_views

C2W = looking_inwards(3, distance=4)


def disc(number: int, height: int = 8, width: int = 6) -> np.ndarray:
    """(height, width) bool, not the same for neighbors."""
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(rows - 3 - number % 2, columns - 2) < 2.2


def capture(folder, mask=disc, channels: int = 3, **top):
    """Three images with a mask each; mask: number -> pixels, bool or uint8."""
    frames = [{**frame, "mask_path": f"masks/r_{i}.png"} for i, frame in enumerate(posed_frames(C2W))]
    write_transforms(folder, frames, channels=channels, camera_angle_x=0.8, **top)
    (folder / "masks").mkdir()
    for i in range(3):
        pixels = mask(i)
        Image.fromarray(pixels * np.uint8(255) if pixels.dtype == bool else pixels).save(
            folder / "masks" / f"r_{i}.png"
        )
    return folder


PACKING = Packing("transforms", "--near", "2", "--far", "6")
packed, refused = PACKING.packed, PACKING.refused


def edit(folder, change) -> None:
    content = json.loads((folder / "transforms.json").read_text())
    change(content["frames"])
    (folder / "transforms.json").write_text(json.dumps(content))


KINDS = {
    "gray": disc,
    "color": lambda i: np.repeat(disc(i)[..., None], 3, 2),
    "alpha": lambda i: np.concatenate([noise(i, channels=3), disc(i)[..., None] * np.uint8(255)], -1),
    "opaque alpha": lambda i: np.concatenate(
        [np.repeat(disc(i)[..., None], 3, 2) * np.uint8(255), np.full((8, 6, 1), 255, np.uint8)], -1
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_is_where_the_mask_is_white_or_opaque(tmp_path, kind):
    record = packed(capture(tmp_path / "in", KINDS[kind]), tmp_path / "out")
    rgb, alpha = decode_views(record, range(3))
    assert record.background == "alpha" and np.array_equal(alpha[:, 0], [disc(i) for i in range(3)])
    assert np.array_equal(np.round(rgb[1] * 255).transpose(1, 2, 0), noise(1, channels=3))


def test_masks_of_several_gray_levels_and_of_two_are_coverage(tmp_path):
    def soft(number: int) -> np.ndarray:
        return np.where(disc(number), 255, 90).astype(np.uint8)

    folder = capture(tmp_path / "in", soft)
    Image.fromarray(disc(0)).convert("1").save(folder / "masks" / "r_0.png")
    _, alpha = decode_views(packed(folder, tmp_path / "out"), range(3))
    assert np.array_equal(alpha[0, 0], disc(0)) and np.array_equal(np.round(alpha[1, 0] * 255), soft(1))


def test_an_image_in_which_the_object_is_not_seen_may_have_an_empty_mask(tmp_path):
    record = packed(capture(tmp_path / "in", lambda i: disc(i) & (i > 0)), tmp_path / "out")
    assert decode_views(record, [0])[1].max() == 0


def test_masks_that_are_white_throughout_say_nothing(tmp_path):
    folder = capture(tmp_path / "in", lambda i: np.ones((8, 6), bool))
    assert packed(folder, tmp_path / "out", "--background", "black").background == "black"


def test_masks_are_shrunk_and_undistorted_with_their_images(tmp_path):
    """Where the image shows its own mask, both stay alike whatever is done to them."""
    folder = capture(tmp_path / "in", k1=-0.2)
    for i in range(3):
        big = np.kron(disc(i), np.ones((8, 8))).astype(bool)
        Image.fromarray(np.repeat(big[..., None], 3, 2) * np.uint8(255)).save(folder / "images" / f"r_{i}.png")
        Image.fromarray(big).save(folder / "masks" / f"r_{i}.png")
    rgb, alpha = decode_views(packed(folder, tmp_path / "out", "--size", "16x12"), range(3))
    assert 0.1 < alpha.mean() < 0.9 and np.all(rgb[:, 0][alpha[:, 0] > 0.1] > 0.98)  # what is covered is white


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("some", ["2 of 3 frames have a mask_path", "images/r_1.png has none"]),
        ("null", ["2 of 3 frames"]),
        ("missing", ["1 of 3 masks are missing: masks/none.png"]),
        ("size", ["the mask has 3 x 4 pixels", "6 x 8 (width x height"]),
        ("labels", ["brightest value is 1 of 255"]),
        ("colors", ["has colors"]),
        ("empty", ["mark no object"]),
        ("deep", ["more than 8 bits"]),
        ("transparent", ["r_0.png has transparency", "keep one"]),
        ("number", ["masks are missing"]),
    ],
)
def test_masks_that_do_not_tell_are_refused(tmp_path, capsys, name, words):
    masks = {
        "labels": lambda i: disc(i).astype(np.uint8),
        "empty": lambda i: np.zeros((8, 6), bool),
        "colors": lambda i: disc(i)[..., None] * np.array([255, 255, 0], np.uint8),
        "deep": lambda i: disc(i).astype(np.uint16) * 65535,
    }
    folder = capture(tmp_path / "in", masks.get(name, disc), channels=4 if name == "transparent" else 3)
    if name == "size":
        Image.fromarray(disc(0, 4, 3)).save(folder / "masks" / "r_2.png")
    paths = {"missing": "masks/none.png", "null": None, "number": 5}
    if name in paths:
        edit(folder, lambda frames: frames[1].update(mask_path=paths[name]))
    if name == "some":
        edit(folder, lambda frames: frames[1].pop("mask_path"))
    line = refused(capsys, folder, tmp_path / "out")
    assert all(word in line for word in words)


def tag(path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.copy().save(path, exif=exif)


@pytest.mark.parametrize("masks", ["as stored", "tagged", "upright"])
def test_masks_of_photographs_with_an_orientation_lie_as_they_fit(tmp_path, masks):
    folder = capture(tmp_path / "in", lambda i: np.rot90(disc(i), -1) if masks == "upright" else disc(i))
    for i in range(3):
        tag(folder / "images" / f"r_{i}.png", 6)
        if masks == "tagged":
            tag(folder / "masks" / f"r_{i}.png", 6)
    rgb, alpha = decode_views(packed(folder, tmp_path / "out"), [1])
    assert np.array_equal(alpha[0, 0], np.rot90(disc(1), -1))
    assert np.array_equal(np.round(rgb[0] * 255).transpose(1, 2, 0), np.rot90(noise(1, channels=3), -1))


@pytest.mark.parametrize(("orientation", "size"), [(3, (8, 6)), (6, (8, 8))])
def test_a_mask_of_which_the_shape_does_not_tell_how_it_lies_is_refused(tmp_path, capsys, orientation, size):
    folder = capture(tmp_path / "in", lambda i: disc(i, *size))
    for i in range(3):
        Image.fromarray(noise(i, *size, 3)).save(folder / "images" / f"r_{i}.png")
        tag(folder / "images" / f"r_{i}.png", orientation)
    assert "save both upright" in refused(capsys, folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("opaque", "words"),
    [
        ([2], ["2 images have transparency, 1 have no alpha channel (images/r_2 is the first without)"]),
        ([0, 2], ["1 images have transparency, 2 have no alpha channel (images/r_1 is the first with transparency)"]),
    ],
)
def test_of_images_with_and_without_alpha_the_few_are_named(tmp_path, capsys, opaque, words):
    write_transforms(tmp_path / "in", posed_frames(C2W), channels=4, camera_angle_x=0.8)
    for i in opaque:
        Image.fromarray(noise(i, channels=3)).save(tmp_path / "in" / "images" / f"r_{i}.png")
    line = refused(capsys, tmp_path / "in", tmp_path / "out")
    assert all(word in line for word in words)
