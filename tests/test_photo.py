"""A user's photo: cut out, framed, without the background's color in its rim; and the data module that holds it."""

import io
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from vcgen.cameras import view_angles
from vcgen.data.datamodules.photo import PhotoData
from vcgen.data.images.framing import RgbaImage
from vcgen.data.images.photo import load_photo, without_fringe
from vcgen.errors import UserError

RED, GREEN = (200, 30, 30), (9, 200, 9)


def busy(size: tuple[int, int] = (80, 60), box: tuple[int, int, int, int] = (30, 20, 69, 39)) -> Image.Image:
    """A red box of 40 x 20 pixels on noise."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    ImageDraw.Draw(image).rectangle(box, fill=RED)
    return image


def box_mask(size: tuple[int, int] = (80, 60), box: tuple[int, int, int, int] = (30, 20, 69, 39)) -> Image.Image:
    image = Image.new("L", size)
    ImageDraw.Draw(image).rectangle(box, fill=255)
    return image


@pytest.fixture
def photo(tmp_path) -> tuple[Path, Path]:
    busy().save(tmp_path / "photo.png")
    box_mask().save(tmp_path / "mask.png")
    return tmp_path / "photo.png", tmp_path / "mask.png"


@pytest.fixture
def no_rembg(monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)


def alpha_box(alpha: np.ndarray) -> tuple[int, ...]:
    rows, columns = np.nonzero(alpha.max(1) > 0.5)[0], np.nonzero(alpha.max(0) > 0.5)[0]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def is_the_red_box(image: RgbaImage) -> bool:
    """40 x 20 pixels that fill 3/4 of 64: 48 x 24 in the middle, and red to their rim."""
    assert alpha_box(image.alpha) == (8, 20, 56, 44)
    assert image.alpha[32, 32] == 1 and image.alpha[10, 10] == 0
    return np.abs(image.color[image.alpha > 0.02] * 255 - RED).max() < 3


def test_a_mask_cuts_the_object_out_of_any_background(photo):
    assert is_the_red_box(load_photo(*photo, size=64, fill=0.75))


def test_the_mask_may_lie_in_an_alpha_channel(photo, tmp_path):
    mask = Image.new("RGBA", (80, 60), (5, 5, 5, 255))
    mask.putalpha(box_mask())
    mask.save(tmp_path / "rgba.png")
    assert is_the_red_box(load_photo(photo[0], tmp_path / "rgba.png", 64, 0.75))


def test_alpha_and_plain_backgrounds_need_no_mask(tmp_path, no_rembg):
    cut = busy().convert("RGBA")
    cut.putalpha(box_mask())
    cut.save(tmp_path / "cut.png")
    plain = Image.new("RGB", (80, 60), (60, 90, 120))
    plain.paste(RED, (30, 20, 70, 40))
    plain.save(tmp_path / "plain.png")
    assert all(is_the_red_box(load_photo(tmp_path / name, None, 64, 0.75)) for name in ("cut.png", "plain.png"))


def test_rembg_is_asked_where_it_is_installed(photo, monkeypatch):
    asked = []

    def remove(image, only_mask):
        asked.append((image.size, only_mask))
        return box_mask()

    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(remove=remove))
    assert is_the_red_box(load_photo(photo[0], None, 64, 0.75))
    assert asked == [((80, 60), True)]


def test_a_border_of_one_color_needs_no_rembg(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(remove=None))
    red = Image.new("RGB", (80, 60), (60, 90, 120))
    red.paste(RED, (30, 20, 70, 40))
    red.save(tmp_path / "plain.png")
    assert is_the_red_box(load_photo(tmp_path / "plain.png", None, 64, 0.75))


def test_a_mask_that_does_not_tell_is_refused(photo, tmp_path):
    """The same rules as for the masks of a transforms file."""
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.open(photo[0]).save(tmp_path / "turned.jpg", exif=exif)
    cut = Image.open(photo[0]).convert("RGBA")
    cut.putalpha(box_mask())
    cut.save(tmp_path / "cut.png")
    Image.fromarray(np.asarray(box_mask()) // 255).save(tmp_path / "labels.png")
    Image.open(photo[0]).save(tmp_path / "colors.png")
    for image, mask, words in [
        ("turned.jpg", "mask.png", "which way the mask lies is not told"),
        ("cut.png", "mask.png", "keep one of them"),
        ("photo.png", "labels.png", "brightest value is 1 of 255"),
        ("photo.png", "colors.png", "has colors"),
    ]:
        with pytest.raises(UserError, match=words):
            load_photo(tmp_path / image, tmp_path / mask, 32)


def test_a_folder_stands_for_the_one_image_in_it(tmp_path):
    (tmp_path / "one").mkdir()
    box_mask().save(tmp_path / "one" / "box.png")
    (tmp_path / "one" / "._box.png").touch()
    (tmp_path / "one" / "notes.txt").touch()
    data = PhotoData([tmp_path / "one"], tmp_path / "one")
    assert data.images == data.masks == [tmp_path / "one" / "box.png"] and PhotoData(tmp_path / "one").masks == [None]
    box_mask().save(tmp_path / "one" / "other.JPG")
    with pytest.raises(UserError, match=r"one is a folder with 2 images \(box.png, other.JPG\); name the image"):
        PhotoData(tmp_path / "one")
    with pytest.raises(UserError, match=r"is a folder with 0 images \(one\)"):
        PhotoData(tmp_path)


def test_a_loose_mask_leaves_no_background_in_the_rim(tmp_path):
    canvas = Image.new("RGB", (80, 60), GREEN)
    canvas.paste(RED, (30, 20, 70, 40))
    mask = box_mask(box=(29, 19, 70, 40))  # a pixel too large all round
    image = without_fringe(RgbaImage(np.asarray(canvas, np.float32) / 255, np.asarray(mask, np.float32) / 255))
    assert np.abs(image.color[image.alpha == 1] * 255 - RED).max() < 1
    whole = RgbaImage(np.asarray(canvas, np.float32) / 255, np.ones((60, 80), np.float32))
    assert without_fringe(whole) is whole


@pytest.mark.parametrize("size", [(80, 40), (40, 80), (31, 97)])
def test_nothing_is_squashed(tmp_path, size):
    image = Image.new("RGB", size, (255, 255, 255))
    ImageDraw.Draw(image).ellipse((10, 10, 29, 29), fill=RED)
    image.save(tmp_path / "disc.png")
    left, top, right, bottom = alpha_box(load_photo(tmp_path / "disc.png", None, 100).alpha)
    assert (
        right - left == bottom - top == pytest.approx(78, abs=1)
        and abs(left + right - 100) <= 1
        and abs(top + bottom - 100) <= 1
    )


def test_photo_and_mask_turn_as_the_camera_noted(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the image is on the right side: turn clockwise
    for source, name in zip(photo, ("a.jpg", "b.jpg")):
        Image.open(source).save(tmp_path / name, exif=exif, quality=95)
    assert alpha_box(load_photo(tmp_path / "a.jpg", tmp_path / "b.jpg", 64, 0.75).alpha) == (20, 8, 44, 56)


@pytest.mark.parametrize(
    ("orientation", "lies"), [(6, "stored"), (6, "upright"), (8, "stored"), (5, "stored"), (7, "upright")]
)
def test_a_mask_without_orientation_lies_as_its_shape_says(photo, tmp_path, orientation, lies):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for source in photo:
        with Image.open(source) as image:
            image.copy().save(source, exif=exif)
    wanted = load_photo(*photo, 64, 0.75)
    with Image.open(photo[1]) as image:
        (ImageOps.exif_transpose(image) if lies == "upright" else image.copy()).save(
            tmp_path / "bare.png", exif=Image.Exif()
        )
    found = load_photo(photo[0], tmp_path / "bare.png", 64, 0.75)
    assert np.array_equal(found.alpha, wanted.alpha) and np.array_equal(found.color, wanted.color)


@pytest.mark.parametrize(("orientation", "size"), [(6, (60, 60)), (3, (80, 60)), (2, (80, 60))])
def test_a_mask_that_may_lie_in_two_ways_is_refused(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    busy(size).save(tmp_path / "photo.jpg", exif=exif)
    box_mask(size).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="which way the mask lies is not told"):
        load_photo(tmp_path / "photo.jpg", tmp_path / "mask.png", 64)


def test_what_is_no_photo_of_an_object_is_refused_in_one_line(photo, tmp_path, no_rembg):
    Image.new("L", (80, 60)).save(tmp_path / "empty.png")
    Image.new("L", (60, 80), 255).save(tmp_path / "turned.png")
    Image.new("I;16", (80, 60)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(photo[0].read_bytes()[:200])
    cases = {
        "empty": (photo[0], "empty.png", "marks no object"),
        "turned": (photo[0], "turned.png", "60 x 80 pixels, .*80 x 60 .width x height"),
        "deep": (photo[0], "deep.png", "more than 8 bits"),
        "absent mask": (photo[0], "none.png", "none.png is missing"),
        "busy": (photo[0], None, r"vcgen\[cutout\]"),
        "absent": (tmp_path / "none.jpg", None, "none.jpg is missing"),
        "text": (tmp_path / "text.png", None, "cannot be read"),
        "cut": (tmp_path / "cut.png", None, "cannot be read"),
    }
    for image, mask, message in cases.values():
        with pytest.raises(UserError, match=message) as error:
            load_photo(image, mask and tmp_path / mask, 32)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="fill"):
        load_photo(*photo, 32, fill=0)
    with pytest.raises(UserError, match=r"data.size must lie between 8 and 4096"):
        load_photo(*photo, 4)


def prepared(photo: tuple[Path, Path], **options) -> PhotoData:
    data = PhotoData(photo[0], photo[1], size=32, **options)
    data.setup("validate")
    return data


def test_the_object_is_seen_from_the_front_at_the_elevation_given(photo):
    data = prepared(photo, elevation=20.0, fov=50.0, distance=2.0)
    camera = data.example.context.cameras[0, 0]
    assert camera.centers.tolist() == pytest.approx(
        [0, -2 * math.cos(math.radians(20)), 2 * math.sin(math.radians(20))], abs=1e-5
    )
    azimuth, elevation = view_angles(camera.centers)
    assert (math.cos(math.radians(float(azimuth))), float(elevation)) == pytest.approx((1, 20), abs=1e-4)
    assert data.input_camera().focal == pytest.approx(0.5 / math.tan(math.radians(25)))
    assert data.image_size == data.example.context.size == (32, 32)


def test_the_corner_rays_meet_the_space_between_near_and_far(photo):
    data = prepared(photo)
    camera = data.example.context.cameras[0, 0]
    rays = camera.rays_at(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]]))
    nearest = (rays.origins - (rays.origins * rays.directions).sum(-1, keepdim=True) * rays.directions).norm(dim=-1)
    radius = (float(camera.far) - float(camera.near)) / 2
    assert float(nearest.max()) < radius and float(nearest[2]) < 1e-5
    # the object's right end
    top = torch.tensor([[[0.0, 0.0, 0.0]]]) + data.object_radius * torch.tensor([1.0, 0.0, 0.0])
    assert camera.project(top[0])[0][0, 0].item() == pytest.approx(0.5 + 0.78 / 2, abs=1e-6)


def test_training_never_ends_and_validation_is_one_pass(photo):
    data = prepared(photo)
    stream = iter(data.train_dataloader())
    first, second = next(stream), next(stream)
    assert first.keys == ("photo",) and torch.equal(first.context.images, second.context.images)
    assert len(data.train_dataloader()) > 10**9 and len(list(data.val_dataloader())) == 1
    assert torch.equal(first.to(torch.float64).context.alpha.float(), first.context.alpha) and first.weight == 1


def test_several_photos_are_one_scene(photo):
    data = PhotoData([photo[0], photo[0]], [photo[1], photo[1]], size=16)
    data.setup("validate")
    assert data.example.context.images.shape == (1, 2, 3, 16, 16) and data.example.context.alpha.shape == (
        1,
        2,
        1,
        16,
        16,
    )
    assert data.example.context.cameras.shape == (1, 2)


def test_the_reference_camera_is_drawn_into_the_runs_folder(photo, tmp_path):
    data = PhotoData(*photo, size=64)
    data.trainer = SimpleNamespace(is_global_zero=True, fast_dev_run=False, default_root_dir=str(tmp_path / "run"))
    data.setup("fit")
    sheet = np.asarray(Image.open(io.BytesIO((tmp_path / "run" / "photo.png").read_bytes())))
    height, width, _ = sheet.shape
    assert width == 3 * height and np.abs(sheet[height // 2, height // 2].astype(int) - RED).max() < 3
    circles = (sheet == (0, 110, 220)).all(-1)
    assert not circles[:, :height].any() and circles[:, height : 2 * height].any() and circles[:, 2 * height :].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elevation": 90.0}, "elevation"),
        ({"fov": 0.5}, "fov"),
        ({"distance": 0.0}, "distance"),
        ({"mask": ["a", "b"]}, "names 1 photos"),
    ],
)
def test_impossible_cameras_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        PhotoData(Path("a.png"), **options)
