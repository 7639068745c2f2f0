"""``vcgen data synthesize``: objects are functions of seed and number, whole, upright, of the colors asked for."""

import numpy as np
import pytest
import torch

from scenes import listing
from vcgen.cli import main as cli
from vcgen.data.shards.files import read_index
from vcgen.meshes.cameras import camera_set
from vcgen.meshes.light import STANDARD, varied_lamps
from vcgen.meshes.synthesis.car_shape import KINDS, draw_shape
from vcgen.meshes.synthesis.cars import make_car
from vcgen.meshes.synthesis.draws import Draws
from vcgen.meshes.synthesis.paint import CONTRAST, brightness, car_paint
from vcgen.meshes.synthesis.polygons import Polygons

FAST = ("--size", "16", "--views", "2", "--samples", "1", "--light", "none")
RED = np.array([1.0, 0, 0])


def synthesize(kind, out, *options: str) -> int:
    return cli.main(["data", "synthesize", kind, str(out), *options])


@pytest.mark.parametrize("kind", ["cars", "objects"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(kind, tmp_path):
    for out, seed, count in (("one", 3, 2), ("two", 3, 2), ("other", 4, 2), ("more", 3, 3)):
        assert synthesize(kind, tmp_path / out, *FAST, "--seed", str(seed), "--count", str(count)) == 0
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    one, other, more = (read_index(tmp_path / out) for out in ("one", "other", "more"))
    assert one.read(0).images != other.read(0).images and one.read(0).images != one.read(1).images
    assert [more.read(n).images for n in (0, 1)] == [one.read(n).images for n in (0, 1)], "a longer set begins alike"


@pytest.mark.slow  # three processes that import PyTorch
@pytest.mark.parametrize("kind", ["cars", "objects"])
def test_bytes_do_not_depend_on_the_number_of_workers(kind, tmp_path):
    options = ("--size", "16", "--views", "2", "--count", "5", "--samples-per-shard", "2", "--depth")
    assert synthesize(kind, tmp_path / "one", *options) == 0
    assert synthesize(kind, tmp_path / "three", *options, "--workers", "3") == 0
    assert listing(tmp_path / "one") == listing(tmp_path / "three")


def test_scenes_state_their_licence_and_are_posed_objects_on_transparent_ground(tmp_path, capsys):
    assert synthesize("cars", tmp_path / "out", *FAST, "--count", "3", "--elevation", "10,20") == 0
    assert capsys.readouterr().out.splitlines()[0] == "3 cars of seed 0, 2 views, cameras sphere; licence CC0-1.0"
    index = read_index(tmp_path / "out")
    record = index.read(2)
    assert [sample.key for _, sample in index.samples] == [f"car_0_{n:06d}" for n in range(3)]
    assert (index.licence, record.licence, record.source) == ("CC0-1.0", "CC0-1.0", "synthesized_cars")
    assert (record.size, record.background, record.t_near, record.t_far) == ((16, 16), "alpha", 0.8, 1.8)
    heights = np.degrees(np.arcsin(record.c2w[:, 2, 3] / 1.3))
    assert ((heights > 10) & (heights < 20)).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_cars_of_every_kind_stand_on_their_wheels_and_are_as_wide_on_both_sides(kind):
    for seed in range(3):
        surface = make_car(np.random.default_rng(seed), kinds=[kind])
        low, high = surface.triangles.reshape(-1, 3).aminmax(dim=0)
        length, width, height = -low[1] + high[1], high[0] - low[0], high[2] - low[2]
        assert 200 < len(surface) < 4000 and float(surface.rgba.amin()) >= 0 and float(surface.rgba.amax()) <= 1
        assert (
            bool(surface.triangles.isfinite().all()) and float(surface.normals.norm(dim=-1).sub(1).abs().max()) < 1e-5
        )
        assert abs(float(low[2])) < 0.05, "the wheels stand on the ground"
        assert float(low[0] + high[0]) == pytest.approx(0, abs=0.35) and length > width * 1.1 and height < length


def test_wheels_stay_below_the_hood():
    for seed in range(60):
        draws = Draws(np.random.default_rng(seed))
        shape = draw_shape(draws, draws.pick("coupe", "sedan", "suv", "offroader"))
        assert all(shape.top_at(z) > 2 * shape.radius for z in shape.axles)


def test_windows_stand_out_from_the_body():
    for seed in range(60):
        paint = car_paint(Draws(np.random.default_rng(seed)), "natural")
        assert abs(brightness(paint.glass) - brightness(paint.body)) > CONTRAST - 0.1


def test_gray_paint_is_gray():
    assert np.ptp(car_paint(Draws(np.random.default_rng(0)), "gray").body) == 0


def test_polygons_face_outwards_and_mirror_images_too():
    out = Polygons()
    out.box((1, 2), (0, 3), (-1, 1), RED, top=(0.5, 0.5), lean=0.2, mirror=True)
    out.bar((4, 0, 0), (4, 0, 5), 0.5, 6, RED, taper=0.5, mirror=True)
    surface = out.surface()
    for sign, middle in ((1, 1.5), (-1, -1.5), (1, 4.0), (-1, -4.0)):
        near = (surface.triangles.mean(1)[:, 0] - middle).abs() < 0.9
        part, normals = surface.triangles[near], surface.face_normals()[near]
        center = part.reshape(-1, 3).mean(0)
        assert len(part) >= 12 and bool(((part.mean(1) - center) * normals).sum(1).gt(0).all()), (sign, middle)
    assert surface.rgba[0, 0].tolist() == [1, 0, 0, 1]


def test_lamps_vary_within_what_is_said_and_the_sphere_between_its_elevations():
    lamps = [varied_lamps(np.random.default_rng(seed)) for seed in range(50)]
    assert all(0.3 <= one.sky <= 0.8 and 1 <= one.suns[0].irradiance <= 3 for one in lamps)
    heights = torch.tensor([[float(sun.frame()[2, 2]) for sun in one.suns] for one in lamps])
    assert bool((heights > np.cos(np.radians(75.01))).all()) and heights.std() > 0.1
    assert len(STANDARD.suns) == 2 and float(STANDARD.suns[0].frame()[:, 2].norm()) == pytest.approx(1)
    cameras = camera_set("sphere", (-30.0, -20.0)).make(np.random.default_rng(0), 50)
    assert -30 <= np.degrees(np.arcsin(cameras.centers[:, 2] / 1.3)).min() < -28


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [
        ("cars", (), "say how many objects to make: --count 1000"),
        ("cars", ("--count", "0"), "--count must lie between 1 and 1000000, not 0"),
        ("car", ("--count", "1"), "unknown kind 'car' (did you mean cars?): the kinds are cars, objects"),
        ("", (), "no kind given"),
        ("cars", ("--count", "1", "--seed", "-1"), "--seed must lie between 0"),
        ("cars", ("--count", "x"), "--count must be a whole number"),
        (
            "cars",
            ("--count", "1", "--bodies", "sedan,boat"),
            "--bodies: 'boat' is not known; give some of sedan, hatchback",
        ),
        ("objects", ("--count", "1", "--most-parts", "0"), "--most-parts must lie between 1 and 50, not 0"),
        ("cars", ("--count", "1", "--paint", "red"), "--paint must be one of vivid, natural, gray, not red"),
    ],
)
def test_a_bad_value_is_one_line(kind, options, line, tmp_path, capsys):
    words = ["data", "synthesize", *([kind, str(tmp_path / "out")] if kind else []), *options]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
