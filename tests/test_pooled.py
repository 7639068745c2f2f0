"""Triplanes of several views, pooled: whose features count where."""

import pytest
import torch

from test_triplane import cameras, encoder
from vcgen.cameras import Cameras
from vcgen.fields.pooled import UNSEEN, pooled
from vcgen.fields.triplane import TriplaneDecoder, TriplaneField
from vcgen.types import Field, Views


@pytest.fixture(scope="module")
def given() -> Views:
    return Views(torch.rand(3, 2, 3, 16, 16), cameras(6).reshape(3, 2), torch.ones(3, 2, 1, 16, 16))


@pytest.fixture(scope="module")
def made():
    return encoder(projection="perspective").eval()


def sides() -> Cameras:
    """Two cameras, 122 degrees apart."""
    return cameras(4)[[0, 3], 0]


def of_views(density: float, size: int = 8) -> TriplaneField:
    """Two views of one scene, from two sides: random planes, and the same density everywhere."""
    camera = sides()
    frame = camera.c2w.clone()
    frame[:, :3, 3] = camera.centers + 1.3 * camera.c2w[:, :3, 2]
    decoder = TriplaneDecoder(4, 16)
    torch.nn.init.zeros_(decoder.head.weight[:1])
    torch.nn.init.constant_(decoder.head.bias[:1], 1e3 * density)
    decoder.density_bias, decoder.density_scale = 0.0, 1e-3
    return TriplaneField(
        torch.randn(2, 3, 4, size, size), decoder, frame, 0.56, torch.full((2,), 0.51), eye_distance=1.3
    )


@torch.no_grad()
def test_views_are_pooled_scene_by_scene_in_any_order_and_equal_ones_are_one(given, made):
    points, directions = torch.randn(3, 40, 3) * 0.2, torch.zeros(3, 40, 3)
    field = made(given)
    assert (
        isinstance(field, Field) and field.center.shape == (3, 3) and field.radius.tolist() == pytest.approx([0.51] * 3)
    )
    both = field(points, directions)
    torch.testing.assert_close(field.density(points), both[0])
    for other in (given[:, [1, 0]], given[:, [0, 1, 0, 1]]):
        for a, b in zip(both, made(other)(points, directions), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    for a, b in zip(both, made(given[1:2])(points[1:2], directions[1:2]), strict=True):
        torch.testing.assert_close(a[1:2], b, atol=1e-5, rtol=1e-4)
    one = made(given[:, :1])
    assert isinstance(one, TriplaneField)
    for a, b in zip(one(points, directions), made(given[:, [0, 0]])(points, directions), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("density", [0.0, 2.0])
def test_transmittance_is_that_of_a_homogeneous_medium(density):
    """Beer and Lambert, from where the ray to the camera leaves the sphere."""
    field = pooled(of_views(density), 2)
    points = torch.nn.functional.normalize(torch.randn(1, 200, 3), dim=-1) * torch.rand(1, 200, 1) * 0.45
    eyes = sides().centers
    rays = torch.nn.functional.normalize(points - eyes[:, None], dim=-1)
    along = -(rays * eyes[:, None]).sum(-1)
    enters = along - (0.51**2 - eyes.square().sum(-1)[:, None] + along.square()).sqrt()
    expected = torch.exp(-density * ((points - eyes[:, None]).norm(dim=-1) - enters))
    torch.testing.assert_close(field.visibility(points.repeat_interleave(2, 0)), expected, atol=0.06, rtol=0)


@torch.no_grad()
def test_the_view_that_sees_a_point_decides_and_where_none_does_all_count_alike():
    field = pooled(of_views(60.0), 2)
    eyes = sides().centers
    center, before = torch.zeros(1, 1, 3), torch.nn.functional.normalize(eyes[:1], dim=-1)[None] * 0.5
    each = field.views.features(before.repeat_interleave(2, 0))[:, 0]
    torch.testing.assert_close(field.features(before)[0, 0], each[0], atol=4 * UNSEEN, rtol=0)
    assert (field.features(before)[0, 0] - each[1]).abs().max() > 0.1
    torch.testing.assert_close(field.features(center)[0, 0], field.views.features(center.expand(2, -1, -1)).mean(0)[0])


def test_gradients_of_several_views_reach_every_parameter(given):
    made = encoder()
    density, color = made(given)(torch.randn(3, 50, 3) * 0.3, torch.zeros(3, 50, 3))
    (density.sum() + color.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


@torch.no_grad()
def test_mixed_precision_does_not_move_the_places_of_the_transmittance():
    """Thin walls: a place in bfloat16, of three digits, is beside them."""
    torch.manual_seed(0)
    views = of_views(5.0, 64)
    torch.nn.init.normal_(views.decoder.head.weight[:1], std=2e4)
    exact = pooled(views, 2).transmittance
    with torch.autocast("cpu", torch.bfloat16):
        found = pooled(views, 2).transmittance
    assert (found - exact).abs().max() < 0.1 * exact.std()
