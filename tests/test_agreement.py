"""Agreement of neighboring images, on a plane whose colors a bilinear look-up gives exactly."""

import math

import pytest
import torch

from vcgen.cameras import Cameras, pinhole
from vcgen.metrics.agreement import agreement
from vcgen.types import Rendering

SIZE, VIEWS, DISTANCE, STEP = 16, 4, 2.0, 0.07


@pytest.fixture(scope="module")
def plane():
    """Cameras that move by fractions of a pixel along a plane they face, its rendering, and images of its colors,
    which are linear in the place."""
    c2w = torch.eye(4).repeat(VIEWS, 1, 1)
    c2w[:, 0, 3] = torch.arange(VIEWS) * STEP
    cameras = Cameras(c2w, pinhole(1.5).expand(VIEWS, 3, 3), torch.full((VIEWS,), 1.0), torch.full((VIEWS,), 4.0))
    rays = cameras.rays(SIZE, SIZE)
    depth = DISTANCE / rays.directions[..., 2]
    place = (rays.origins + depth[..., None] * rays.directions)[..., :2]
    colors = torch.stack([0.5 + 0.1 * place[..., 0], 0.5 + 0.2 * place[..., 1], 0.5 - 0.1 * place.sum(-1)], -1)
    images = colors.transpose(1, 2).unflatten(2, (SIZE, SIZE))
    depth = depth.unflatten(1, (SIZE, SIZE))[None, :, None]
    return images, Rendering(images[None], torch.ones_like(depth), depth), cameras


def test_images_of_one_surface_agree(plane):
    images, seen, cameras = plane
    assert agreement(images, seen, cameras) > 60


@pytest.mark.parametrize("offset", [0.01, 0.2])
def test_the_difference_is_what_it_costs(plane, offset):
    images, seen, cameras = plane
    flickering = images + offset * (torch.arange(VIEWS) % 2)[:, None, None, None]
    assert agreement(flickering, seen, cameras) == pytest.approx(-20 * math.log10(offset), abs=0.05)


def test_what_one_image_does_not_show_does_not_count(plane):
    """A wall that comes before the left half of the plane from one view to the next: other colors, other depth."""
    images, seen, cameras = plane
    hidden = torch.zeros(VIEWS, 1, SIZE, SIZE, dtype=torch.bool)
    hidden[1::2, :, :, : SIZE // 2] = True
    depth = torch.where(hidden[None], seen.depth - 0.5, seen.depth)
    assert agreement(torch.where(hidden, 0.0, images), seen._replace(depth=depth), cameras) > 60
    transparent = seen._replace(alpha=(~hidden[None]).float())
    assert agreement(torch.where(hidden, 0.0, images), transparent, cameras) > 60
    assert math.isnan(agreement(images, seen._replace(alpha=torch.zeros_like(seen.alpha)), cameras))


def test_the_depth_of_a_surface_that_is_not_quite_opaque_is_its_own(plane):
    """A rendering's depth has ``far`` where light passes: at 0.95 opacity 0.1 of a world unit, so that two views would
    seem to show different points."""
    images, seen, cameras = plane
    alpha = torch.tensor([1.0, 0.95] * 2)[None, :, None, None, None].expand_as(seen.alpha)
    mixed = Rendering(seen.rgb, alpha, alpha * seen.depth + (1 - alpha) * cameras.far[:, None, None, None])
    assert agreement(images, mixed, cameras) > 60


def test_pixels_without_depth_do_not_count(plane):
    """Maps of depth are 0 where nothing is hit: a point in the plane of a camera that moves sideways."""
    images, seen, cameras = plane
    hit = (torch.arange(SIZE) >= SIZE // 2).expand_as(seen.alpha)
    found = agreement(images, Rendering(seen.rgb, hit.float(), seen.depth * hit), cameras)
    assert found > 60


def test_a_depth_that_is_wrong_costs_what_it_moves(plane):
    """Half as far again, the plane moves two thirds as far from image to image: colors are read 0.07 / 3 beside."""
    images, seen, cameras = plane
    off = 0.1 * STEP / 3
    found = agreement(images, seen._replace(depth=1.5 * seen.depth), cameras)
    assert found == pytest.approx(-10 * math.log10(2 * off**2 / 3), abs=0.05)
