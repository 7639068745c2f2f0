"""Images of one object with a file of their cameras: what the model is shown is what evaluation shows it."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vcgen
from ball_model import CONFIG, QUICK, SIZE, read
from scenes import looking_inwards
from stand_in import BallSystem
from vcgen.api import Pipeline
from vcgen.checkpoints import model_folder as folder
from vcgen.cli import main as cli
from vcgen.cli.render import main
from vcgen.data.familiar import Familiar
from vcgen.data.input_camera import InputCamera
from vcgen.data.posed_images import posed_views
from vcgen.data.shards.files import read_index
from vcgen.encoders.image_code import CodeEncoder
from vcgen.encoders.light_field import LightFieldDecoder
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.evaluation.protocol import Protocol
from vcgen.evaluation.runner import views_of
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Views

CARS = Path(__file__).parents[1] / "data" / "cars64" / "test"
CAMERA = InputCamera.of(CONFIG)
POSES, K = looking_inwards(4, distance=1.3, seed=3), [[1.0254, 0, 0.5], [0, 1.0254, 0.5], [0, 0, 1]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return folder.save(tmp_path_factory.mktemp("models") / "ball", BallSystem(size=0.3).state_dict(), CONFIG)


@pytest.fixture(scope="module")
def car(tmp_path_factory):
    """A bundled test car as its shard has it, unpacked by tar."""
    scene, place = read_index(CARS).read(0), tmp_path_factory.mktemp("car")
    (place / f"{scene.key}.cameras.json").write_text(json.dumps(scene.cameras_json()))
    for number, image in enumerate(scene.images):
        (place / f"{scene.key}.{number:03d}.png").write_bytes(image)
    return scene, place


def posed(place: Path, names=("0.png", "1.png", "2.png"), size=(SIZE, SIZE), **changes) -> list[Path]:
    """Images, and ``cameras.json``; changes: entries of it, None to leave one out."""
    content = {"c2w": POSES.tolist(), "K": [K], "views": [f"{number}.png" for number in range(4)], **changes}
    (place / "cameras.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    pixels = np.random.default_rng(0).integers(0, 256, (4, *size, 4), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(place / f"{number}.png")
    return [place / name for name in names]


def equal(one: Views, other: Views) -> bool:
    parts = [(view.images, view.alpha, *vars(view.cameras).values()) for view in (one, other)]
    return all(map(torch.equal, *parts))


@pytest.mark.parametrize("context", [(0,), (7, 0, 31)])
def test_a_test_car_looks_to_the_model_as_it_does_in_an_evaluation(car, context):
    scene, place = car
    protocol = Protocol("cars", context, "all others", scene.size)
    torch.manual_seed(0)
    system = NerfDiff(
        TriplaneEncoder(TriplaneDecoder(8, 8), 16, 8, (32, 32), 1, (False, False)), render_eval=RenderOptions(8)
    )
    system.config = {"image_size": scene.size, "background": 1.0}
    pipeline = Pipeline(system, CAMERA)
    given = pipeline.views([place / f"{scene.key}.{n:03d}.png" for n in context], place / f"{scene.key}.cameras.json")
    expected, target = (views_of(scene, some, protocol, "cpu") for some in (context, [20]))
    assert equal(given, expected)
    with torch.no_grad():
        evaluated = system.render(system.field(expected), target.cameras, (16, 16))
    shown = pipeline.render(pipeline.reconstruct(given), target.cameras[0], 16)
    assert torch.equal(shown.rgb[0], evaluated.rgb[0, 0])
    first = pipeline.render(pipeline.reconstruct(given[:, :1]), target.cameras[0], 16)
    assert torch.equal(first.rgb, shown.rgb) == (len(context) == 1)


def test_the_command_shows_its_own_views_to_the_model_again(tmp_path, model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        BallSystem, "field", lambda self, context, real=BallSystem.field: (seen.append(context), real(self, context))[1]
    )
    images = posed(tmp_path)
    command = ["--model", str(model), *QUICK, "--image"]
    cameras = "--cameras", str(tmp_path / "cameras.json")
    main([*command, *map(str, images), *cameras, "--out", str(tmp_path / "one"), "--azimuths", "0", "90"])
    views = tmp_path / "one" / "views"
    again = [views / "001_azimuth_090.png", views / "000_azimuth_000.png"]
    cameras = "--cameras", str(views / "cameras.json")
    main([*command, *map(str, again), *cameras, "--out", str(tmp_path / "two"), "--views", "1"])
    assert read(tmp_path / "one" / "input.png").shape == (SIZE, 3 * SIZE, 4)
    first, second = seen
    assert first.images.shape == (1, 3, 3, SIZE, SIZE) and np.allclose(first.cameras.c2w[0], POSES[:3])
    records = [json.loads((tmp_path / name / "render.json").read_text()) for name in ("one", "two")]
    assert [len(record["input_cameras"]) for record in records] == [3, 2]
    drawn = [record["c2w"] for record in records[0]["views"]]
    assert second.cameras.c2w[0].tolist() == drawn[::-1]
    median = float(np.median(np.degrees(np.arcsin(POSES[:3, 2, 3] / 1.3))))
    assert records[0]["views"][0]["elevation"] == pytest.approx(median, abs=1e-3)


def test_each_view_far_from_the_training_images_is_warned_of(tmp_path, capsys, recwarn):
    # The statistics are of one value each, which no image has.
    identity = tuple(tuple(float(i == j) for j in range(11)) for i in range(11))
    config = {**CONFIG, "familiar": asdict(Familiar((100.0,) * 11, identity, 1.0))}
    place = folder.save(tmp_path / "model", BallSystem(size=0.3).state_dict(), config)
    images, cameras = posed(tmp_path)[:2], tmp_path / "cameras.json"
    words = ["--model", str(place), *QUICK, "--cameras", str(cameras), "--out", str(tmp_path / "out")]
    main([*words, "--image", *map(str, images)])
    lines = [line for line in capsys.readouterr().err.splitlines() if "unlike the images" in line]
    assert [line.split(": ")[2] for line in lines] == list(map(str, images))
    vcgen.load(place).views(images, cameras)
    told = [str(warning.message) for warning in recwarn if "unlike the images" in str(warning.message)]
    assert [text.split(" is ")[0] for text in told] == list(map(str, images))


def test_a_frame_of_another_shape_moves_the_intrinsics_along(tmp_path):
    (image,) = posed(tmp_path, ("1.png",), size=(40, 80), K=[[[1.0, 0, 0.4], [0, 2.0, 0.7], [0, 0, 1]]])
    camera = posed_views([image], tmp_path / "cameras.json", (32, 32), CAMERA).cameras
    (uv,), _ = camera[0].project(torch.tensor([[[0.05, 0.1, -0.1]]]))
    original = replace(camera, K=torch.tensor([[[[1.0, 0, 0.4], [0, 2.0, 0.7], [0, 0, 1]]]]))
    (expected,), _ = original[0].project(torch.tensor([[[0.05, 0.1, -0.1]]]))
    x, y = (expected[0] * torch.tensor([80.0, 40.0]) * 32 / 80).tolist()
    assert (uv[0] * 32).tolist() == pytest.approx([x, y + 8], abs=1e-4)


def test_rays_pass_the_models_sphere_unless_the_file_says_otherwise(tmp_path):
    def bounds(**changes):
        cameras = posed_views(posed(tmp_path, **changes), tmp_path / "cameras.json", (SIZE, SIZE), CAMERA).cameras
        return cameras.near[0].tolist(), cameras.far[0].tolist()

    assert bounds() == (pytest.approx([0.8] * 3), pytest.approx([1.8] * 3))
    assert bounds(t_near=0.5, t_far=2) == ([0.5] * 3, [2.0] * 3)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"c2w": (POSES @ np.diag([1, -1, -1, 1])).tolist()}, "behind 3 of 3 cameras"),
        ({"c2w": (POSES @ np.diag([1, -1, -1, 1])).tolist(), "names": ["0.png"]}, "lies behind 1 of 1 cameras"),
        ({"c2w": looking_inwards(4, distance=2.6, seed=3).tolist()}, "stand 2.6 from the origin, those of the model's"),
        ({}, ""),
    ],
)
def test_odd_poses_are_warned_of(tmp_path, capsys, changes, warning):
    posed_views(posed(tmp_path, **changes), tmp_path / "cameras.json", (SIZE, SIZE), CAMERA)
    error = capsys.readouterr().err
    assert warning in error and error.count("\n") == bool(warning)


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"views": None}, (), 'does not say which image each camera is of; add their names, as "views"'),
        ({"views": ["a", "b", "c", "d"]}, (), "no views are called 0.png, there are a, b, c, ..."),
        ({"names": ("1.png", "1.png")}, (), "are of one camera"),
        ({"names": ("1.png", "9.png")}, (), "no views are called 9.png"),
        ({"c2w": (POSES * [[[1, 1, 1, 0.2]]]).tolist()}, (), "row"),
        ({"c2w": looking_inwards(4, distance=0.4).tolist()}, (), "stands 0.4 from the origin, inside the model's"),
        ({}, ("--input-elevation", "10"), "and so does --input-elevation: leave it out"),
        ({}, ("--fill", "0.5"), "and so does --fill: leave it out"),
        ({}, ("--distill",), "--distill finetunes the field of one image: give one"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, model, capsys, changes, options, words):
    images = [str(image) for image in posed(tmp_path, **changes)]
    files = "--cameras", str(tmp_path / "cameras.json"), "--out", str(tmp_path / "out")
    assert cli.main(["render", "--model", str(model), "--image", *images, *files, *options, *QUICK]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_model_that_looks_at_one_view_refuses_more(tmp_path, monkeypatch, capsys, model):
    monkeypatch.setattr(BallSystem, "most_views", 1)
    images = [str(image) for image in posed(tmp_path)]
    command = ["render", "--model", str(model), "--cameras", str(tmp_path / "cameras.json"), *QUICK]
    assert cli.main([*command, "--image", *images, "--out", str(tmp_path / "out")]) == 2
    assert "gives 3 input views" in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert cli.main([*command, "--image", images[0], "--out", str(tmp_path / "out"), "--views", "1"]) == 0
    system = NerfDiff(CodeEncoder(LightFieldDecoder(8, hidden=8, shared=True, width=8, layers=1), (8, 8)))
    assert system.most_views == 1
