"""The renderer against closed forms, against nerfacc's own `rendering`, and against finite differences."""

from dataclasses import dataclass

import nerfacc
import pytest
import torch

from vcgen.cameras import Cameras, look_at, orbit, pinhole
from vcgen.rays import Rays, importance_edges, uniform_edges
from vcgen.rendering.volume import RenderOptions, composite, ray_sphere, render_image, render_rays


@dataclass
class FunctionField:
    """A field from a density function and a color function of world points."""

    density_of: object
    color_of: object
    center: torch.Tensor
    radius: torch.Tensor
    proposal: object = None

    def __call__(self, points, directions):
        return self.density_of(points), self.color_of(points)

    def density(self, points):
        return self.density_of(points)


def medium(sigma, color, radius=float("inf"), dtype=torch.float64):
    color = torch.tensor(color, dtype=dtype)
    return FunctionField(
        lambda p: torch.full(p.shape[:-1], sigma, dtype=dtype),
        lambda p: color.expand(p.shape),
        torch.zeros(1, 3, dtype=dtype),
        torch.tensor([radius], dtype=dtype),
    )


def along_z(near, far, count=1, dtype=torch.float64):
    origins = torch.zeros(1, count, 3, dtype=dtype)
    directions = torch.zeros(1, count, 3, dtype=dtype)
    directions[..., 2] = 1
    return Rays(origins, directions, full(near, count, dtype), full(far, count, dtype))


def full(value, count=1, dtype=torch.float64):
    return torch.full((1, count), value, dtype=dtype)


@pytest.mark.parametrize("generator", [None, 7])
@pytest.mark.parametrize(
    "options",
    [
        RenderOptions(5),
        RenderOptions(6, importance=9),
        RenderOptions(6, importance=9, keep_coarse=True, around_depth=4),
    ],
)
def test_homogeneous_medium_is_exact_for_any_sampling(options, generator):
    generator = generator and torch.Generator().manual_seed(generator)
    color = [0.2, 0.5, 0.9]
    result = render_rays(medium(1.7, color), along_z(0.5, 2.0, 3), options, generator)
    opacity = 1 - torch.exp(torch.tensor(-1.7 * 1.5, dtype=torch.float64))
    torch.testing.assert_close(result.alpha, full(float(opacity), 3))
    torch.testing.assert_close(
        result.over(1.0), (opacity * torch.tensor(color, dtype=torch.float64) + 1 - opacity).expand(1, 3, 3)
    )


def test_layered_medium_matches_the_closed_form():
    """Three slabs whose borders lie on interval edges: red 1.0, empty, blue 2.5."""
    density = lambda p: torch.where(p[..., 2] < 1, 1.0, torch.where(p[..., 2] < 2, 0.0, 2.5)).double()
    red, blue = torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.tensor([0, 0, 1.0], dtype=torch.float64)
    color = lambda p: torch.where((p[..., 2] < 1)[..., None], red, blue)
    field = FunctionField(
        density, color, torch.zeros(1, 3, dtype=torch.float64), torch.tensor([float("inf")], dtype=torch.float64)
    )
    result = render_rays(field, along_z(0.0, 3.0), RenderOptions(12))
    e = torch.exp
    first, second = (
        1 - e(torch.tensor(-1.0).double()),
        e(torch.tensor(-1.0).double()) * (1 - e(torch.tensor(-2.5).double())),
    )
    torch.testing.assert_close(result.rgb[0, 0], first * red + second * blue)
    torch.testing.assert_close(result.alpha[0, 0], first + second)


def test_compositing_equals_nerfacc_rendering():
    generator = torch.Generator().manual_seed(0)
    edges = torch.rand(4, 9, generator=generator).sort(-1).values
    density, color = torch.rand(4, 8, generator=generator) * 20, torch.rand(4, 8, 3, generator=generator)
    mine, weights = composite(density, color, edges)
    rgb, opacity, depth, extras = nerfacc.rendering(
        edges[:, :-1], edges[:, 1:], rgb_sigma_fn=lambda s, e, i: (color, density)
    )
    torch.testing.assert_close(mine.rgb, rgb)
    torch.testing.assert_close(mine.alpha[:, None], opacity)
    torch.testing.assert_close(mine.depth[:, None] / mine.alpha[:, None], depth)  # nerfacc divides by the opacity
    torch.testing.assert_close(weights, extras["weights"])


def test_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(1)
    edges = torch.rand(2, 7, generator=generator, dtype=torch.float64).sort(-1).values
    density = (torch.rand(2, 6, generator=generator, dtype=torch.float64) * 5).requires_grad_()
    color = torch.rand(2, 6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda d, c: tuple(composite(d, c, edges)[0][:3]), (density, color))


@pytest.mark.parametrize("options", [RenderOptions(64), RenderOptions(24, importance=24)])
def test_dense_sphere_renders_the_analytic_silhouette_and_depth(options):
    """An opaque ball of radius 0.3 off the axis: alpha against exact ray-sphere intersection, at two resolutions."""
    center = torch.tensor([[0.1, -0.05, 0.08]])
    field = FunctionField(
        lambda p: 2000.0 * ((p - center).norm(dim=-1) < 0.3),
        lambda p: torch.full(p.shape, 0.25),
        torch.zeros(1, 3),
        torch.tensor([0.5]),
    )
    camera = orbit(torch.tensor([30.0]), torch.tensor([20.0]), 1.3, pinhole(1.0254), 0.8, 1.8).reshape(1, 1)
    for size in ((64, 64), (48, 96)):
        seen = render_image(field, camera, size, options)
        entry, leave = ray_sphere(camera.rays(*size)[:, 0], center, torch.tensor([0.3]))
        chord = (leave - entry).reshape(size)
        deep = chord > 0.06  # thin rims are missed between samples
        assert (seen.alpha[0, 0, 0][deep] > 0.99).all()
        assert (seen.alpha[0, 0, 0][chord == 0] == 0).all()
        torch.testing.assert_close(seen.depth[0, 0, 0][deep], entry.reshape(size)[deep], atol=0.03, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
@pytest.mark.parametrize(("azimuth", "elevation"), [(30.0, 20.0), (75.0, 40.0), (200.0, -10.0), (310.0, 5.0)])
def test_pixel_centers_are_where_a_ball_says(size, azimuth, elevation):
    """A pinhole shows a ball at (X, Y, Z) as an ellipse around (X, Y) Z / (Z^2 - r^2) of the plane Z = 1; what is
    rendered lies there.
    """
    center, radius, focal = torch.tensor([0.1, -0.05, 0.08]), 0.3, 1.0254
    field = FunctionField(
        lambda p: 2000.0 * ((p - center).norm(dim=-1) < radius),
        lambda p: torch.ones(p.shape),
        torch.zeros(1, 3),
        torch.tensor([0.5]),
    )
    camera = orbit(torch.tensor([azimuth]), torch.tensor([elevation]), 1.3, pinhole(focal), 0.8, 1.8).reshape(1, 1)
    alpha = render_image(field, camera, size, RenderOptions(512)).alpha[0, 0, 0]
    v, u = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    centroid = torch.stack([(alpha * u).sum(), (alpha * v).sum()]) / alpha.sum()
    x, y, z, _ = (torch.linalg.inv(camera.c2w[0, 0]) @ torch.cat([center, torch.ones(1)])).tolist()
    expected = (focal * z / (z**2 - radius**2) * torch.tensor([x, y]) + 0.5) * torch.tensor([size[1], size[0]])
    # the middle's own projection lies 0.1 to 0.4 pixels away
    torch.testing.assert_close(centroid, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("passes", [{}, dict(importance=8), dict(importance=12, keep_coarse=True, around_depth=3)])
def test_chunking_never_changes_the_image_and_keeps_its_bound(passes):
    asked = []

    def density(points):
        asked.append(points.shape[:-1].numel())
        return 5 * (points.sin().sum(-1) + 2)

    field = FunctionField(density, lambda p: p.cos().abs(), torch.zeros(2, 3), torch.tensor([0.5, 0.3]))
    cameras = orbit(
        torch.tensor([0.0, 90.0, 180.0, 45.0]), torch.tensor([10.0, 20.0, 30.0, 40.0]), 1.3, pinhole(1.0), 0.8, 1.8
    ).reshape(2, 2)
    whole = render_image(field, cameras, (16, 12), RenderOptions(8, **passes))
    assert max(asked) > 1000
    points, _ = sum(asked), asked.clear()
    parts = render_image(field, cameras, (16, 12), RenderOptions(8, max_points=100, **passes))
    assert max(asked) <= 100 and sum(asked) == points
    asked.clear()
    every = render_image(field, cameras, (16, 12), RenderOptions(8, **passes), skip_misses=False)
    assert sum(asked) > points
    for a, b, c in zip(whole, parts, every, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)


def test_missed_rays_show_the_background_at_far():
    field = medium(5.0, [0.0, 0.0, 0.0], radius=0.1, dtype=torch.float32)
    camera = Cameras(
        look_at(torch.tensor([[[0.0, -1, 0]]]), torch.zeros(1, 1, 3), torch.tensor([0.0, 0, 1])),
        pinhole(1.0)[None, None],
        full(0.5, dtype=torch.float32),
        full(1.5, dtype=torch.float32),
    )
    seen = render_image(field, camera, (9, 9), RenderOptions(4), background=0.5)
    assert seen.rgb[0, 0, 0, 0, 0] == 0.5 and seen.depth[0, 0, 0, 0, 0] == 1.5 and seen.alpha[0, 0, 0, 0, 0] == 0
    assert seen.alpha[0, 0, 0, 4, 4] == pytest.approx(1 - 2.718281828**-1.0, abs=1e-5)
    away = render_image(
        medium(5.0, [0.0] * 3, radius=0.1, dtype=torch.float32),
        Cameras(camera.c2w @ torch.diag(torch.tensor([-1.0, 1, -1, 1])), camera.K, camera.near, camera.far),
        (9, 9),
        RenderOptions(4),
    )
    assert (away.rgb == 1).all()


def test_importance_edges_follow_the_weights():
    edges = uniform_edges(torch.zeros(1), torch.ones(1), 10, None)
    weights = torch.zeros(1, 10)
    weights[0, 6] = 1.0
    fine = importance_edges(edges, weights, 100, None)
    assert ((fine >= 0.6) & (fine <= 0.7)).float().mean() > 0.95
    assert fine[0, 0] == 0 and fine[0, -1] == 1 and (fine.diff() >= 0).all()
    jittered = importance_edges(edges, weights, 100, torch.Generator().manual_seed(0))
    assert (jittered.diff() >= 0).all() and not torch.equal(jittered, fine)


def test_ray_sphere_clips_to_the_chord():
    center, radius = torch.tensor([[0.3, 0, 2.0]]).double(), torch.tensor([0.5]).double()
    entry, leave = ray_sphere(along_z(0.1, 9.0), center, radius)
    torch.testing.assert_close([float(entry), float(leave)], [2 - 0.4, 2 + 0.4])
    entry, leave = ray_sphere(along_z(1.9, 2.1), center, radius)
    torch.testing.assert_close([float(entry), float(leave)], [1.9, 2.1])
