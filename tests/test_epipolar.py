"""Epipolar transformers: frames, epipolar geometry, what is attended to, invariances, published sizes."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.data.epipolar import epipolar_lines, fundamental_matrix
from vcgen.encoders.epipolar import EpipolarEncoder
from vcgen.errors import UserError
from vcgen.fields.epipolar import EpipolarScene, canonical_axes
from vcgen.fields.epipolar_network import Transformer, masked_softmax
from vcgen.rays import Rays
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.volume import RenderOptions, ray_sphere, render_image
from vcgen.types import RayScene, Views

SMALL = {"points": 5, "width": 8, "layers": 1, "features": 4, "patch": 3}
GPNR, LFNR = {}, {"view_attention": False, "canonical": False}
both = pytest.mark.parametrize("options", [GPNR, LFNR], ids=["GPNR", "LFNR"])
assert_close = partial(torch.testing.assert_close, rtol=0, atol=1e-5)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def cameras(azimuths: list[float], elevation: float = 20.0, focal: float = 1.0) -> Cameras:
    made = orbit(torch.tensor(azimuths), torch.full((len(azimuths),), elevation), 1.3, pinhole(focal), 0.7, 1.9)
    return made.to(torch.float64)


@pytest.fixture
def context() -> Views:
    """Two scenes, three views each, of three focal lengths, transparent; in float64."""
    views = Cameras.cat([cameras([40.0, 200.0], 10.0), cameras([90.0, 10.0], 40.0, 1.1), cameras([300.0, 60.0])])
    views = views[[0, 2, 4, 1, 3, 5]].reshape(2, 3)
    images = torch.rand(2, 3, 3, 16, 16, generator=generator()).double()
    return Views(images, views, torch.rand(2, 3, 1, 16, 16, generator=generator()).double())


@pytest.fixture
def target() -> Cameras:
    return cameras([70.0, 150.0], 30.0).reshape(2, 1)


def encoder(options: dict) -> EpipolarEncoder:
    torch.manual_seed(0)
    return EpipolarEncoder(**(SMALL | options)).double()


def clipped(scene: EpipolarScene, target: Cameras, side: int = 8) -> Rays:
    rays = target.rays(side, side).reshape(len(target.near), -1)
    entry, leave = ray_sphere(rays, scene.center, scene.radius)
    hit = (leave > entry).all(0)
    return replace(rays, near=entry, far=leave)[:, hit]


def network_inputs(scene: EpipolarScene, target: Cameras) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the network is given: the code of the ray, and parts of the codes of places."""
    kept: list[tuple] = []
    hook = scene.network.register_forward_pre_hook(lambda network, inputs: kept.append(inputs))
    scene.attend(clipped(scene, target))
    hook.remove()
    return kept[0][:2]


def rendered(made: EpipolarEncoder, context: Views, target: Cameras) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(render_image(made(context), target, (8, 8), RenderOptions()), 2)


def test_a_layer_is_pytorchs_with_normalization_after_the_sums():
    ours, width = Transformer(8, 1).double(), 8
    gelu = partial(F.gelu, approximate="tanh")
    theirs = nn.TransformerEncoderLayer(width, 1, width, 0, gelu, 1e-6, batch_first=True).double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    tokens = torch.randn(4, 6, 8, generator=generator()).double()
    keys = torch.rand(4, 6, generator=generator()) > 0.4
    assert keys.any(-1).all()
    assert_close(ours(tokens, keys), theirs(tokens, src_key_padding_mask=~keys))
    assert_close(ours(tokens, torch.zeros_like(keys)), theirs(tokens))


def test_published_sizes():
    """9,648,261 weights of GPNR by its configuration (https://github.com/google-research/google-research,
    gen_patch_neural_rendering), less those of scores that add the same to all keys; 3.17 million per transformer."""
    with torch.device("meta"):
        made = EpipolarEncoder()
    assert sum(p.numel() for p in made.network.along_line.parameters()) == 3_166_208
    assert sum(p.numel() for p in made.parameters()) == 9_648_261 - 2 * 257


def test_canonical_axes_are_rotations_with_the_ray_along_z():
    directions = F.normalize(torch.randn(2, 50, 3, generator=generator()).double(), dim=-1)
    down = torch.randn(2, 3, generator=generator()).double()
    directions[:, 0], directions[:, 1] = F.normalize(down, dim=-1), -F.normalize(down, dim=-1)
    turn = canonical_axes(directions, down)
    eye = torch.eye(3).double()
    assert_close(turn @ turn.mT, eye.expand_as(turn))
    assert_close(torch.linalg.det(turn), torch.ones(2, 50).double())
    assert_close((turn @ directions[..., None])[..., 0], eye[2].expand_as(directions))
    local = (turn @ down[:, None, :, None])[..., 0]  # down has no part along x, and none of its part along y is lost
    assert_close(local[:, 2:, 0], torch.zeros(2, 48).double())
    assert (local[:, 2:, 1] > 0).all()


def test_the_code_of_the_target_ray_is_constant_and_points_lie_on_the_z_axis(context, target):
    scene = encoder(GPNR)(context)
    ray, places = network_inputs(scene, target)
    assert_close(ray[..., :6], torch.tensor([0.0, 0, 1, 0, 0, 0]).double().expand(*ray.shape[:2], 6))
    points = places[1][..., :3]
    assert_close(points[..., :2], torch.zeros_like(points[..., :2]))
    assert_close(points[:, :, 0, :, 2], scene.attend(clipped(scene, target))[0])


@both
def test_source_rays_pass_through_the_points_and_start_in_their_cameras(options, context, target):
    _, places = network_inputs(encoder(options)(context), target)
    direction, moment = places[0][..., :6].split(3, -1)
    assert_close(torch.linalg.cross(places[1][..., :3].expand_as(direction), direction), moment)
    if options == GPNR:
        axes, eyes = places[4].expand(*direction.shape[:-1], 12).split([9, 3], -1)
        assert_close(torch.linalg.cross(eyes, direction), moment)
        axes = axes.unflatten(-1, (3, 3))
        assert_close(axes @ axes.mT, torch.eye(3).double().expand_as(axes))


@both
def test_projections_lie_on_epipolar_lines(options, context, target):
    scene = encoder(options)(context)
    rays = clipped(scene, target)
    uv = scene.attend(rays)[1].uv
    for batch in range(2):
        here = target[batch, 0]
        pixels = here.project(rays[batch].origins + rays[batch].directions)[0]
        for view in range(3):
            there = context.cameras[batch, view]
            matrix = fundamental_matrix(*(x.numpy() for x in (here.c2w, here.K, there.c2w, there.K)))
            lines = torch.from_numpy(epipolar_lines(matrix, pixels.numpy(), context.size))
            places = F.pad(uv[batch, :, view] * 16, (0, 1), value=1.0)
            assert (places * lines[:, None]).sum(-1).abs().max() < 1e-4


def test_the_first_and_the_last_point_lie_on_the_sphere_and_all_are_evenly_spaced(context, target):
    scene = encoder(GPNR)(context)
    rays = clipped(scene, target)
    distances = scene.attend(rays)[0]
    assert torch.equal(distances[..., 0], rays.near) and torch.equal(distances[..., -1], rays.far)
    ends = rays.at(distances[..., [0, -1]]) - scene.center[:, None, None]
    assert_close(ends.norm(dim=-1), torch.full(ends.shape[:-1], 0.51).double())
    assert_close(distances.diff(n=2), torch.zeros_like(distances[..., 2:]))


@both
def test_weights_sum_to_one_and_constant_sources_come_back(options, context, target):
    flat = torch.tensor([0.2, 0.5, 0.9]).double()
    views = Views(flat[:, None, None].expand_as(context.images), context.cameras)
    scene = encoder(options)(views)
    assert isinstance(scene, RayScene)
    rays = clipped(scene, target)
    weights = scene.attend(rays)[2].weights
    assert_close(weights.sum((2, 3)), torch.ones(rays.shape).double())
    assert (weights >= 0).all() and weights.std() > 1e-4
    shot = scene.shoot(rays)
    assert_close(shot.coarse.rgb, flat.expand_as(shot.rgb))
    assert_close(shot.alpha, torch.ones(rays.shape).double())
    assert ((shot.depth >= rays.near) & (shot.depth <= rays.far)).all()


@both
def test_the_order_of_views_does_not_matter(options, context, target):
    made, order = encoder(options), [2, 0, 1]
    assert_close(rendered(made, context, target), rendered(made, context[:, order], target))
    made.sources = 2
    assert_close(rendered(made, context, target), rendered(made, context[:, order], target))


@both
def test_every_view_and_every_point_counts(options, context, target):
    """What the other tests compare could be constant."""
    made = encoder(options)
    before = rendered(made, context, target)
    for view in range(3):
        images = context.images.clone()
        images[:, view] = images[:, view].flip(-1)
        assert (rendered(made, replace(context, images=images), target) - before).abs().amax((1, 2, 3, 4)).min() > 1e-4
    assert before.flatten(-2).std(-1).amin() > 1e-4


def moved(views: Cameras) -> Cameras:
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator(), dtype=torch.float64)).Q
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = turn * torch.linalg.det(turn), torch.tensor([0.3, -1.0, 2.0]).double()
    return replace(views, c2w=motion @ views.c2w)


def test_one_motion_of_all_cameras_changes_nothing_for_gpnr(context, target):
    turned = replace(context, cameras=moved(context.cameras))
    assert_close(rendered(encoder(GPNR), turned, moved(target)), rendered(encoder(GPNR), context, target))
    assert (
        rendered(encoder(LFNR), turned, moved(target)) - rendered(encoder(LFNR), context, target)
    ).abs().max() > 1e-3


@both
def test_a_view_that_looks_away_has_no_weight_and_its_image_does_not_matter(options, context, target):
    c2w = context.cameras.c2w.clone()
    c2w[:, 1, :3, :3] = c2w[:, 1, :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0])).double()
    away = replace(context, cameras=replace(context.cameras, c2w=c2w))
    other = replace(away, images=away.images * torch.tensor([1.0, 0.3, 1.0]).double()[:, None, None, None])
    made = encoder(options | {"distance": None})
    scene = made(away)
    weights = scene.attend(clipped(scene, target))[2].weights
    assert torch.equal(weights[:, :, 1], torch.zeros_like(weights[:, :, 1]))
    assert_close(weights.sum((2, 3)), torch.ones(weights.shape[:2]).double())
    assert torch.equal(rendered(made, away, target), rendered(made, other, target))


def test_a_ray_that_no_view_shows_is_empty_and_finite(context, target):
    """Gradients, too."""
    narrow = replace(context.cameras, K=pinhole(30.0).double().expand(2, 3, 3, 3))
    made = encoder(GPNR)
    shot = made(replace(context, cameras=narrow)).shoot(target.rays(8, 8).reshape(2, -1))
    assert (shot.alpha == 0).any() and (shot.alpha > 0).any()
    (shot.rgb.sum() + shot.coarse.rgb.sum() + shot.depth.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())
    assert_close(masked_softmax(torch.tensor([1.0, 5.0]), torch.tensor([False, False])), torch.zeros(2))


@both
def test_gradients_reach_all_weights(options, context, target):
    made = encoder(options)
    shot = made(context).shoot(clipped(made(context), target), generator())
    (shot.rgb.sum() + shot.coarse.rgb.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_opacity_is_that_of_the_sources(context, target):
    made = encoder(GPNR)
    scene = made(context)
    rays = clipped(scene, target)
    with torch.no_grad():
        shot, (distances, samples, blend) = scene.shoot(rays), scene.attend(rays)
    over_black = Views(context.images * context.alpha, context.cameras)
    black = replace(scene.sources, images=over_black.images).at(rays.at(distances)).colors
    assert_close(shot.coarse.rgb, (blend.weights[..., None] * black).sum((2, 3)))
    assert_close(shot.rgb, shot.alpha[..., None] * blend.color)
    network = encoder({"color": "blended"}).network
    network.load_state_dict(made.network.state_dict(), strict=False)
    with torch.no_grad():
        blended = replace(scene, network=network).shoot(rays)
    assert blended.coarse is None
    assert_close(blended.rgb, shot.coarse.rgb)
    assert_close(shot.alpha, (blend.weights * samples.features[..., -1]).sum((2, 3)))


def test_without_a_sphere_all_between_near_and_far_is_looked_at(context, target):
    scene = encoder({"radius": None, "sources": 2})(context)
    rays = clipped(scene, target)
    assert math.isinf(scene.radius[0]) and torch.equal(rays.far, target.far.expand_as(rays.far))
    assert scene.queries == 2 * 5 and scene.attend(rays)[2].weights.shape[2:] == (2, 5)


def test_no_mesh_is_made_of_it_and_a_pixel_lies_in_the_middle_of_its_patch(context):
    with pytest.raises(UserError, match="EpipolarScene has no density"):
        extract_mesh(encoder(GPNR)(context[:1]))
    with pytest.raises(ValueError, match="patch must be odd"):
        EpipolarEncoder(patch=4)
