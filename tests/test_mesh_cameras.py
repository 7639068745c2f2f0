"""Cameras of rendered meshes: the numbers that the sets are known by, and what a file of cameras may hold."""

import json
import math

import numpy as np
import pytest
import torch

from vcgen.cameras import view_angles
from vcgen.errors import UserError
from vcgen.meshes.cameras import SETS, camera_set


def made(name: str, views: int | None = None):
    chosen = camera_set(name)
    return chosen.make(np.random.default_rng(5), chosen.count(views, name))


@pytest.mark.parametrize(
    ("name", "count", "distance", "focal"),
    [
        ("sphere", 50, 1.3, 131.25 / 128),
        ("srn_test", 251, 1.3, 131.25 / 128),
        ("gso30", 16, 1.5, 280 / 256),
        ("zero123plus", 6, 0.5 / math.tan(math.radians(15)), 0.5 / math.tan(math.radians(15))),
        ("turntable", 24, 1.3, 131.25 / 128),
    ],
)
def test_sets_have_their_number_distance_and_focal_length_and_look_at_the_middle(name, count, distance, focal):
    cameras = made(name)
    assert cameras.shape == (count,) and cameras.c2w.dtype == torch.float64
    assert (
        torch.allclose(cameras.centers.norm(dim=1), torch.tensor(distance).double())
        and (cameras.K[:, 0, 0] == focal).all()
    )
    middle, z = cameras.project(torch.zeros(count, 1, 3, dtype=torch.float64))
    assert torch.allclose(middle, torch.tensor(0.5).double()) and torch.allclose(z, torch.tensor(distance).double())
    assert (cameras.c2w[:, 2, 1] <= 1e-9).all(), "images are upright"
    near, far = SETS[name].bounds(cameras, 0.5)
    assert (near, far) == pytest.approx((distance - 0.5, distance + 0.5))


def test_the_spiral_is_that_of_srn():
    centers = made("srn_test").centers
    for number in (0, 64, 128, 250):  # shapenet_renderer's formula
        i = 20 + 0.08 * number
        theta = i / 40 * math.pi
        point = [math.sin(theta) * math.cos(-i), math.sin(math.pi - theta) * math.sin(-i), -math.cos(theta)]
        assert centers[number].tolist() == pytest.approx([1.3 * x for x in point], abs=1e-9)
    assert centers[0].tolist() == pytest.approx([1.3 * 0.40808206, -1.3 * 0.91294525, 0.0])


def test_angles_of_the_other_sets():
    azimuths, heights = view_angles(made("gso30").centers)
    assert torch.remainder(azimuths + 1e-6, 360).tolist() == pytest.approx(
        [22.5 * i for i in range(16)], abs=1e-4
    ) and heights.tolist() == pytest.approx([30.0] * 16)
    azimuths, heights = view_angles(made("zero123plus").centers)
    assert azimuths.tolist() == pytest.approx([30, 90, 150, 210, 270, 330]) and heights.tolist() == pytest.approx(
        [20, -10] * 3
    )
    azimuths, heights = view_angles(made("turntable", 4).centers)
    assert torch.remainder(azimuths + 1e-6, 360).tolist() == pytest.approx([0, 90, 180, 270], abs=1e-4)
    assert heights.tolist() == pytest.approx([20.0] * 4)


def test_the_sphere_depends_on_the_object_and_is_even_by_area():
    one, other = (SETS["sphere"].make(np.random.default_rng(seed), 400) for seed in (1, 2))
    assert not torch.allclose(one.centers, other.centers)
    heights = torch.asin(one.centers[:, 2] / 1.3).rad2deg()
    assert -5 <= float(heights.min()) < 0 and 70 < float(heights.max()) <= 75
    bounds = [math.sin(math.radians(angle)) for angle in (-5, 75)]
    assert float((one.centers[:, 2] / 1.3).mean()) == pytest.approx(sum(bounds) / 2, abs=0.04)


def test_the_bundled_cars_were_seen_from_the_same_places(shared_data):
    import tarfile
    import zlib

    with tarfile.open(shared_data / "cars128" / "cars_test.tar") as tar:
        names = sorted(name for name in tar.getnames() if "/kaykit_police_0/pose/0" in name)
        poses = np.stack([np.array(tar.extractfile(name).read().split(), float).reshape(4, 4) for name in names])
    cameras = SETS["sphere"].make(np.random.default_rng(zlib.crc32(b"kaykit_police_0")), len(poses))
    assert np.abs(cameras.c2w.numpy() - poses).max() < 1e-7


def written(path, **changes) -> str:
    """A file of two cameras."""
    pose = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -2], [0, 0, 0, 1]]
    content = {"c2w": [pose, pose], "K": [[[1.5, 0, 0.5], [0, 1.5, 0.5], [0, 0, 1]]], "unknown": 1} | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return str(path)


def test_a_file_gives_cameras_bounds_and_names(tmp_path):
    chosen = camera_set(written(tmp_path / "c.json", t_near=1.25, views=["left", "right"]))
    cameras = chosen.make(np.random.default_rng(0), 2)
    assert cameras.centers.tolist() == [[0, 0, -2]] * 2 and cameras.K[1, 0, 0] == 1.5
    assert chosen.bounds(cameras, 0.5) == (1.25, 2.5) and chosen.view_names(2) == ["left", "right"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"c2w": None}, "missing required field `c2w`"),
        ({"K": [[[500.0, 0, 0.5], [0, 500, 0.5], [0, 0, 1]]]}, "in pixels by mistake?"),
        ({"K": [[[1.5, 0, 0.5], [0, 1.5, 0.5], [0, 0, 1]]] * 3}, "2 poses and 3 intrinsics"),
        ({"views": ["b", "a"]}, "natural order"),
        ({"t_near": 3.0, "t_far": 2.0}, "t_near must be less"),
        ({"c2w": [[[0.0] * 4] * 4] * 2}, "not orthonormal"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(changes, reason, tmp_path):
    with pytest.raises(UserError, match=r"c.json") as caught:
        camera_set(written(tmp_path / "c.json", **changes))
    assert reason in str(caught.value) and "\n" not in str(caught.value)
