"""Augmented scenes must still be scenes: what one view shows, the others show where their cameras say."""

import torch

from vcgen.cameras import orbit, pinhole
from vcgen.data.datamodules.augment import mirror, permute_colors
from vcgen.types import Views


def test_a_mirrored_scene_is_what_the_mirrored_cameras_see_of_the_mirrored_world():
    cameras = orbit(
        torch.tensor([20.0, 140.0, 260.0]),
        torch.tensor([10.0, 40.0, 70.0]),
        1.3,
        pinhole(1.2, 1.1, 0.45, 0.55),
        0.8,
        1.8,
    )
    views = Views(torch.rand(3, 3, 8, 8), cameras, torch.rand(3, 1, 8, 8))
    made = mirror(views)
    points = torch.randn(3, 20, 3) * 0.2
    uv, depth = cameras.project(points)
    mirrored_uv, mirrored_depth = made.cameras.project(points * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(mirrored_uv[..., 0], 1 - uv[..., 0])
    torch.testing.assert_close(mirrored_uv[..., 1], uv[..., 1])
    torch.testing.assert_close(mirrored_depth, depth)
    torch.testing.assert_close(torch.linalg.det(made.cameras.c2w[:, :3, :3]), torch.ones(3))
    assert torch.equal(made.images[..., 0], views.images[..., -1]) and torch.equal(
        made.alpha[..., 0], views.alpha[..., -1]
    )


def test_mirroring_twice_changes_nothing():
    cameras = orbit(torch.tensor([20.0]), torch.tensor([10.0]), 1.3, pinhole(1.2), 0.8, 1.8)
    views = Views(torch.rand(1, 3, 8, 8), cameras)
    back = mirror(mirror(views))
    torch.testing.assert_close(back.cameras.c2w, cameras.c2w)
    assert torch.equal(back.images, views.images) and back.alpha is None


def test_colors_are_permuted_alike_in_all_views():
    cameras = orbit(torch.zeros(2), torch.zeros(2), 1.3, pinhole(1.2), 0.8, 1.8)
    views = Views(torch.rand(2, 3, 4, 4), cameras)
    made = permute_colors(views, [2, 0, 1])
    assert torch.equal(made.images[:, 0], views.images[:, 2]) and torch.equal(made.images[:, 1], views.images[:, 0])
