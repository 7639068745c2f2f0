"""IBRNet: published sizes, outputs of the released code, and what views that see nothing or agree must not change."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from vcgen.cameras import Cameras, look_at, orbit, pinhole
from vcgen.encoders.ibrnet import IbrNet
from vcgen.encoders.res_unet import ResUNet
from vcgen.errors import UserError
from vcgen.fields.ibrnet import IbrSampling, IbrScene, ViewBlending, view_differences
from vcgen.fields.source_views import SourceSamples, SourceViews
from vcgen.rays import Rays
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.ray_batches import ray_losses
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.types import RayScene, Views

SMALL = {"features": 4, "widths": (8, 8, 8), "blocks": (1, 1, 1), "stride": 2, "radius": 0.5}
SIZE = 16


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def cameras(count: int, distance: float = 2.0) -> Cameras:
    return orbit(torch.arange(count) * 50.0, torch.full((count,), 20.0), distance, pinhole(1.0), 1.0, 3.0)


def context(views: int = 3, batch: int = 1) -> Views:
    images = torch.rand(batch, views, 3, SIZE, SIZE, generator=generator())
    return Views(images, cameras(batch * views).reshape(batch, views))


def encoder(samples: int = 6, importance: int = 0, **options) -> IbrNet:
    torch.manual_seed(0)
    return IbrNet(IbrSampling(samples, importance, **options), **SMALL)


def target_rays(batch: int = 1, count: int = 5) -> Rays:
    """Through the object, between entry and exit of some sphere."""
    rays = cameras(batch * 3).reshape(batch, 3)[:, 2].rays(SIZE, SIZE)[:, SIZE * SIZE // 2 :: 3][:, :count]
    return replace(rays, near=torch.full((batch, count), 1.5), far=torch.full((batch, count), 2.5))


def seen_by(views: int = 3, samples: int = 6, rays: int = 2) -> tuple[SourceSamples, torch.Tensor]:
    """What views show at samples, at random, and how they look at them."""
    made = generator()
    points = 0.3 * torch.randn(1, rays, samples, 3, generator=made)
    eyes = cameras(views).centers.expand(1, rays, views, 3)
    colors, features = (torch.rand(1, rays, views, samples, c, generator=made) for c in (3, 4))
    seen = SourceSamples(colors, features, colors[..., :2], torch.ones(colors.shape[:-1], dtype=torch.bool), eyes)
    return seen, view_differences(points, torch.tensor([0.0, -1.9, 0.8]).expand(1, rays, 3), eyes)


@pytest.fixture(scope="module")
def network() -> ViewBlending:
    """Whose densities do not vanish."""
    torch.manual_seed(1)
    made = ViewBlending(4)
    torch.nn.init.constant_(made.out_geometry_fc[2].bias, 1.0)
    return made.requires_grad_(False)


def test_published_sizes():
    with torch.device("meta"):
        made = IbrNet()
    assert [sum(p.numel() for p in part.parameters()) for part in made.networks] == [20_136, 20_136]
    assert sum(p.numel() for p in made.feature_net.parameters()) == 8_917_120


def waves(*shape: int, number: int, scale: float = 1.0) -> torch.Tensor:
    """Numbers made by a formula."""
    places = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * torch.sin(places * (0.7 + 0.1 * number) + number)).float().reshape(shape)


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """With weights made by a formula."""
    for number, (_, p) in enumerate(sorted(module.named_parameters())):
        fan = p[0].numel() if p.ndim > 1 else 4
        p.data = waves(*p.shape, number=number + 2, scale=1.5 / fan**0.5)
    return module.requires_grad_(False)


def test_the_network_gives_what_the_released_code_gives():
    """Of github.com/googleinterns/IBRNet, 41807b2, whose deliberate differences show where a view sees nothing."""
    colors, features = 0.5 + 0.5 * waves(1, 1, 3, 4, 3, number=1), waves(1, 1, 3, 4, 32, number=2)
    inner, across = 0.5 + 0.5 * waves(1, 1, 3, 4, 1, number=3), waves(1, 1, 3, 4, 3, number=4)
    valid = torch.ones(1, 1, 3, 4, dtype=torch.bool)
    seen = SourceSamples(colors, features, colors[..., :2], valid, torch.zeros(1, 1, 3, 3))
    density, color = filled(ViewBlending())(seen, torch.cat([F.normalize(across, dim=-1), inner], -1))
    expected = torch.tensor([[0.480719, 0.406331, 0.325731, 0.325225]])
    torch.testing.assert_close(density[0], expected, rtol=0, atol=1e-5)
    expected = [[0.64798, 0.647703, 0.55783], [0.433909, 0.351628, 0.359348]]
    torch.testing.assert_close(color[0, 0, :2], torch.tensor(expected), rtol=0, atol=1e-5)


def test_the_feature_network_gives_what_the_released_code_gives():
    maps = filled(ResUNet(64))(0.5 + 0.5 * waves(1, 3, 32, 48, number=5))
    assert maps.shape == (1, 64, 8, 12)
    expected = torch.tensor([-0.16058, 0.94472, -0.18023, -0.41279, 0.68688, -0.36398, -0.72792, 0.49668])
    torch.testing.assert_close(maps[0, ::9, 1, 2], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stride", [2, 4])
def test_images_whose_sides_are_no_multiples_have_maps_rounded_up(stride):
    assert ResUNet(5, (8, 8, 8), (1, 1, 1), stride)(torch.rand(1, 3, 18, 27)).shape == (
        1,
        5,
        -(-18 // stride),
        -(-27 // stride),
    )


def test_the_order_of_views_changes_nothing(network):
    seen, differences = seen_by()
    order = [2, 0, 1]
    turned = SourceSamples(*(x[:, :, order] for x in seen))
    for one, other in zip(network(seen, differences), network(turned, differences[:, :, order]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_view_that_sees_nothing_changes_nothing(network):
    seen, differences = seen_by()
    blind = seen._replace(valid=seen.valid.clone())
    blind.valid[:, :, 1] = False
    without = SourceSamples(*(x[:, :, [0, 2]] for x in seen))
    for one, other in zip(network(blind, differences), network(without, differences[:, :, [0, 2]]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_colors_lie_between_those_of_the_views_that_see_and_are_theirs_where_all_agree(network):
    seen, differences = seen_by()
    seen.valid[:, :, 0, ::2] = False
    _, color = network(seen, differences)
    low = seen.colors.masked_fill(~seen.valid[..., None], 1).amin(2)
    high = seen.colors.masked_fill(~seen.valid[..., None], 0).amax(2)
    assert (color >= low - 1e-6).all() and (color <= high + 1e-6).all()
    same = seen._replace(colors=seen.colors[:, :, :1].expand_as(seen.colors))
    torch.testing.assert_close(network(same, differences)[1], seen.colors[:, :, 0])


def test_a_sample_that_no_view_sees_is_empty_and_changes_no_other(network):
    seen, differences = seen_by()
    seen.valid[:, :, :, 2] = False
    density, color = network(seen, differences)
    changed = seen._replace(colors=seen.colors.clone(), features=seen.features.clone())
    changed.colors[:, :, :, 2], changed.features[:, :, :, 2] = 0.5, 9.0
    again, recolored = network(changed, differences)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(density, again) and torch.equal(color[:, :, others], recolored[:, :, others])
    assert not density[:, :, 2].any() and density[:, :, others].any()


def test_a_ray_that_no_view_sees_is_empty(network):
    seen, differences = seen_by()
    seen.valid[:, 0] = False
    density, color = network(seen, differences)
    assert not density[:, 0].any() and density[:, 1].any() and torch.isfinite(color).all()


def test_of_one_view_the_weight_is_one_and_of_two_the_nearer_ones(network):
    inner = torch.tensor([0.9, 0.5, 0.1]).reshape(1, 1, 3, 1, 1)

    def weights(*valid: float) -> torch.Tensor:
        return network.pooling_weights(inner, torch.tensor(valid).reshape(1, 1, 3, 1, 1)).flatten()

    torch.testing.assert_close(weights(0, 1, 0), torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(weights(0, 1, 1), torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-5)
    assert torch.equal(weights(0, 0, 0), torch.zeros(3))


@pytest.mark.parametrize("views", [1, 2, 4])
def test_a_scene_is_rendered_from_any_number_of_views(views):
    scene = encoder(4, 3)(context(views, batch=2))
    assert isinstance(scene, RayScene)
    target = cameras(2).reshape(2, 1)
    with torch.no_grad():
        seen = render_image(scene, target, (8, 8), RenderOptions())
    assert all(torch.isfinite(x).all() for x in seen) and seen.rgb.shape == (2, 1, 3, 8, 8)
    assert seen.alpha.min() >= 0 and seen.alpha.max() <= 1 + 1e-6 and scene.queries == 7 * views


def test_without_density_there_is_the_background():
    made = encoder()
    made.networks[0].out_geometry_fc[2].bias.data.fill_(-1e3)
    with torch.no_grad():
        seen = render_image(made(context()), cameras(1).reshape(1, 1), (8, 8), RenderOptions(), background=0.25)
    assert torch.equal(seen.rgb, torch.full_like(seen.rgb, 0.25)) and not seen.alpha.any()


class Slab(torch.nn.Module):
    """Stands in for a network: density 1 at every sample, of one color."""

    def forward(self, seen, differences):
        ones = torch.ones(seen.valid[:, :, 0].shape)
        ones[..., ones.shape[-1] // 2 :] = 0
        return ones, torch.full((*ones.shape, 3), 0.5)


@pytest.mark.parametrize("inverse", [False, True])
def test_density_counts_by_sample_or_by_interval(inverse):
    views = SourceViews(context().images, torch.zeros(1, 3, 4, 8, 8), context().cameras)
    rays, count = target_rays(), 8

    def alpha(interval: bool) -> torch.Tensor:
        sampling = IbrSampling(count, 0, inverse_depth=inverse, interval=interval)
        return IbrScene(torch.zeros(1, 3), torch.ones(1), [views], [Slab()], sampling).shoot(rays).alpha

    middle = 2 / (1 / rays.near + 1 / rays.far) if inverse else (rays.near + rays.far) / 2
    depth = count * (middle - rays.near) / (rays.far - rays.near)
    torch.testing.assert_close(alpha(True), 1 - (-depth).exp())
    torch.testing.assert_close(alpha(False), torch.full_like(depth, count / 2).neg().exp().neg() + 1)


def test_depth_is_that_of_the_samples():
    views = SourceViews(context().images, torch.zeros(1, 3, 4, 8, 8), context().cameras)
    rays = target_rays()
    scene = IbrScene(torch.zeros(1, 3), torch.ones(1), [views], [Slab()], IbrSampling(2, 0, inverse_depth=False))
    shot = scene.shoot(rays)
    torch.testing.assert_close(shot.depth / shot.alpha, rays.near + 0.25 * (rays.far - rays.near))


def test_only_the_nearest_views_count():
    """Of a ray that starts at a source's eye and looks at two: the others may show anything."""
    made = encoder(sources=2)
    views = context(4)
    rays = views.cameras[:, 1].rays(SIZE, SIZE)[:, ::29]
    changed = replace(views, images=views.images.clone())
    changed.images[:, 3] = 0
    with torch.no_grad():
        assert torch.equal(made(views).shoot(rays).rgb, made(changed).shoot(rays).rgb)
        changed.images[:, 1] = 0
        assert not torch.equal(made(views).shoot(rays).rgb, made(changed).shoot(rays).rgb)
    assert made(views).queries == 12


def test_both_passes_learn_and_evaluation_has_one_result():
    made = encoder(4, 3)
    for network in made.networks:
        torch.nn.init.constant_(network.out_geometry_fc[2].bias, 0.2)
    shot = made(context(batch=2)).shoot(target_rays(2), generator())
    (shot.rgb.sum() + shot.coarse.rgb.sum()).backward()
    idle = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    with torch.no_grad():
        assert made(context()).shoot(target_rays()).coarse is None


def test_no_mesh_is_made_of_it_and_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="IbrScene has no density"):
        extract_mesh(encoder()(context()))
    with pytest.raises(UserError, match="16 x 16 pixels; with stride 4 they need at least 17 a side"):
        IbrNet(**{**SMALL, "stride": 4})(context())
    with pytest.raises(UserError, match="widths has 2 numbers and blocks 3"):
        IbrNet(widths=(8, 8))


def test_rays_that_lead_away_from_a_sphere_and_may_end_in_their_camera_give_numbers():
    away = look_at(torch.tensor([0.0, -2, 0]), torch.tensor([3.0, -2, 0]), torch.tensor([0.0, 0, 1]))
    target = replace(cameras(1), c2w=away[None], near=torch.zeros(1)).reshape(1, 1)
    scene, options = encoder()(context()), RenderOptions()
    losses = ray_losses(scene, Views(context().images[:, :1], target), 8, options, generator())
    assert torch.isfinite(losses["rgb"])
    assert torch.equal(render_image(scene, target, (8, 8), options).rgb, torch.ones(1, 1, 3, 8, 8))
