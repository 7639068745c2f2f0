"""``vcgen render`` from an image on disk to everything it writes, with a model whose renderings are known."""

import json
import math
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageDraw

from ball_model import CONFIG, QUICK, SIZE, alpha_box, read, red_box
from stand_in import BallSystem
from vcgen.cameras import orbit, pinhole, view_angles
from vcgen.checkpoints import model_folder as folder
from vcgen.cli import main as cli, render_outputs
from vcgen.cli.render import main
from vcgen.cli.usage import plain_words
from vcgen.data.images.photo import prepare
from vcgen.data.input_camera import InputCamera
from vcgen.errors import UserError
from vcgen.types import Views


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The model folder of a ball of radius 0.3 that shows its normals."""
    return folder.save(tmp_path_factory.mktemp("models") / "ball", BallSystem(size=0.3).state_dict(), CONFIG)


@pytest.fixture
def photo(tmp_path):
    """A red box on nothing."""
    return red_box(tmp_path / "box.png")


@pytest.fixture(scope="session")
def rendered(model, tmp_path_factory):
    """Everything the command writes with its own defaults but for a few numbers."""
    base = tmp_path_factory.mktemp("all")
    main(
        [
            "--model",
            str(model),
            "--image",
            str(red_box(base / "box.png")),
            "--out",
            str(base / "out"),
            "--views",
            "4",
            "--elevation",
            "0",
            "--size",
            "48",
            "--turntable-frames",
            "6",
            "--mesh-resolution",
            "48",
            "--device",
            "cpu",
        ]
    )
    return base / "out"


def test_it_writes_what_its_help_promises(rendered):
    names = sorted(str(path.relative_to(rendered)) for path in rendered.rglob("*") if path.is_file())
    views = [f"{index:03d}_azimuth_{90 * index:03d}.png" for index in range(4)]
    expected = "contact_sheet.png input.png mesh.glb render.json turntable.gif turntable.mp4 views/cameras.json".split()
    assert names == sorted(
        expected + [f"{kind}/{name}" for kind in ("views", "depth", "depth_color") for name in views]
    )


def test_views_show_the_side_that_their_name_says(rendered):
    # The ball shows (1 + normal) / 2; from azimuth a at elevation 0 its middle has the normal (sin a, -cos a, 0).
    for index, (x, y) in enumerate([(0, -1), (1, 0), (0, 1), (-1, 0)]):
        view = read(rendered / "views" / f"{index:03d}_azimuth_{90 * index:03d}.png")
        assert view.shape == (48, 48, 3) and view[0, 0].tolist() == [255] * 3
        assert np.abs(view[23:25, 23:25].mean((0, 1)) - 127.5 * np.array([1 + x, 1 + y, 1])).max() < 8


def test_depth_is_the_distance_in_world_units(rendered):
    unit = json.loads((rendered / "render.json").read_text())["depth_unit"]
    depth = read(rendered / "depth" / "000_azimuth_000.png") * unit
    assert depth[24, 24] == pytest.approx(1.3 - 0.3, abs=0.01) and depth[0, 0] == 0
    # Half opacity at the outline: a sphere of radius r seen from d has the angular radius asin(r / d).
    radius = 48 * 1.0254 * math.tan(math.asin(0.3 / 1.3))
    assert (depth > 0).sum() == pytest.approx(math.pi * radius**2, rel=0.04)
    assert depth.max() < math.hypot(1.3, 0.3), "nothing of the far plane where the outline lets light pass"


def test_the_record_has_the_cameras(rendered):
    record = json.loads((rendered / "render.json").read_text())
    centers = torch.tensor([view["c2w"] for view in record["views"]])[:, :3, 3]
    azimuth, elevation = view_angles(centers)
    assert azimuth.tolist() == pytest.approx([0, 90, 180, 270], abs=1e-3) and elevation.tolist() == pytest.approx(
        [0] * 4, abs=1e-3
    )
    assert centers.norm(dim=1).tolist() == pytest.approx([1.3] * 4)
    (given,) = record["input_cameras"]
    assert view_angles(torch.tensor(given["c2w"])[:3, 3])[1].item() == pytest.approx(20, abs=1e-4)
    assert record["mesh"]["faces"] > 1000


def test_turntables_have_all_frames(rendered):
    with Image.open(rendered / "turntable.gif") as image:
        assert (image.n_frames, image.size) == (6, (48, 48))
    assert imageio_ffmpeg.count_frames_and_secs(str(rendered / "turntable.mp4"))[0] == 6


def test_the_mesh_is_the_ball(rendered):
    mesh = trimesh.load(rendered / "mesh.glb", force="mesh", skip_materials=True)
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.05) and len(mesh.visual.vertex_colors) == len(
        mesh.vertices
    )


def test_the_sheet_shows_views_above_depth(rendered):
    sheet = read(rendered / "contact_sheet.png")
    assert sheet.shape == (2 * 48 + 2, 4 * 48 + 3 * 2, 3)
    np.testing.assert_array_equal(sheet[:48, 50:98], read(rendered / "views" / "001_azimuth_090.png"))
    np.testing.assert_array_equal(sheet[50:, :48], read(rendered / "depth_color" / "000_azimuth_000.png"))


def test_several_images_and_given_angles(tmp_path, model, photo, capsys):
    other = red_box(tmp_path / "other.png")
    out = tmp_path / "out"
    main(
        [
            "--model",
            str(model),
            "--image",
            str(photo),
            str(other),
            "--azimuths",
            "-30",
            "45.5",
            "--out",
            str(out),
            *QUICK,
        ]
    )
    assert {path.name for path in out.iterdir()} == {"box", "other"}
    drawn = {path.name for path in (out / "box" / "views").glob("*.png")}
    assert drawn == {"000_azimuth_330.png", "001_azimuth_046.png"}
    assert str(out / "other" / "views") in capsys.readouterr().out


def test_the_model_sees_the_object_from_the_input_camera(tmp_path, model, photo, monkeypatch):
    seen = []
    monkeypatch.setattr(
        BallSystem, "field", lambda self, context, real=BallSystem.field: (seen.append(context), real(self, context))[1]
    )
    options = ["--input-elevation", "35", "--input-distance", "1.5", "--fov", "60", "--views", "1"]
    main(["--model", str(model), "--image", str(photo), "--out", str(tmp_path / "out"), *options, *QUICK])
    (context,) = seen
    azimuth, elevation = view_angles(context.cameras.centers[0, 0])
    assert (azimuth.item() % 360, elevation.item()) == pytest.approx((0, 35), abs=1e-3)
    assert context.cameras.centers.norm().item() == pytest.approx(1.5)
    assert (context.cameras.near.item(), context.cameras.far.item()) == pytest.approx((1.0, 2.0))
    assert context.cameras.K[0, 0, 0, 0].item() == pytest.approx(0.5 / math.tan(math.radians(30)))
    assert context.images.shape == (1, 1, 3, SIZE, SIZE) and context.alpha.shape == (1, 1, 1, SIZE, SIZE)
    assert context.images[0, 0, :, 16, 16].tolist() == pytest.approx([200 / 255, 30 / 255, 30 / 255], abs=0.01)


def test_a_model_without_surface_keeps_its_views(tmp_path, photo):
    empty = folder.save(tmp_path / "empty", BallSystem().state_dict(), {**CONFIG, "init_args": {"density": 0.01}})
    with pytest.raises(UserError, match="no mesh was written: no surface: the density"):
        main(
            [
                "--model",
                str(empty),
                "--image",
                str(photo),
                "--out",
                str(tmp_path / "out"),
                "--views",
                "1",
                "--turntable-frames",
                "0",
                "--mesh-resolution",
                "16",
            ]
        )
    assert (tmp_path / "out" / "contact_sheet.png").is_file() and not (tmp_path / "out" / "mesh.glb").exists()


@pytest.mark.parametrize(
    ("mode", "background"), [("RGBA", (9, 200, 9, 0)), ("RGB", (255, 255, 255)), ("RGB", (60, 90, 120))]
)
def test_the_object_is_centered_and_scaled(tmp_path, mode, background):
    image = prepare(red_box(tmp_path / "a.png", mode, background), (64, 64), fill=0.75)
    # 40 x 20 pixels -> 48 x 24 of 64, in the middle.
    assert alpha_box(image) == (8, 20, 56, 44)
    assert image.alpha[32, 32] == 1 and image.alpha[10, 10] == 0
    inside = image.alpha > 0.02
    assert np.abs(image.color[inside] * 255 - [200, 30, 30]).max() < 2, "the background's color bleeds into the edge"


def test_frames_need_not_be_square(tmp_path):
    assert alpha_box(prepare(red_box(tmp_path / "a.png"), (32, 64), fill=0.75)) == (8, 4, 56, 28)


def test_light_parts_inside_an_object_stay(tmp_path):
    path = red_box(tmp_path / "a.png", "RGB", (255, 255, 255), (80, 80), (20, 20, 59, 59))
    drawn = Image.open(path)
    ImageDraw.Draw(drawn).rectangle((30, 30, 49, 49), fill=(255, 255, 255))
    drawn.save(path)
    image = prepare(path, (40, 40), fill=0.8)
    assert image.alpha[20, 20] == 1 and image.color[20, 20].min() > 0.99


def test_shrinking_averages_areas(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    image = prepare(tmp_path / "noise.png", (16, 16), as_is=True)
    np.testing.assert_allclose(image.color, pixels.reshape(16, 4, 16, 4, 3).mean((1, 3)) / 255, atol=1e-5)
    assert image.alpha.min() == 1


def test_as_is_keeps_the_framing(tmp_path):
    image = prepare(red_box(tmp_path / "a.png", size=(100, 100), box=(10, 20, 29, 39)), (50, 50), as_is=True)
    assert alpha_box(image) == (5, 10, 15, 20)


def test_images_turn_as_the_camera_noted(tmp_path):
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    ImageDraw.Draw(image).rectangle((0, 0, 9, 19), fill=(200, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the image is on the right side: turn clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert prepare(tmp_path / "a.jpg", (40, 40), as_is=True).color[2, 20, 1] < 0.3


def test_busy_transparent_and_unreadable_images_are_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "busy.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("hello")
    expected = {
        "busy": "alpha or plain background",
        "clear": "no object",
        "plain": "no object",
        "text": "cannot be read",
        "gone": "missing",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message) as error:
            prepare(tmp_path / f"{name}.png", (32, 32))
        assert f"{name}.png" in str(error.value) and "\n" not in str(error.value)


def test_the_command_line_tells_in_one_line(tmp_path, photo, capsys):
    assert (
        cli.main(["render", "--model", str(tmp_path / "none"), "--image", str(photo), "--out", str(tmp_path / "out")])
        == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("vcgen: error:") and "not a model folder" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["--image", "a b.png", "c.png", "--views", "3"], ['--image=["a b.png", "c.png"]', "--views=3"]),
        (["--azimuths", "-30", "5"], ['--azimuths=["-30", "5"]']),
        (["--image=[a.png,b.png]", "--image=a.png"], ["--image=[a.png,b.png]", '--image+=["a.png"]']),
        (["--image", "[1].png"], ['--image=["[1].png"]']),
        (["--as-is", "a.png"], ["--as_is=true", "a.png"]),
        (["--distill", "--views", "3"], ["--distill=default", "--views=3"]),
        (
            ["--as-is", "--mesh-resolution", "64", "--as-is=false"],
            ["--as_is=true", "--mesh_resolution=64", "--as_is=false"],
        ),
        (["--input-elevation", "-5", "stray", "--help"], ["--input_elevation=-5", "stray", "--help"]),
    ],
)
def test_options_may_be_typed_as_people_do(typed, parsed):
    assert plain_words(typed, {"--image", "--azimuths"}, {"--as_is"}, {"--distill": "default"}) == parsed


def test_pixels_stay_square_in_frames_that_are_not():
    K = InputCamera.of(CONFIG).cameras([0.0], 10.0, (32, 64)).K[0]
    assert K[0, 0] * 64 == pytest.approx((K[1, 1] * 32).item())


@pytest.mark.parametrize(("error", "warned"), [(0.2, False), (0.3, True)])
def test_a_field_that_does_not_show_the_image_is_warned_of(error, warned):
    """A gray image, seen darker: its contrast against white is 0.5 a pixel."""
    images = torch.full((1, 1, 3, 4, 4), 0.5)
    seen = SimpleNamespace(render=lambda field, cameras, size, background: SimpleNamespace(rgb=images - 0.5 * error))
    camera = orbit(torch.zeros(1), torch.zeros(1), 1.3, pinhole(1.0), 0.8, 1.8).reshape(1, 1)
    lost = render_outputs.missed(seen, None, Views(images, camera), 1.0)
    assert lost == pytest.approx(error**2)
    assert bool(render_outputs._warning(lost)) == warned
