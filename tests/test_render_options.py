"""Options of ``vcgen render``: what they add, and what is out of their range."""

import json
import math
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageDraw

from ball_model import CONFIG, QUICK, SIZE, alpha_box, read, red_box
from stand_in import BallSystem
from vcgen.checkpoints import model_folder as folder
from vcgen.cli.render import main
from vcgen.cli.render_outputs import straight_rgba, surface_depth
from vcgen.data.images.photo import prepare
from vcgen.errors import UserError
from vcgen.types import Rendering


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The model folder of a ball of radius 0.3 that shows its normals."""
    return folder.save(tmp_path_factory.mktemp("models") / "ball", BallSystem(size=0.3).state_dict(), CONFIG)


@pytest.fixture
def photo(tmp_path):
    """A red box on nothing."""
    return red_box(tmp_path / "box.png")


def test_one_bad_image_is_named_before_anything_is_rendered(tmp_path, model, photo):
    (tmp_path / "broken.jpg").write_bytes(photo.read_bytes()[:100])
    other = red_box(tmp_path / "other.png")
    with pytest.raises(
        UserError,
        match=r"broken.jpg: cannot be read .*gone.png.* \(2 of 4 images cannot be used; nothing was rendered\)",
    ):
        main(
            [
                "--model",
                str(model),
                "--image",
                str(photo),
                str(tmp_path / "broken.jpg"),
                str(tmp_path / "gone.png"),
                str(other),
                "--out",
                str(tmp_path / "out"),
                *QUICK,
            ]
        )
    assert not (tmp_path / "out").exists()


def test_a_turntables_frames_are_not_kept_as_numbers(tmp_path, model, photo, monkeypatch):
    """Memory holds the numbers of two images at most, however many frames there are."""
    render, images, alive = BallSystem.render, [], []

    def watched(self, *arguments):
        alive.append(sum(image() is not None for image in images))
        rendering = render(self, *arguments)
        images.append(weakref.ref(own := rendering.rgb.numpy().copy()))
        return rendering._replace(rgb=torch.from_numpy(own))

    monkeypatch.setattr(BallSystem, "render", watched)
    words = ["--model", str(model), "--image", str(photo), "--out", str(tmp_path / "out"), "--views", "1"]
    main([*words, "--size", "16", "--turntable-frames", "8", "--mesh-resolution", "0", "--device", "cpu"])
    assert len(images) == 10 and max(alive) <= 2


def test_views_of_an_earlier_run_are_replaced_and_no_file_that_is_read(tmp_path, model, photo):
    out = tmp_path / "out"
    for views in ("3", "2"):
        main(["--model", str(model), "--image", str(photo), "--out", str(out), "--views", views, *QUICK])
    names = {"000_azimuth_000.png", "001_azimuth_180.png"}
    for kind in ("views", "depth", "depth_color"):
        assert {path.name for path in (out / kind).glob("*.png")} == names

    views = out / "views"
    red_box(views / "mine.png")
    posed = ["--cameras", str(views / "cameras.json")]
    for image, more in ((out / "input.png", []), (views / "001_azimuth_180.png", posed), (photo, posed)):
        before = image.read_bytes()
        with pytest.raises(UserError, match=r"(png|json): is read, and the results would replace it"):
            main(["--model", str(model), "--image", str(image), *more, "--out", f"{out}/", *QUICK])
        assert image.read_bytes() == before
    main(["--model", str(model), "--image", str(views / "mine.png"), "--out", str(out), "--views", "1", *QUICK])
    assert {path.name for path in views.glob("*.png")} == {"000_azimuth_000.png", "mine.png"}


def test_a_folder_stands_for_its_image_and_images_of_one_name_are_refused(tmp_path, model, photo):
    (tmp_path / "folder").mkdir()
    red_box(tmp_path / "folder" / "box.png")
    main(
        [
            "--model",
            str(model),
            "--image",
            str(tmp_path / "folder"),
            "--out",
            str(tmp_path / "out"),
            "--views",
            "1",
            *QUICK,
        ]
    )
    assert json.loads((tmp_path / "out" / "render.json").read_text())["image"] == str(tmp_path / "folder" / "box.png")
    with pytest.raises(UserError, match="two images are named box"):
        main(
            [
                "--model",
                str(model),
                "--image",
                str(photo),
                str(tmp_path / "folder"),
                "--out",
                str(tmp_path / "out"),
                *QUICK,
            ]
        )


@pytest.mark.parametrize("form", ["ply", "obj", "stl"])
def test_meshes_come_in_the_formats_asked_for(tmp_path, model, photo, form):
    main(
        [
            "--model",
            str(model),
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
            "--mesh-format",
            form,
            "glb",
            "--device",
            "cpu",
        ]
    )
    meshes = sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith("mesh"))
    assert meshes == sorted([f"mesh.{form}", "mesh.glb"])
    mesh = trimesh.load(tmp_path / "out" / f"mesh.{form}", process=False)
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.2)
    assert form == "stl" or np.ptp(mesh.visual.vertex_colors[:, :3], axis=0).min() > 100


@pytest.mark.integration
def test_a_textured_mesh_has_its_files_and_its_line(tmp_path, model, photo, capsys):
    options = ["--mesh", "textured", "--mesh-format", "obj", "glb", "--views", "1", *QUICK, "--mesh-resolution", "12"]
    main(["--model", str(model), "--image", str(photo), "--out", str(tmp_path / "out"), *options])
    made = sorted(path.name for path in (tmp_path / "out").glob("mesh*"))
    assert made == ["mesh.glb", "mesh.mtl", "mesh.obj", "mesh.png"]
    assert "texture of 1024 x 1024 texels" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "render.json").read_text())["mesh"]["texture"] == 1024
    mesh = trimesh.load(tmp_path / "out" / "mesh.obj", force="mesh")
    assert np.ptp(mesh.visual.to_color().vertex_colors[:, :3], axis=0).min() > 100


def test_transparent_views_have_straight_alpha(tmp_path, model, photo):
    plain, clear = tmp_path / "plain", tmp_path / "clear"
    for out, more in ((plain, []), (clear, ["--transparent"])):
        main(["--model", str(model), "--image", str(photo), "--out", str(out), "--views", "1", *QUICK, *more])
    view, rgba = (read(out / "views" / "000_azimuth_000.png") for out in (plain, clear))
    assert view.shape == (SIZE, SIZE, 3) and rgba.shape == (SIZE, SIZE, 4)
    assert rgba[0, 0].tolist() == [255, 255, 255, 0] and rgba[16, 16, 3] == 255
    alpha = rgba[..., 3:] / 255
    assert np.abs(rgba[..., :3] * alpha + 255 * (1 - alpha) - view).max() <= 2
    assert json.loads((clear / "render.json").read_text())["background"] is None


def test_a_translucent_pixel_has_its_own_color_without_the_background():
    alpha = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3)
    color = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(1, 3, 1, 3)
    rgba = straight_rgba(Rendering(color * alpha + (1 - alpha) * 0.5, alpha, alpha), background=0.5)
    assert rgba[0, 0].tolist() == [[255, 255, 255, 0], [51, 102, 153, 64], [51, 102, 153, 255]]


def test_a_translucent_pixel_has_its_own_depth_without_the_far_plane():
    alpha, own = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3), 1.25
    seen = Rendering(alpha, alpha, alpha * own + (1 - alpha) * 2)
    assert surface_depth(seen, 2.0).flatten().tolist() == [2, own, own]


def test_rembg_removes_what_is_no_plain_background(tmp_path, monkeypatch):
    busy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    ImageDraw.Draw(busy).rectangle((30, 20, 69, 39), fill=(200, 30, 30))
    busy.save(tmp_path / "busy.png")
    mask = Image.new("L", (80, 60))
    mask.paste(255, (30, 20, 70, 40))
    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(remove=lambda image, only_mask: mask))
    for source in (tmp_path / "busy.png", np.asarray(busy) / 255):
        image = prepare(source, (64, 64), fill=0.75)
        assert (
            alpha_box(image) == (8, 20, 56, 44)
            and np.abs(image.color[image.alpha > 0.02] * 255 - [200, 30, 30]).max() < 3
        )
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(UserError, match=r"pip install 'vcgen\[cutout\]'"):
        prepare(tmp_path / "busy.png", (64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views", "0"], "--views must lie between 1 and 3600, not 0"),
        (["--turntable-frames", "1"], "--turntable-frames"),
        (["--mesh-resolution", "3"], "--mesh-resolution"),
        (["--size", "4"], "--size"),
        (["--fps", "100"], "--fps"),
        (["--elevation", "90"], "between -90 and 90"),
        (["--fill", "0"], "--fill"),
        (["--fov", "170"], "--fov must lie between 1 and 150 degrees, not 170"),
        (["--input-distance", "0.4"], "must exceed 0.5"),
        (["--image", "nowhere.png"], "nowhere.png.*missing"),
        (["--views", "99999"], "--views must lie between 1 and 3600"),
        (["--turntable-frames", "-1"], "--turntable-frames must lie between 2 and 3600, or be 0 for none, not -1"),
        (["--mesh-resolution", "4000"], "--mesh-resolution must lie between 8 and 1024"),
        (["--threshold", "0"], "--threshold must be more than 0"),
        (["--fov", ".nan"], "--fov must lie between 1 and 150 degrees, not nan"),
        (["--input-distance", ".inf"], "--input-distance must be more than 0, not inf"),
        (["--azimuths"], "--azimuths needs a value"),
        (["--azimuths=[]"], "--azimuths needs 1 to 3600 angles"),
        (["--views", "3", "--azimuths", "3"], "give one of the two"),
        (["--azimuths", "3", ".inf"], "--azimuths must lie between -1000000 and 1000000 degrees, not inf"),
        (["--seed", "-1"], "--seed must lie between 0 and"),
        (["--device", "meta"], "--device meta: cannot be used"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path, model, photo, options, message):
    arguments = ["--model", str(model), "--image", str(photo), "--out", str(tmp_path / "out"), *QUICK]
    with pytest.raises(UserError, match=message):
        main(arguments + options)
