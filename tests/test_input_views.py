"""Several input views: models that look at one refuse them, instead of passing over all but the first."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from small_evaluation import PROTOCOL, SETTINGS, gray_shards
from training import refusal, vcgen
from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.cli import main as cli
from vcgen.cli.evaluate import Places, score_baselines
from vcgen.data.input_camera import InputCamera
from vcgen.diffusion.prior import ViewPrior
from vcgen.encoders.image_code import CodeEncoder
from vcgen.encoders.light_field import LightFieldDecoder
from vcgen.encoders.pixelnerf import PixelNerf
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.errors import UserError
from vcgen.evaluation.baselines import CopyInput, CopyNearest
from vcgen.evaluation.protocol import Protocol
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.systems.suitability import odd_distance
from vcgen.types import Rendering, Views

ROOT = Path(__file__).parents[1]


def views(count: int, size: int = 16) -> Views:
    cameras = orbit(torch.arange(count) * 90.0, torch.full((count,), 20.0), 1.3, pinhole(1.0), 0.8, 1.8).reshape(
        1, count
    )
    return Views(torch.rand(1, count, 3, size, size), cameras)


def triplanes() -> TriplaneEncoder:
    return TriplaneEncoder(TriplaneDecoder(8, 8), 16, 8, (32, 32), 1, (False, False))


def light_fields() -> CodeEncoder:
    return CodeEncoder(LightFieldDecoder(8, hidden=8, shared=True, width=8, layers=1), (8, 8))


def test_evaluate_refuses_a_protocol_with_more_views_than_the_model_looks_at(tmp_path, capsys):
    protocol = json.loads((ROOT / "configs" / "protocols" / "cars64_view0_sparse.json").read_text())
    (tmp_path / "two.json").write_text(json.dumps({**protocol, "context": [0, 5]}))
    places = {
        "model": ROOT / "data/pretrained/cars64",
        "data": ROOT / "data/cars64/test",
        "protocol": tmp_path / "two.json",
        "out": tmp_path / "out",
    }
    words = [word for name, place in places.items() for word in (f"--{name}", str(place))]
    assert cli.main(["evaluate", *words, "--lpips", "none", "--baselines", "--distill"]) == 2
    error = capsys.readouterr().err
    assert "protocol cars64_view0_sparse gives 2 input views" in error and "looks at 1: use a protocol with 1" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_what_looks_at_one_view_refuses_two():
    prior, seen = (
        ViewPrior((16, 32), attention=(False, True), size=16),
        Rendering(*(torch.rand(1, 1, n, 16, 16) for n in (3, 1, 1))),
    )
    for name, look in {
        "CodeEncoder": light_fields(),
        "the diffusion prior": lambda given: prior.condition(seen, given, torch.ones(1, 1), torch.ones(1, 1)),
    }.items():
        look(views(1))
        with pytest.raises(UserError, match=f"{name} looks at one input view, here are 2"):
            look(views(2))


def test_the_limit_is_that_of_the_encoder_and_of_distillation():
    two = Protocol("two", (0, 1), "all others", (16, 16))
    assert NerfDiff(light_fields()).most_views == 1 and NerfDiff(triplanes()).most_views is None
    two.check_views("m", None)
    PROTOCOL.check_views("m", 1)
    with pytest.raises(UserError, match="gives 2 input views, m looks at 1"):
        two.check_views("m", 1)


@pytest.mark.parametrize(
    ("option", "value", "given"), [("data__contexts", "[1, 3]", 3), ("data__context", "[0, 4]", 2)]
)
def test_a_training_with_more_views_than_the_encoder_looks_at_is_refused(
    config, tmp_path, capsys, option, value, given
):
    small = {"model__encoder__decoder__width": 8, "model__encoder__decoder__layers": 1}
    options = dict(model__encoder="CodeEncoder", model__encoder__decoder="LightFieldDecoder", **small)
    line = refusal(capsys, vcgen("fit", config, tmp_path / "run", **options, **{option: value}))
    assert f"gives {given} input views, model.encoder (CodeEncoder) looks at 1: lower them" in line


def test_objects_elsewhere_than_the_encoder_takes_them_to_be_are_told(config, tmp_path, capsys):
    data = SimpleNamespace(input_camera=lambda: InputCamera(1.0, 1.3, 20.0, 0.8, 1.8))
    for distance, told in ((1.25, False), (1.3, False), (2.0, True)):
        encoder = triplanes()
        encoder.object_distance = distance
        assert bool(odd_distance(data, encoder)) == told
    options = dict(model__encoder__distance=2.0, model__encoder__half_size=0.6, trainer__max_steps=1)
    assert vcgen("fit", config, tmp_path / "run", **options) == 0
    line = "model.encoder.distance is 2, and the cameras of the data are 1.3 from the origin"
    assert line in capsys.readouterr().err


def test_pixelnerf_sees_all_of_its_views():
    network = PixelNerf(first_pool=False, width=16).eval()
    torch.nn.init.normal_(network.mlp_fine.lin_out.weight)
    given, points = views(2), torch.rand(1, 5, 3) - 0.5
    with torch.no_grad():
        both, first = (
            network(part)(points, torch.nn.functional.normalize(points, dim=-1))[1] for part in (given, given[:, :1])
        )
    assert float((both - first).abs().max()) > 1e-4


def test_copying_takes_the_nearest_of_several_views_by_place_or_by_direction(tmp_path):
    given, angles = views(3), torch.tensor([10.0, 80.0, -100.0, 170.0])
    targets = orbit(angles, torch.full((4,), 20.0), 1.3, pinhole(1.0), 0.8, 1.8).reshape(1, 4)
    moved = Cameras(given.cameras.c2w.clone(), given.cameras.K, given.cameras.near, given.cameras.far)
    moved.c2w[0, 1, :3, 3] = 9.0  # far away, looking where it looked
    given = Views(given.images, moved)
    for baseline, chosen in ((CopyInput(), [0, 0, 2, 2]), (CopyNearest(), [0, 1, 2, 2])):
        copied = baseline.render(baseline.field(given), targets, (16, 16)).rgb
        assert torch.equal(copied[0], given.images[0, chosen])
    one = [copying.render(given[:, :1], targets, (16, 16)) for copying in (CopyInput(), CopyNearest())]
    assert all(map(torch.equal, *one))
    shards, means = gray_shards(tmp_path / "shards"), []
    places = Places(shards, tmp_path, None)
    for number, context in enumerate([(0,), (0, 5)]):
        protocol = Protocol(f"{number}", context, (4,), (16, 16), sha256=f"{number}")
        found = score_baselines(replace(places, out=tmp_path / f"{number}"), protocol, SETTINGS)
        means.append({results.name: results.mean["psnr"] for results in found})
    assert means[0].keys() == {"copy the input view"}
    assert means[1].keys() == {"copy the input view", "copy the nearest input view"}
    # view 5 stands next to view 4; all look in one direction
    assert means[1]["copy the input view"] > means[0]["copy the input view"] + 5


def test_baselines_tell_neighbors_of_a_film_apart():
    """Thirty cameras that turn by a hundredth of a degree from one to the next, and move by a thousandth of a unit, a
    hundred from the origin.
    """
    turn = torch.deg2rad(torch.arange(30) * 1e-2)
    c2w = torch.eye(4).repeat(30, 1, 1)
    c2w[:, 0, 0] = c2w[:, 2, 2] = turn.cos()
    c2w[:, 0, 2], c2w[:, 2, 0] = turn.sin(), -turn.sin()
    c2w[:, 0, 3] = 100 + 1e-3 * torch.arange(30)
    film = Cameras(c2w, pinhole(1.0).expand(30, 3, 3), torch.ones(30), torch.full((30,), 2.0))[None]
    for baseline in (CopyInput(), CopyNearest()):
        assert baseline.choose(film, film).tolist() == [list(range(30))]
