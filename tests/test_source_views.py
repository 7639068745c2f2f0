"""Source views of image-based scenes: projections, look-ups that hit pixel centers, and the nearest views of a ray."""

import pytest
import torch

from vcgen.cameras import Cameras, orbit, pinhole, pixel_centers
from vcgen.fields.source_views import SourceViews, by_angle, look_up

HEIGHT, WIDTH = 8, 12
CENTER = torch.zeros(2, 3)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def sources() -> SourceViews:
    """Two scenes, four views each, every view with intrinsics of its own; feature maps of half the resolution."""
    azimuths = torch.tensor([0.0, 20.0, 90.0, 200.0, 10.0, 140.0, 230.0, 300.0])
    cameras = orbit(azimuths, torch.linspace(-10, 40, 8), 2.0, pinhole(1.0), 1.0, 3.0)
    K = torch.stack([pinhole(1 + 0.1 * i, 1.3 - 0.1 * i, 0.4 + 0.03 * i, 0.6 - 0.02 * i) for i in range(8)])
    cameras = Cameras(cameras.c2w, K, cameras.near, cameras.far).reshape(2, 4)
    images = torch.rand(2, 4, 3, HEIGHT, WIDTH, generator=generator())
    features = torch.rand(2, 4, 5, HEIGHT // 2, WIDTH // 2, generator=generator())
    return SourceViews(images, features, cameras)


def points(rays: int = 6, samples: int = 3) -> torch.Tensor:
    return 0.3 * torch.randn(2, rays, samples, 3, generator=generator())


@pytest.mark.parametrize("view", [0, 3])
def test_points_on_the_ray_of_a_pixel_see_that_pixel(sources, view):
    """And of the maps of half the resolution the cell on whose center a convolution of stride 2 put its window."""
    rays = sources.cameras[:, view].rays(HEIGHT, WIDTH)
    seen = sources.at(rays.at(torch.tensor([1.0, 2.0, 2.5]).expand(2, HEIGHT * WIDTH, 3)))
    image = sources.images[:, view].flatten(-2).mT[:, :, None].expand(-1, -1, 3, -1)
    torch.testing.assert_close(seen.colors[:, :, view], image, rtol=0, atol=1e-5)
    assert seen.valid[:, :, view].all()
    cells = seen.features[:, :, view].unflatten(1, (HEIGHT, WIDTH))[:, ::2, ::2, 0]
    torch.testing.assert_close(cells, sources.features[:, view].movedim(1, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(17, 18), (54, 95), (378, 24)])
def test_maps_of_sides_that_the_stride_does_not_divide_lie_on_their_pixels(size, stride):
    """A convolution of one weight in the middle takes every fourth pixel; colors are linear, so that all others lie
    between.
    """
    v, u = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    image = torch.stack([u, v]).double()
    middle = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    middle[:, :, 1, 1] = 1
    maps = torch.nn.functional.conv2d(image, middle, stride=stride, padding=1, groups=2)
    found = look_up(maps[None, None], pixel_centers(*size, dtype=torch.float64)[None, None], size)[0, 0]
    wanted = image.flatten(1).mT
    last = stride * (torch.tensor(maps.shape[:0:-1]) - 1)  # beyond the last cell it is continued
    torch.testing.assert_close(found, wanted.minimum(last.double()), rtol=0, atol=1e-9)


def test_a_view_is_valid_in_front_of_its_camera_and_inside_its_image(sources):
    x = 3 * points(200)
    c2w, K = sources.cameras.c2w.double(), sources.cameras.K.double()
    homogeneous = torch.cat([x.double(), torch.ones_like(x[..., :1]).double()], -1)[:, :, None]
    local = homogeneous @ torch.linalg.inv(c2w).mT[:, None]
    image = local[..., :3] @ K.mT[:, None]
    uv = image[..., :2] / image[..., 2:]
    valid = (image[..., 2] > 0) & (uv > 0).all(-1) & (uv < 1).all(-1)
    seen = sources.at(x)
    assert torch.equal(seen.valid, valid) and 0.1 < valid.float().mean() < 0.9
    torch.testing.assert_close(seen.uv[valid], uv[valid].float(), rtol=1e-4, atol=1e-5)


def test_a_point_in_a_cameras_center_is_invalid_and_all_numbers_are_finite(sources):
    seen = sources.at(sources.cameras.centers[:, :, None])
    assert not seen.valid[:, range(4), range(4)].any()
    assert all(torch.isfinite(x).all() for x in seen)


def test_nearest_of_all_views_is_a_permutation_that_leaves_them_as_they_are(sources):
    origins = torch.randn(2, 9, 3, generator=generator())
    order = by_angle(origins, sources.cameras.centers, CENTER)
    assert torch.equal(order.sort(-1).values, torch.arange(4).expand(2, 9, 4))
    assert sources.nearest(origins, CENTER, 4) is None and sources.nearest(origins, CENTER, None) is None
    assert torch.equal(sources.nearest(origins, CENTER, 3), order[..., :3])


def test_an_eye_on_the_ray_from_the_center_to_a_view_takes_that_view_first(sources):
    first = sources.nearest(1.7 * sources.cameras.centers, CENTER, 1)
    assert torch.equal(first[..., 0], torch.arange(4).expand(2, 4))


def test_views_come_by_their_angles(sources):
    center = torch.tensor([[0.1, 0.0, 0.2], [0.0, -0.2, 0.1]])
    origins = torch.randn(2, 5, 3, generator=generator())
    cosines = torch.cosine_similarity(
        (origins - center[:, None])[:, :, None], (sources.cameras.centers - center[:, None])[:, None], dim=-1
    )
    order = by_angle(origins, sources.cameras.centers, center)
    assert torch.equal(order, cosines.argsort(-1, descending=True))


def test_chosen_views_show_what_they_show_among_all(sources):
    x = points()
    index = torch.stack([torch.randperm(4, generator=generator())[:2] for _ in range(12)]).reshape(2, 6, 2)
    seen, every = sources.at(x, index), sources.at(x)
    for chosen, full in zip(seen, every, strict=True):
        for scene in range(2):
            for ray in range(6):
                assert torch.equal(chosen[scene, ray], full[scene, ray, index[scene, ray]])
