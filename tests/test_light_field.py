"""Light fields: laws of Pluecker coordinates, depth of an analytic plane, published sizes."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from coded import cameras, context, generator, light_fields
from vcgen.encoders.image_code import CodeEncoder
from vcgen.encoders.light_field import LightFieldDecoder
from vcgen.errors import UserError
from vcgen.fields.light_field import crossing, pluecker
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.types import RayScene, Views


def rays(count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    made = generator()
    o = torch.randn(count, 3, generator=made, dtype=torch.float64)
    return o, F.normalize(torch.randn(count, 3, generator=made, dtype=torch.float64), dim=-1)


def encoder(**options) -> CodeEncoder:
    return CodeEncoder(light_fields(), (8, 8), **options)


def test_pluecker_coordinates_are_of_the_ray_and_not_of_the_point_on_it():
    o, d = rays()
    torch.testing.assert_close(pluecker(o, d), pluecker(o + 1.7 * d, d))


def test_the_moment_is_perpendicular_and_tells_the_distance():
    direction, moment = pluecker(*rays()).split(3, -1)
    torch.testing.assert_close((direction * moment).sum(-1), torch.zeros(50, dtype=torch.float64))
    foot = torch.linalg.cross(direction, moment)  # the ray's nearest point to the origin
    torch.testing.assert_close(foot.norm(dim=-1), moment.norm(dim=-1))
    torch.testing.assert_close(torch.linalg.cross(foot, direction), moment)


def test_pluecker_coordinates_move_with_the_world():
    o, d = rays()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator(), dtype=torch.float64)).Q
    turn = turn * torch.linalg.det(turn)
    shift = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    direction, moment = pluecker(o, d).split(3, -1)
    turned = direction @ turn.T
    expected = torch.cat([turned, moment @ turn.T + torch.linalg.cross(shift.expand_as(turned), turned)], -1)
    torch.testing.assert_close(pluecker(o @ turn.T + shift, d @ turn.T), expected)


def test_depth_of_a_textured_plane_is_exact():
    normal, offset = F.normalize(torch.tensor([0.2, 0.3, 1.0]).double(), dim=0), 0.1
    start = torch.tensor([[0.3, -0.2, -1.0], [-0.4, 0.1, -0.8]]).double()
    end = torch.tensor([[-0.1, 0.2, 1.0], [0.3, 0.3, 0.9]]).double()

    def color(o, d):
        hit = o + ((offset - o @ normal) / (d @ normal))[:, None] * d
        return torch.stack([hit[:, 0], hit[:, 1] + 2 * hit[:, 0], hit[:, 2].sin()], -1)

    true = (offset - start @ normal) / ((end - start) @ normal)
    torch.testing.assert_close(crossing(color, start, end), true, rtol=0, atol=1e-5)


def test_a_light_field_without_texture_lies_in_the_middle():
    start, end = torch.zeros(4, 3), torch.ones(4, 3)
    torch.testing.assert_close(crossing(lambda o, d: torch.ones(4, 3), start, end), torch.full((4,), 0.5))


def test_cameras_that_share_a_ray_agree_on_it():
    scene = encoder()(context())
    assert isinstance(scene, RayScene)
    seen = cameras([0.0, 120.0]).reshape(2, 1).rays(8, 8).reshape(2, -1)
    moved = replace(seen, origins=seen.origins + 0.25 * seen.directions, near=seen.near - 0.25, far=seen.far - 0.25)
    with torch.no_grad():
        first, second = scene.shoot(seen), scene.shoot(moved)
    torch.testing.assert_close(first.rgb, second.rgb)
    torch.testing.assert_close(first.alpha, second.alpha)


def test_rays_are_seen_from_the_input_camera():
    """Turned together with all cameras, the object looks the same; a canonical frame would show another side."""
    made, views = encoder(), context(1)

    def seen(turn: float):
        images = Views(views.images, cameras([turn]).reshape(1, 1))
        return render_image(made(images), cameras([turn + 50]).reshape(1, 1), (8, 8), RenderOptions()).rgb

    with torch.no_grad():
        torch.testing.assert_close(seen(0.0), seen(75.0), rtol=1e-4, atol=1e-5)
        made.frame = "world"
        assert (seen(0.0) - seen(75.0)).abs().max() > 1e-3


def test_views_of_an_object_in_a_canonical_pose_give_their_mean_code():
    made, views = encoder(frame="world"), context(2)
    both = Views(views.images.transpose(0, 1), views.cameras.reshape(1, 2))
    with torch.no_grad():
        torch.testing.assert_close(made(both).code, made(views).code.mean(0, keepdim=True))
    with pytest.raises(UserError, match="looks at one input view"):
        encoder()(both)


def test_scenes_do_not_see_each_other():
    made, views = encoder(), context()
    target = cameras([0.0, 0.0]).reshape(2, 1)
    changed = Views(torch.stack([views.images[0], 1 - views.images[1]]), views.cameras)
    with torch.no_grad():
        one, other = (render_image(made(v), target, (8, 8), RenderOptions()).rgb for v in (views, changed))
    torch.testing.assert_close(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 1e-4


def test_the_zero_code_gives_all_scenes_one_network_and_costs_nothing():
    made = encoder()
    torch.nn.init.zeros_(made.to_code.weight)
    torch.nn.init.zeros_(made.to_code.bias)
    scene = made(context())
    for matrix, bias in scene.weights:
        torch.testing.assert_close(matrix[0], matrix[1])
        torch.testing.assert_close(bias[0], bias[1])
    shot = scene.shoot(cameras([0.0, 9.0]).reshape(2, 1).rays(4, 4).reshape(2, -1), generator())
    assert float(shot.penalties["latent"].detach()) == 0


def test_published_sizes():
    """397,315 weights of the light field, of which each of the sixteen tensors has two layers of its own: 104.2 million
    (https://github.com/vsitzmann/light-field-networks); the opacity's output is ours."""
    with torch.device("meta"):
        network = LightFieldDecoder().hypernetwork
    opacity = 256 + 1
    sizes = [head.out_features for head in network.heads]
    assert len(sizes) == 16 and sum(sizes) - opacity == 397_315
    assert sum(p.numel() for p in network.parameters()) - opacity * 257 == 104_231_683


def test_no_mesh_is_made_of_it():
    with pytest.raises(UserError, match="LightField has no density"):
        extract_mesh(encoder()(context(1)))


def test_gradients_reach_encoder_and_hypernetwork_through_color_and_opacity():
    made = encoder()
    shot = made(context()).shoot(cameras([0.0, 9.0]).reshape(2, 1).rays(4, 4).reshape(2, -1), generator())
    (shot.rgb.sum() + shot.alpha.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())
