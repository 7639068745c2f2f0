"""Feature volumes: look-ups in frusta, features as they are rendered."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from small_genvs import DISTANCE, RADIUS, SIDE, cameras, context, encoder, generator, points
from vcgen.cameras import Cameras
from vcgen.encoders.feature_volume import FeatureVolume
from vcgen.errors import UserError
from vcgen.fields.feature_volume import FeatureField
from vcgen.rendering.volume import RenderOptions, ray_sphere, render_image, render_rays
from vcgen.types import Field, Views


def field(azimuths: list[float], volumes: torch.Tensor, decoder=None, focal: float = 1.0) -> FeatureField:
    center, radius = torch.zeros(1, 3), torch.full((1,), RADIUS)
    return FeatureField(center, radius, volumes, cameras(azimuths, focal), decoder or nn.Identity())


def test_a_volume_constant_along_depth_is_read_where_the_point_projects():
    image = torch.rand(1, 1, 5, 1, 7, 6, generator=generator())
    scene = field([30.0], image.expand(-1, -1, -1, 4, -1, -1))
    uv, _ = scene.cameras.project(points()[:, None])
    expected = F.grid_sample(image[0, :, :, 0], 2 * uv - 1, padding_mode="border", align_corners=False)[:, :, 0].mT
    found, seen = scene.look_up(points())
    torch.testing.assert_close(found, expected)
    assert seen.all()


def test_the_cells_along_the_depth_are_read_where_the_point_lies():
    """A ramp whose cells are as deep as their centers gives each point its own z-depth, between the outer centers."""
    edges = torch.linspace(DISTANCE - RADIUS, DISTANCE + RADIUS, 9)
    ramp = ((edges[1:] + edges[:-1]) / 2)[:, None, None].expand(8, 5, 5)
    scene = field([30.0], ramp[None, None, None])
    torch.testing.assert_close(scene.look_up(points())[0][..., 0], scene.cameras.project(points()[:, None])[1][:, 0])


def test_the_corners_of_a_frustum_are_the_corners_of_its_cube():
    scene = field([25.0], torch.zeros(1, 1, 3, 2, 2, 2))
    signs = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    z = DISTANCE + RADIUS * signs[:, 2:]
    local = torch.cat([signs[:, :2] / 2 * z, z], -1)  # focal length 1: u - 1/2 = x / z
    c2w = scene.cameras.c2w[0, 0]
    corners = local @ c2w[:3, :3].T + c2w[:3, 3]
    torch.testing.assert_close(scene.coordinates(corners[None])[0, 0], signs, rtol=0, atol=1e-5)


def test_equal_views_are_as_good_as_one():
    volume = torch.randn(1, 1, 4, 3, 5, 5, generator=generator())
    one, three = field([10.0], volume), field([10.0] * 3, volume.expand(1, 3, -1, -1, -1, -1))
    torch.testing.assert_close(one.look_up(points())[0], three.look_up(points())[0])


def test_a_point_is_read_from_those_views_alone_in_whose_frusta_it_lies():
    volumes = torch.stack([torch.full((4, 2, 3, 3), value) for value in (1.0, 5.0)])[None]
    scene = field([0.0, 90.0], volumes, lambda x: (torch.ones(x.shape[:-1]), x), focal=3.0)
    c2w = scene.cameras.c2w[0]
    beside = 0.45 * c2w[0, :3, 2]  # on the axis of the first camera, wide of the second's narrow frustum
    behind = scene.cameras.centers[0, 0] - 0.1 * c2w[0, :3, 2]
    asked = torch.stack([torch.zeros(3), beside, behind])[None]
    density, features = scene(asked, asked)
    assert features[0, :, 0].tolist() == [3.0, 1.0, 0.0] and density[0].tolist() == [1.0, 1.0, 0.0]


def test_features_behind_nothing_on_an_opaque_slab_come_back_exactly():
    wanted = torch.randn(16, generator=generator())
    volume = wanted[:, None, None, None].expand(16, 4, 4, 4)[None, None]

    def slab(features):
        return torch.full(features.shape[:-1], 1e6), features

    scene = field([0.0], volume, slab, focal=0.7)
    seen = render_image(scene, cameras([0.0]), (3, 3), RenderOptions(9), background=0.0)
    torch.testing.assert_close(seen.rgb[0, 0, :, 1, 1], wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(seen.alpha[0, 0, 0, 1, 1], torch.tensor(1.0))


@pytest.mark.parametrize("samples", [1, 3, 20])
def test_a_homogeneous_medium_is_exact_whatever_the_number_of_samples(samples):
    wanted = torch.randn(16, generator=generator())
    volume = wanted[:, None, None, None].expand(16, 4, 4, 4)[None, None]
    scene = field([0.0], volume, lambda x: (torch.full(x.shape[:-1], 2.0), x), focal=0.5)
    rays = cameras([60.0]).rays(8, 8).reshape(1, -1)
    entry, leave = ray_sphere(rays, scene.center, scene.radius)
    seen = render_rays(scene, rays, RenderOptions(samples))
    alpha = 1 - torch.exp(-2.0 * (leave - entry))
    torch.testing.assert_close(seen.alpha, alpha)
    torch.testing.assert_close(seen.rgb, alpha[..., None] * wanted)


def test_an_encoded_scene_is_a_field_of_colors_with_its_features():
    scene = encoder()(context(2))
    assert isinstance(scene, Field) and isinstance(scene.features, Field)
    assert scene.features.volumes.shape == (1, 2, 4, 3, SIDE // 2, SIDE // 2)
    density, color = scene(points(), points())
    ours, features = scene.features(points(), points())
    assert torch.equal(density, ours) and torch.equal(density, scene.density(points()))
    torch.testing.assert_close(color, features[..., :3].sigmoid())


def test_scenes_are_seen_from_the_input_camera_and_do_not_see_each_other():
    made, views = encoder(), context()
    turned = Views(views.images, cameras([75.0]))
    both = Views(torch.cat([views.images, 1 - views.images]), Cameras.cat([views.cameras, turned.cameras]))
    with torch.no_grad():
        one = render_image(made(views), cameras([50.0]), (8, 8), RenderOptions(8)).rgb
        same = render_image(made(turned), cameras([125.0]), (8, 8), RenderOptions(8)).rgb
        first = render_image(made(both), cameras([50.0, 50.0]).reshape(2, 1), (8, 8), RenderOptions(8)).rgb[:1]
    torch.testing.assert_close(one, same, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one, first, rtol=1e-4, atol=1e-5)


def test_images_and_options_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="images have 18 x 18 pixels; their sides must be multiples of 4"):
        encoder()(context(size=18))
    with pytest.raises(UserError, match="features is 2; give at least 3"):
        FeatureVolume(features=2)
