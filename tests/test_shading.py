"""Normals and light against closed forms; the background network; skipping empty space changes no image."""

import math

import pytest
import torch
from torch.nn import functional as F

from vcgen.cameras import orbit, pinhole
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.fields.background import Background
from vcgen.fields.hashgrid import HashGrid
from vcgen.fields.occupancy import OccupancyGrid, OccupiedField
from vcgen.rays import Rays
from vcgen.rendering.shading import Shading, light_near, lit, normals, render_shaded, shaded_image
from vcgen.rendering.volume import RenderOptions, render_image, render_rays
from vcgen.types import Field, Views


class Ball:
    """A ball of radius 0.5: exactly empty outside, and counts how many points are looked up. hard: constant density
    inside; else falling from the center, so that the gradient has a direction everywhere."""

    def __init__(self, hard: bool = False):
        self.center, self.radius, self.proposal, self.hard, self.queries = (
            torch.zeros(1, 3),
            torch.ones(1),
            None,
            hard,
            0,
        )

    def density(self, points):
        self.queries += points.shape[1]
        r = points.norm(dim=-1)
        return 40.0 * (r < 0.5) if self.hard else 200 * (0.5 - r).clamp(min=0)

    def __call__(self, points, directions):
        return self.density(points), (points + 0.5).clamp(0, 1)


def camera(count: int = 1):
    return orbit(torch.arange(count) * 50.0, torch.full((count,), 20.0), 3.0, pinhole(1.2), 1.5, 4.5)


def rays(size: int = 16):
    return camera().rays(size, size)


def test_normals_of_a_ball_point_outwards():
    points = F.normalize(torch.randn(1, 100, 3), dim=-1) * torch.linspace(0.1, 0.45, 100)[:, None]
    torch.testing.assert_close(normals(Ball(), points), F.normalize(points, dim=-1), atol=2e-3, rtol=0)
    assert bool((normals(Ball(), 10 + points) == 0).all())


def test_normals_are_differentiable():
    torch.manual_seed(0)
    scene = SceneHashGrid(HashGrid(3, 2, 10, 4, 16))
    field = scene(Views(torch.zeros(1, 1, 3, 1, 1), camera()[None]))
    points = torch.rand(1, 10, 3) - 0.5
    direction = torch.randn(1, 10, 3)

    def value() -> torch.Tensor:
        return (normals(field, points) * direction).sum()

    torch.nn.init.normal_(scene.grid.table, std=0.5)
    gradient = torch.autograd.grad(value(), scene.grid.table)[0]
    entry = int(gradient.abs().sum(1).argmax())
    found = []
    with torch.no_grad():
        for change in (1e-3, -2e-3):
            scene.grid.table[entry, 0] += change
            found.append(value())
    assert float(found[0] - found[1]) / 2e-3 == pytest.approx(float(gradient[entry, 0]), rel=0.05, abs=0.02)


def test_light_on_a_known_normal():
    """45 degrees: 0.1 + 0.9 cos 45."""
    light, normal = (
        torch.tensor([0.0, 0.0, 1.0]),
        torch.tensor([[0.0, math.sqrt(0.5), math.sqrt(0.5)], [0.0, 0.0, -1.0]]),
    )
    albedo = torch.tensor([[0.2, 0.4, 0.8]]).expand(2, 3)
    factor = torch.tensor([[0.1 + 0.9 * math.sqrt(0.5)], [0.1]])
    torch.testing.assert_close(lit(albedo, normal, Shading("lambertian", light)), albedo * factor)
    torch.testing.assert_close(lit(albedo, normal, Shading("textureless", light)), factor.expand(2, 3))
    assert torch.equal(lit(albedo, normal, Shading("albedo", light)), albedo)


def test_the_light_stands_near_the_camera():
    eye = torch.tensor([0.0, -50.0, 0.0])  # so far that the scatter, of variance 1, does not matter
    lights = torch.stack([light_near(eye, torch.Generator().manual_seed(i)) for i in range(20)])
    torch.testing.assert_close(lights.norm(dim=-1), torch.ones(20))
    assert bool((lights[:, 1] < -0.99).all()) and len(lights.unique(dim=0)) == 20


def test_without_light_a_shaded_rendering_is_the_plain_one():
    options = RenderOptions(32)
    for generator in (None, 3):
        draws = [None if generator is None else torch.Generator().manual_seed(generator) for _ in range(2)]
        seen = render_shaded(Ball(), rays(), options, Shading(), draws[0]).rays
        for ours, plain in zip(seen[:3], render_rays(Ball(), rays(), options, draws[1])[:3]):
            torch.testing.assert_close(ours, plain)
    assert render_shaded(Ball(), rays(), options, Shading(), with_normals=False).normals is None
    with pytest.raises(ValueError, match="needs normals"):
        render_shaded(Ball(), rays(), options, Shading("lambertian", torch.eye(3)[0]), with_normals=False)


def test_a_ball_is_lit_by_lamberts_law_and_its_normals_face_the_eye():
    eye = camera().centers[0]
    light = F.normalize(eye, dim=0)
    seen = render_shaded(Ball(), rays(17), RenderOptions(256), Shading("textureless", light))
    image = seen.rays.rgb.reshape(17, 17, 3)
    torch.testing.assert_close(seen.normals[0].reshape(17, 17, 3)[8, 8], light, atol=0.03, rtol=0)
    # lit from the eye: full in the middle, darker towards the rim
    assert float(image[8, 8, 0]) == pytest.approx(1, abs=0.03)
    assert bool((image[8, 5:9].diff(dim=0) > 0).all())
    # What is seen faces the eye, but for the far half behind the translucent rim.
    away = seen.orientation.reshape(17, 17)
    assert float(away[7:10, 7:10].max()) < 1e-6 and float(away.max()) < 0.01


def test_normals_that_face_away_cost_their_squared_cosine():
    class Inverted(Ball):
        def density(self, points):
            # denser outwards: normals point inwards
            return torch.where(points.norm(dim=-1) < 0.5, 5 + 50 * points.norm(dim=-1), 0.0)

    eye = camera().centers
    direction = -F.normalize(eye, dim=-1)[:, None]
    seen = render_shaded(
        Inverted(),
        Rays(eye[:, None], direction, torch.tensor([[2.55]]), torch.tensor([[2.95]])),
        RenderOptions(64),
        Shading(),
        least=0.0,
    )
    torch.testing.assert_close(seen.orientation, seen.rays.alpha, atol=1e-3, rtol=0)  # cosine 1 in front of the center


def test_a_shaded_image_is_the_renderers_whatever_the_chunk():
    options, views = RenderOptions(24), camera(2)
    expected = render_image(Ball(), views.reshape(1, 2), (12, 12), options)
    for chunk in (100, 1 << 16):
        seen, normal = shaded_image(Ball(), views[1:], (12, 12), options, chunk=chunk)
        for ours, theirs in zip(seen, expected):
            torch.testing.assert_close(ours, theirs[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(normal[0, 0, :, 0, 0], torch.ones(3))
    assert normal.shape == (1, 1, 3, 12, 12)


@pytest.mark.parametrize("hard", [True, False])
def test_an_exact_grid_changes_no_image_and_asks_for_fewer_points(hard):
    ball, options = Ball(hard), RenderOptions(48)
    grid = OccupancyGrid(32, threshold=1e-6)
    assert bool(grid.occupied().all())
    for seed in range(8):
        grid.refresh(ball, torch.Generator().manual_seed(seed))
    views = camera(3).reshape(1, 3)
    ball.queries = 0
    dense = render_image(ball, views, (16, 16), options)
    asked, ball.queries = ball.queries, 0
    skipping = OccupiedField(ball, grid)
    assert isinstance(skipping, Field)
    sparse = render_image(skipping, views, (16, 16), options)
    assert 0 < ball.queries < 0.4 * asked
    for a, b in zip(sparse, dense):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert math.pi / 6 * 0.5**3 < grid.fraction() < 2 * math.pi / 6 * 0.5**3  # the ball, and a rim of one to two cells


def test_the_grid_forgets_what_has_gone():
    class Nothing(Ball):
        def density(self, points):
            return torch.zeros(points.shape[:2])

    grid = OccupancyGrid(16, decay=0.5, threshold=1.0)
    grid.refresh(Ball())
    full = grid.occupied().sum()
    assert full > 0
    for _ in range(4):
        grid.refresh(Nothing())
    assert int(grid.density.max()) < 10 and float(grid.density.max()) > 0
    for _ in range(12):
        grid.refresh(Nothing())
    assert float(grid.density.max()) < 0.01
    # A thin scene stays: cells above the mean count.
    assert 0 < grid.fraction() < 0.7


def test_gradients_pass_where_it_is_occupied():
    torch.manual_seed(0)
    scene = SceneHashGrid(HashGrid(3, 2, 10, 4, 16), blob=(7.0, 0.2), density_bias=-4.0)
    field = scene(Views(torch.zeros(1, 1, 3, 1, 1), camera()[None]))
    grid = OccupancyGrid(16)
    grid.refresh(field)
    points = torch.rand(1, 500, 3) * 2 - 1
    found, whole = OccupiedField(field, grid).density(points), field.density(points)
    kept = OccupiedField(field, grid).kept(points)
    assert 0 < len(kept) < 250
    torch.testing.assert_close(found[0, kept], whole[0, kept])
    assert int((found != 0).sum()) == len(kept)
    for ours, theirs in zip(
        *(torch.autograd.grad(x[0, kept].sum(), [*scene.parameters()], allow_unused=True) for x in (found, whole))
    ):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="one scene"):
        OccupiedField(scene(Views(torch.zeros(2, 1, 3, 1, 1), camera()[None])), grid)


def test_the_background_depends_on_the_direction_smoothly_and_is_small():
    net = Background()
    directions = F.normalize(torch.randn(50, 3), dim=-1)
    colors = net(directions)
    assert colors.shape == (50, 3) and float(colors.min()) > 0 and float(colors.max()) < 1
    assert float(colors.std(0).min()) > 0.01
    assert sum(p.numel() for p in net.parameters()) == 36 * 64 + 64 + 64 * 64 + 64 + 64 * 3 + 3
    with pytest.raises(ValueError):
        Background(0)
