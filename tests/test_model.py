"""``vcgen.load``: what it computes is what ``vcgen render`` and the system compute, whatever form the image comes
in.
"""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import vcgen
from prior_folder import entry, exported, trained
from stand_in import BallSystem
from vcgen.cameras import view_angles
from vcgen.checkpoints import model_folder as folder
from vcgen.cli.render import main as render_command
from vcgen.data.images.photo import prepare
from vcgen.errors import UserError

BALL = {
    "class_path": "stand_in.BallSystem",
    "init_args": {},
    "image_size": [24, 32],
    "background": 0.5,
    "camera": {"focal": 1.0254, "distance": 1.3, "elevation": 20, "near": 0.8, "far": 1.8},
}


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    return trained(entry())


@pytest.fixture(scope="module")
def place(system, tmp_path_factory):
    return exported(system, entry(), tmp_path_factory.mktemp("nerfdiff"))


@pytest.fixture(scope="module")
def model(place):
    return vcgen.load(place)


@pytest.fixture
def ball(tmp_path):
    return folder.save(tmp_path / "ball", BallSystem(size=0.3).state_dict(), BALL)


def drawing(mode="RGBA", size=(90, 50), background=(0, 0, 0, 0)) -> Image.Image:
    image = Image.new(mode, size, background)
    ImageDraw.Draw(image).ellipse((10, 8, 49, 37), fill=(200, 30, 90, 255)[: len(mode)])
    return image


def same(first, second) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip((first.images, first.alpha), (second.images, second.alpha), strict=True)
    )


@pytest.mark.parametrize(
    ("options", "words"), [({}, []), ({"fill": 0.5}, ["--fill", "0.5"]), ({"as_is": True}, ["--as-is"])]
)
def test_reconstruct_and_render_are_the_commands_views(tmp_path, place, model, options, words):
    drawing().save(tmp_path / "car.png")
    quick = [
        "--turntable-frames",
        "0",
        "--mesh-resolution",
        "0",
        "--device",
        "cpu",
        "--azimuths",
        "0",
        "130",
        "--size",
        "24",
    ]
    render_command(
        ["--model", str(place), "--image", str(tmp_path / "car.png"), "--out", str(tmp_path / "out"), *quick, *words]
    )
    written = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out" / "views").glob("*.png"))]
    view = model.render(model.reconstruct(tmp_path / "car.png", **options), model.cameras([0, 130]), size=24)
    ours = np.round(view.rgb.clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    np.testing.assert_array_equal(ours, np.stack(written))
    assert view.rgb.std() > 1e-3 and view.depth.shape == view.alpha.shape == (2, 1, 24, 24)


def test_the_system_is_the_one_before_export(model, system):
    """Reconstructed, rendered and sampled as the trained system does, given the same context."""
    context, cameras = model.context(drawing()), model.cameras([40, 200])
    with torch.no_grad():
        field = system.field(context)
        points = torch.rand(1, 50, 3) - 0.5
        assert torch.equal(model.reconstruct(drawing()).density(points), field.density(points))
        separate = [system.render(field, cameras[i : i + 1].reshape(1, 1), (16, 16)).rgb[0, 0] for i in range(2)]
    assert torch.equal(model.render(field, cameras).rgb, torch.stack(separate))
    expected = system.sample(context, cameras.reshape(1, 2), torch.Generator().manual_seed(5), steps=3)[0]
    assert torch.equal(model.sample(drawing(), cameras, steps=3, seed=5), expected)


def test_samples_are_images_in_range_that_depend_on_the_seed(model):
    first, again, other = (model.sample(drawing(), model.cameras([0, 90]), steps=2, seed=seed) for seed in (0, 0, 1))
    assert first.shape == (2, 3, 16, 16) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_samples_are_of_the_sampler_that_is_asked_for(model, system):
    cameras = model.cameras([0, 90])
    asked = model.sample(drawing(), cameras, steps=3, seed=0, sampler="dpm++")
    views = cameras.reshape(1, 2)
    ours = system.sample(model.context(drawing()), views, torch.Generator().manual_seed(0), steps=3, sampler="dpm++")[0]
    assert torch.equal(asked, ours) and not torch.equal(asked, model.sample(drawing(), cameras, steps=3, seed=0))
    with pytest.raises(UserError, match="the samplers are"):
        model.sample(drawing(), cameras, sampler="euler")


@pytest.mark.parametrize(("mode", "background"), [("RGBA", (0, 0, 0, 0)), ("RGB", (255, 255, 255))])
def test_paths_images_and_arrays_are_the_same(tmp_path, model, mode, background):
    image = drawing(mode, background=background)
    image.save(tmp_path / "car.png")
    pixels = np.asarray(image)
    reference = model.context(tmp_path / "car.png")
    forms = [
        str(tmp_path / "car.png"),
        image,
        Image.open(tmp_path / "car.png"),
        pixels,
        pixels / 255,
        pixels.astype(np.float32) / 255,
    ]
    assert all(same(model.context(form), reference) for form in forms)
    assert 0.2 < float(reference.alpha.mean()) < 0.8 and reference.images.shape == (1, 1, 3, 16, 16)


@pytest.mark.parametrize("size", [(60, 50), (50, 300), (1000, 400)])
def test_images_of_any_size_fit_the_model(model, size):
    assert model.context(drawing(size=size)).images.shape == (1, 1, 3, 16, 16)
    assert model.context(np.asarray(drawing("RGB", size, (9, 9, 9))), as_is=True).alpha.min() == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8)), r"shape \(height, width, 3 or 4\), not \(8, 8\)"),
        (np.zeros((3, 8, 8)), "channels last"),
        (np.zeros((0, 8, 3)), "not \\(0, 8, 3\\)"),
        (np.zeros((8, 8, 3), np.int64), "not int64"),
        (np.full((8, 8, 3), 255.0), r"in \[0, 1\], not in \[255, 255\]"),
        (np.full((8, 8, 3), np.nan), r"in \[0, 1\]"),
        (np.zeros((8, 8, 4), np.uint8), "the image shows no object"),
        (np.random.default_rng(0).random((16, 16, 3)), "the image has no alpha"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, message):
    with pytest.raises(UserError, match=message) as error:
        prepare(array, (16, 16))
    assert "\n" not in str(error.value)


def test_cameras_stand_on_the_models_orbit(ball):
    cameras = vcgen.load(ball).cameras([0, 90, 350.5], elevation=-30)
    azimuth, elevation = view_angles(cameras.centers)
    assert (azimuth % 360).tolist() == pytest.approx([0, 90, 350.5], abs=1e-3) and elevation.tolist() == pytest.approx(
        [-30] * 3, abs=1e-3
    )
    assert cameras.centers.norm(dim=1).tolist() == pytest.approx([1.3] * 3)
    assert view_angles(vcgen.load(ball).cameras([10]).centers)[1].item() == pytest.approx(20, abs=1e-3)


def test_what_is_known_of_the_image_moves_the_input_camera(ball):
    model = vcgen.load(ball, "cpu", input_elevation=35, input_distance=1.5, fov=60)
    seen = model.context(drawing()).cameras
    assert view_angles(seen.centers[0, 0])[1].item() == pytest.approx(
        35, abs=1e-3
    ) and seen.centers.norm().item() == pytest.approx(1.5)
    assert seen.K[0, 0, 0, 0].item() == pytest.approx(0.5 / math.tan(math.radians(30)))
    model.reconstruct(drawing())
    assert torch.equal(model.system.seen.cameras.c2w, seen.c2w)
    with pytest.raises(UserError, match=r"must exceed 0.5"):
        vcgen.load(ball, input_distance=0.4)
    for impossible in (
        lambda: vcgen.load(ball, input_elevation=90).context(drawing()),
        lambda: model.cameras([0], elevation=-90),
    ):
        with pytest.raises(UserError, match="between -90 and 90"):
            impossible()


def test_sizes_and_background_are_the_models_unless_given(ball):
    model = vcgen.load(ball)
    field, cameras = model.reconstruct(drawing()), model.cameras([0])
    for size, shape in ((None, (24, 32)), (64, (48, 64)), ((20, 10), (20, 10))):
        view = model.render(field, cameras, size)
        assert view.rgb.shape == (1, 3, *shape) and view.rgb[0, :, 0, 0].tolist() == pytest.approx([0.5] * 3)


def test_a_model_without_a_prior_says_so(ball):
    model = vcgen.load(ball)
    with pytest.raises(UserError, match="no diffusion prior"):
        model.sample(drawing(), model.cameras([0]))


def test_importing_vcgen_does_not_import_torch():
    code = "import sys, vcgen; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
