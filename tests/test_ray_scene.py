"""Scenes that give a color per ray, and fields of features: one renderer takes them all."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from vcgen.cameras import orbit, pinhole
from vcgen.encoders.base import Encoder
from vcgen.errors import UserError
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Example, Field, RayRendering, RayScene, Scene, Views

CAMERAS = orbit(torch.tensor([0.0, 90.0]), torch.full((2,), 20.0), 2.0, pinhole(1.0), 1.0, 3.0).reshape(1, 2)
SIZE = 12


@dataclass
class ToyLightField:
    """Rays that meet a ball see a color of their direction; they are rendered three at a time."""

    center: Tensor
    radius: Tensor
    color: Tensor
    queries: int = 1

    def shoot(self, rays, generator=None):
        self.most = max(getattr(self, "most", 0), rays.shape[1])
        rgb = (0.5 + 0.5 * rays.directions) * self.color
        alpha = torch.ones(rays.shape)
        return RayRendering(rgb, alpha, rays.near, penalties={"size": self.color.square().mean()})


class ToyEncoder(Encoder):
    """One trainable color for all scenes."""

    penalties = ("size",)

    def __init__(self):
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), 0.5))

    def forward(self, context):
        batch = len(context.images)
        return ToyLightField(torch.zeros(batch, 3), torch.full((batch,), 0.5), self.color)


class Features:
    """A dense ball with seven features, the first of which is x."""

    center, radius, proposal = torch.zeros(1, 3), torch.full((1,), 0.5), None

    def __call__(self, points, directions):
        return self.density(points), points[..., :1].expand(*points.shape[:-1], 7)

    def density(self, points):
        return 1e3 * (points.norm(dim=-1) < 0.5)


def scene() -> ToyLightField:
    return ToyLightField(torch.zeros(1, 3), torch.full((1,), 0.5), torch.ones(3))


def test_both_kinds_are_scenes_and_told_apart():
    assert isinstance(scene(), RayScene) and not isinstance(scene(), Field)
    assert isinstance(Features(), Field) and not isinstance(Features(), RayScene)
    assert isinstance(scene(), Scene) and isinstance(Features(), Scene)


def test_a_ray_scene_is_seen_inside_its_sphere_and_the_background_beside_it():
    seen = render_image(scene(), CAMERAS, (SIZE, SIZE), RenderOptions(8), background=0.25)
    rays = CAMERAS.rays(SIZE, SIZE)
    along = -(rays.origins * rays.directions).sum(-1)
    distance2 = rays.origins.square().sum(-1) - along.square()
    hit = (distance2 < 0.25).reshape(1, 2, 1, SIZE, SIZE)
    expected = (0.5 + 0.5 * rays.directions).mT.unflatten(-1, (SIZE, SIZE))
    assert 0 < hit.float().mean() < 1
    torch.testing.assert_close(seen.rgb, torch.where(hit, expected, 0.25))
    torch.testing.assert_close(seen.alpha, hit.float())
    entry = (along - (0.25 - distance2).clamp(min=0).sqrt()).reshape(1, 2, 1, SIZE, SIZE)
    torch.testing.assert_close(seen.depth, torch.where(hit, entry, 3.0))


def test_memory_is_bounded_by_the_scenes_own_queries():
    bounded = scene()
    bounded.queries = 4
    render_image(bounded, CAMERAS, (SIZE, SIZE), RenderOptions(8, max_points=12))
    assert bounded.most == 3


def test_features_are_rendered_with_their_own_channels():
    seen = render_image(Features(), CAMERAS, (SIZE, SIZE), RenderOptions(64), background=0.0)
    assert seen.rgb.shape == (1, 2, 7, SIZE, SIZE)
    middle = seen.rgb[0, 0, :, SIZE // 2, SIZE // 2]
    torch.testing.assert_close(middle, middle[:1].expand(7))
    away = CAMERAS.reshape(-1)[:1].reshape(1, 1)
    away.c2w[..., :3, :3] = away.c2w[..., :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    assert render_image(Features(), away, (4, 4), RenderOptions(4)).rgb.shape == (1, 1, 7, 4, 4)


def test_a_ray_scene_is_trained_like_a_field_with_its_penalties_and_weights():
    torch.manual_seed(0)
    system = NerfDiff(ToyEncoder(), background="white", loss_weights={"rgb": 1.0, "size": 0.5})
    views = Views(torch.rand(1, 2, 3, SIZE, SIZE), CAMERAS)
    losses = system.losses(Example(views[:, :1], views, ("one",)), torch.Generator().manual_seed(0))
    assert set(losses) == {"rgb", "size"} and float(losses["size"].detach()) == 0.25
    losses["rgb"].backward()
    assert float(system.encoder.color.grad.abs().sum()) > 0
    with pytest.raises(UserError, match="the losses are rgb, coarse, denoising, size"):
        NerfDiff(ToyEncoder(), loss_weights={"sise": 1.0})


def test_no_mesh_is_made_of_a_scene_without_density():
    with pytest.raises(UserError, match=r"LightField has no density, .* mesh from; leave .*--mesh-resolution 0"):
        extract_mesh(scene())
