"""Random cameras of score distillation, and the words for what they see."""

import math

import pytest
import torch

from vcgen.cameras import focal_from_fov, orbit, pinhole
from vcgen.data.viewpoints import ViewpointOptions, around, random_cameras, relative_angles, view_word

CENTER = torch.zeros(3)


def reference(azimuth: float = 0.0):
    return orbit(torch.tensor([azimuth]), torch.tensor([15.0]), 1.8, pinhole(focal_from_fov(40)), 0.9, 2.7)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "word"),
    [
        (-29, 15, "front"),
        (0, 15, "front"),
        (29, 15, "front"),
        (31, 15, "side"),
        (-31, 15, "side"),
        (90, 0, "side"),
        (-90, 0, "side"),
        (149, 0, "side"),
        (151, 0, "back"),
        (180, 0, "back"),
        (209, 0, "back"),
        (211, 0, "side"),
        (-180, 0, "back"),
        (360, 0, "front"),
        (0, 61, "overhead"),
        (180, 61, "overhead"),
        (0, 59, "front"),
        (0, -61, "bottom"),
        (90, -59, "side"),
    ],
)
def test_sectors_are_centered_on_the_reference(azimuth, elevation, word):
    assert view_word(azimuth, elevation) == word


def draws(count: int = 400, **options):
    chosen = ViewpointOptions(**options)
    return [random_cameras(reference(), CENTER, 0.75, chosen, torch.Generator().manual_seed(i)) for i in range(count)]


def test_random_cameras_keep_to_their_options_and_look_at_the_center():
    for camera in draws(50):
        _, elevation = relative_angles(camera, reference(), CENTER)
        fov = 2 * math.atan(0.5 / float(camera.K[0, 0, 0]))
        assert -10.01 <= float(elevation) <= 60.01 and 40 <= math.degrees(fov) <= 60.01
        distance = float(camera.centers.norm())
        spanned = distance * math.tan(fov / 2) / (1.8 * math.tan(math.radians(20)))
        assert 0.899 <= spanned <= 1.201 and 1.0 < distance < 2.2
        uv, depth = camera.project(CENTER[None, None])
        torch.testing.assert_close(uv, torch.full_like(uv, 0.5))
        assert float(depth) == pytest.approx(distance, rel=1e-5)
        assert float(camera.near) == pytest.approx(distance - 0.75, rel=1e-4) and float(camera.far) == pytest.approx(
            distance + 0.75, rel=1e-4
        )


def test_random_cameras_are_uniform_on_the_zone():
    """Archimedes: heights on a sphere are uniform, and so are azimuths."""
    azimuth, elevation = (
        torch.stack(x).flatten() for x in zip(*(relative_angles(c, reference(), CENTER) for c in draws()))
    )
    low, high = math.sin(math.radians(-10)), math.sin(math.radians(60))
    for fraction in ((torch.deg2rad(elevation).sin() - low) / (high - low), (azimuth + 180) / 360):
        ranks = fraction.sort().values
        # Kolmogorov, 1 %
        assert float((ranks - (torch.arange(len(ranks)) + 0.5) / len(ranks)).abs().max()) < 1.63 / math.sqrt(len(ranks))


def test_one_seed_is_one_camera():
    first, second, other = (
        random_cameras(reference(), CENTER, 0.75, ViewpointOptions(), torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    )
    assert torch.equal(first.c2w, second.c2w) and not torch.equal(first.c2w, other.c2w)


def test_a_camera_inside_the_volume_still_has_a_positive_near_plane():
    camera = random_cameras(reference(), CENTER, 5.0, ViewpointOptions(), torch.Generator().manual_seed(0))
    assert float(camera.near) > 0


def test_angles_count_from_the_reference_and_cameras_go_round_it():
    start, center = reference(250.0), torch.tensor([0.1, 0.2, -0.1])
    moved = type(start)(start.c2w.clone(), start.K, start.near, start.far)
    moved.c2w[..., :3, 3] += center
    cameras = around(moved, center, torch.tensor([0.0, 90.0, -45.0, 180.0]))
    torch.testing.assert_close(cameras.c2w[:1], moved.c2w, atol=1e-5, rtol=0)
    azimuth, elevation = relative_angles(cameras, moved, center)
    torch.testing.assert_close(
        torch.remainder(azimuth + 1e-3, 360), torch.tensor([0.0, 90.0, 315.0, 180.0]) + 1e-3, atol=1e-2, rtol=0
    )
    torch.testing.assert_close(elevation, torch.full((4,), 15.0), atol=1e-3, rtol=0)
    _, risen = relative_angles(around(moved, center, torch.zeros(1), 40.0), moved, center)
    assert float(risen) == pytest.approx(40, abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [{"elevation": (10, -10)}, {"elevation": (-90, 0)}, {"fov": (0, 40)}, {"fov": (50, 180)}, {"framing": (2, 1)}],
)
def test_impossible_viewpoints_are_refused(wrong):
    with pytest.raises(ValueError):
        ViewpointOptions(**wrong)
