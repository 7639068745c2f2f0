"""Triplane fields and their encoder: where points land in the planes, and what the cameras may change."""

import pytest
import torch

from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.encoders.scene_triplane import SceneTriplane
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.fields.triplane import TriplaneDecoder, TriplaneField
from vcgen.types import Field, Views


def cameras(n=1, focal=1.0254):
    return orbit(torch.arange(n) * 50.0, torch.full((n,), 25.0), 1.3, pinhole(focal), 0.8, 1.8).reshape(n, 1)


def field(projection="orthographic", aggregate="sum", size=8):
    camera = cameras()[:, 0]
    frame = camera.c2w.clone()
    frame[:, :3, 3] = camera.centers + 1.3 * camera.c2w[:, :3, 2]
    decoder = TriplaneDecoder(4, 16, 1, aggregate)
    return TriplaneField(torch.randn(1, 3, 4, size, size), decoder, frame, 0.56, torch.tensor([0.51]), projection, 1.3)


def encoder(**changes):
    small = dict(plane_size=16, plane_channels=4, channels=(16, 32), layers=1, attention=(False, True))
    return TriplaneEncoder(TriplaneDecoder(4, 16), **(small | changes))


@pytest.mark.parametrize("projection", ["orthographic", "perspective"])
def test_a_point_on_the_optical_axis_hits_the_center_of_the_xy_plane(projection):
    made = field(projection)
    camera = cameras()[:, 0]
    depths = torch.tensor([0.9, 1.3, 1.7])
    points = camera.centers[:, None] + depths[None, :, None] * camera.c2w[:, None, :3, 2]
    uv = made.plane_coordinates(points)
    torch.testing.assert_close(uv[:, :, 0], torch.zeros(1, 3, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(uv[0, :, 1, 1], (depths - 1.3) / 0.56, atol=1e-6, rtol=0)


def test_perspective_coordinates_are_the_pixel_the_point_projects_to():
    """With an image cropped to the box, u and v of any point are its image coordinates, whatever its depth."""
    made, camera = field("perspective"), cameras()
    points = torch.randn(1, 40, 3) * 0.2
    uv, _ = camera[:, 0].project(points)
    image = (uv - 0.5) / 1.0254 * 1.3 / 0.56
    torch.testing.assert_close(made.plane_coordinates(points)[:, :, 0], image, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("projection", ["orthographic", "perspective"])
def test_the_two_projections_agree_on_the_middle_plane(projection):
    made, camera = field(projection), cameras()
    uv = torch.rand(1, 10, 2)
    rays = camera[:, 0].rays_at(uv)
    depth = 1.3 / (rays.directions * camera.c2w[:, 0, None, :3, 2]).sum(-1, keepdim=True)
    expected = (uv - 0.5) / 1.0254 * 1.3 / 0.56
    torch.testing.assert_close(
        made.plane_coordinates(rays.origins + depth * rays.directions)[:, :, 0], expected, atol=1e-5, rtol=1e-5
    )


def test_the_input_image_lies_on_the_xy_plane():
    """A bright pixel is found, after resampling, at the plane coordinates of points on that pixel's ray."""
    made, camera = encoder(plane_size=64), cameras(focal=1.2)[:, 0]
    image = torch.zeros(1, 3, 32, 48)
    image[..., 20, 30] = 1
    resampled = made.resample(image, camera)[0, 0]
    v, u = torch.meshgrid(*[(torch.arange(64) + 0.5) / 32 - 1] * 2, indexing="ij")
    found = torch.stack([(resampled * u).sum(), (resampled * v).sum()]) / resampled.sum()
    expected = (torch.tensor([30.5 / 48, 20.5 / 32]) - 0.5) / 1.2 * 1.3 / 0.56
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("aggregate", ["sum", "concat"])
def test_fields_satisfy_the_protocol_and_the_ranges(aggregate):
    made = field(aggregate=aggregate)
    assert isinstance(made, Field)
    density, color = made(torch.randn(1, 50, 3) * 0.3, torch.zeros(1, 50, 3))
    assert density.shape == (1, 50) and (density >= 0).all()
    assert color.shape == (1, 50, 3) and (color >= -0.001).all() and (color <= 1.001).all()
    points = torch.randn(1, 50, 3) * 0.3
    torch.testing.assert_close(made.density(points), made(points, points)[0])


def test_moving_the_world_moves_the_field_with_it():
    """Only relative poses matter: the same image under a rotated and shifted camera gives the same radiance at the
    moved points.
    """
    made = encoder().eval()
    camera, images = cameras(), torch.rand(1, 1, 3, 16, 16)
    motion = torch.linalg.qr(torch.randn(3, 3))[0]
    motion = motion * motion.det()
    transform = torch.eye(4)
    transform[:3, :3], transform[:3, 3] = motion, torch.tensor([0.3, -2.0, 1.0])
    moved = Cameras(transform @ camera.c2w, camera.K, camera.near, camera.far)
    points = torch.randn(1, 30, 3) * 0.2
    with torch.no_grad():
        here = made(Views(images, camera))(points, points)
        there = made(Views(images, moved))(points @ motion.T + transform[:3, 3], points)
    for a, b in zip(here, there):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_parameter_of_the_encoder():
    made = encoder()
    density, color = made(Views(torch.rand(2, 1, 3, 16, 16), cameras(2)))(
        torch.randn(2, 50, 3) * 0.3, torch.zeros(2, 50, 3)
    )
    (density.sum() + color.square().sum()).backward()
    silent = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_a_free_triplane_keeps_its_planes_in_the_world():
    made = SceneTriplane(TriplaneDecoder(4, 16), plane_size=8, plane_channels=4, half_size=2.0, center=(1.0, 0.0, 0.0))
    scene = made(Views(torch.rand(2, 1, 3, 4, 4), cameras(2)))
    uv = scene.plane_coordinates(torch.tensor([[[1.0, 0, 0], [3.0, 2.0, -2.0]]]).expand(2, -1, -1))
    torch.testing.assert_close(uv[0], torch.tensor([[[0.0, 0]] * 3, [[1.0, 1], [1, -1], [-1, 1]]]))
