"""Intrinsics and lenses as people state them: other units and resolutions, crops, lenses that are none."""

import math

import numpy as np
import pytest

from packing_command import Packing
from scenes import looking_inwards, posed_frames, write_srn_object, write_transforms
from vcgen.data.formats.transforms import read_distortion, read_intrinsics
from vcgen.data.images.distortion import Distortion, distort, folds, undistort
from vcgen.errors import UserError

PACKING = Packing("transforms", "--near", "2", "--far", "6")
SQUARE = np.array([[1.025, 0, 0.5], [0, 1.025, 0.5], [0, 0, 1]])
#: Of a 64 x 64 image, as it should be.
RIGHT = {"fl_x": 65.6, "fl_y": 65.6, "cx": 32, "cy": 32}


def refused(function, *args) -> str:
    with pytest.raises(UserError) as error:
        function(*args)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fl_x": None, "camera_angle_x": 52.0}, ["camera_angle_x", "found 52", "in degrees?"]),
        ({"fl_x": None, "camera_angle_x": 3.2}, ["camera_angle_x", "between 0 and pi", "in degrees?"]),
        ({"fl_x": None, "camera_angle_x": 0.9, "camera_angle_y": 52}, ["camera_angle_y", "in degrees?"]),
        ({"fl_x": None, "camera_angle_x": -0.9}, ["camera_angle_x must be positive"]),
        ({"fl_x": None, "camera_angle_x": 0}, ["camera_angle_x must be positive"]),
        ({"fl_x": None, "camera_angle_x": 3.1}, ["camera_angle_x", "0.02 to 2.75"]),
        ({"fl_x": -65.6}, ["fl_x", "must be positive", "-65.6"]),
        ({"fl_y": 0}, ["fl_y", "must be positive"]),
        ({"fl_x": 1.025, "fl_y": 1.025}, ["fl_x", "1.025 pixels", "normalized?"]),
        ({"fl_y": 1.025}, ["fl_y", "normalized?"]),
        ({"fl_x": 9.0, "w": 72, "h": 72}, ["fl_x", "9 pixels", "normalized?"]),
        ({"fl_x": 3300}, ["fl_x", "another resolution"]),
        ({"cx": 0.5, "cy": 0.5}, ["0.5, 0.5", "normalized?", "--crops"]),
        ({"cx": 0, "cy": 0}, ["corner"]),
        ({"cx": 64, "cy": 64}, ["images 2 times as large", "give w and h"]),
        ({"cx": 66, "cy": 62.7}, ["2 times as large"]),
        ({"cx": 128, "cy": 128}, ["images 4 times as large"]),
        ({"cx": 48, "cy": 48}, ["1.5 times as large"]),
        ({"cx": 16, "cy": 16}, ["images 2 times smaller"]),
        ({"cx": -20}, ["outside", "--crops"]),
        ({"cy": 64}, ["on the border"]),
        ({"cx": 0.4}, ["on the border"]),
        ({"w": 0, "h": 0}, ["w and h must be positive"]),
        ({"w": -64, "h": -64}, ["must be positive"]),
        ({"fl_x": [65.6]}, ["fl_x must be a finite number"]),
        ({"cx": 10**400}, ["cx must be a finite number"]),
        ({"fl_x": True}, ["fl_x must be a finite number"]),
        ({"cx": None}, ["cx must be a finite number"]),
    ],
)
@pytest.mark.parametrize("place", ["frame", "file"])
def test_intrinsics_of_another_unit_or_resolution_are_refused(changes, words, place):
    stated = {name: value for name, value in {**RIGHT, **changes}.items() if value is not None or name == "cx"}
    line = refused(read_intrinsics, *((stated, {}) if place == "frame" else ({}, stated)), (64, 64))
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("stated", "size"),
    [
        ({"fl_x": 131.2, "cx": 64, "cy": 64, "w": 128, "h": 128}, (64, 64)),
        ({"fl_x": 1.025, "cx": 0.5, "cy": 0.5, "w": 1, "h": 1}, (64, 64)),
        ({"fl_x": 2.05, "cx": 1, "cy": 1}, (2, 2)),
        ({"camera_angle_x": math.radians(52)}, (64, 64)),
        ({"fl_x": 65.6, "cx": 20, "cy": 44}, (64, 64)),
    ],
)
def test_intrinsics_that_only_look_odd_are_taken(stated, size):
    K = read_intrinsics(stated, {}, size)
    assert K[0, 0] == pytest.approx(1.025, abs=1e-3) and (stated.get("cx") == 20 or np.allclose(K[:2, 2], 0.5))


@pytest.mark.parametrize(
    ("intrinsics", "words"),
    [
        ("1.025 0.5 0.5 0.\n0 0 0\n1\n64 64", ["normalized?"]),
        ("65.6 0.5 0.5 0.\n0 0 0\n1\n64 64", ["corner", "normalized?"]),
        ("131.25 64 64 0.\n0 0 0\n1\n64 64", ["2 times as large"]),
        ("65.6 96 32 0.\n0 0 0\n1\n64 64", ["outside"]),
        ("65.6 16 32 0.\n0 0 0\n1\n32 64", ["64 x 32, but intrinsics.txt is for 32 x 64", "height, then width"]),
    ],
)
def test_intrinsics_in_srn_folders_are_held_to_the_same(tmp_path, capsys, intrinsics, words):
    write_srn_object(tmp_path / "in" / "car", height=64, width=32 if intrinsics.endswith("32 64") else 64)
    (tmp_path / "in" / "car" / "intrinsics.txt").write_text(intrinsics)
    line = Packing("srn").refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "intrinsics.txt" in line and all(word in line for word in words)


def test_crops_with_their_principal_point_outside_are_packed_where_they_are_said_to_be_crops(tmp_path, capsys):
    c2w = looking_inwards(3, distance=4)
    write_transforms(tmp_path / "in", posed_frames(c2w), fl_x=9, cx=-2, cy=11, w=6, h=8)
    assert "--crops" in PACKING.refused(capsys, tmp_path / "in", tmp_path / "out")
    record = PACKING.packed(tmp_path / "in", tmp_path / "out", "--crops")
    assert np.allclose(record.K, [[9 / 6, 0, -2 / 6], [0, 9 / 8, 11 / 8], [0, 0, 1]])
    assert "more than 2 image sizes" in refused(read_intrinsics, {**RIGHT, "cx": 193}, {}, (64, 64), True)
    assert np.allclose(read_intrinsics({**RIGHT, "cx": 0.5, "cy": 64}, {}, (64, 64), True)[:2, 2], [1 / 128, 1])
    outside = np.array([[1, 0, -0.2], [0, 1, 0.5], [0, 0, 1]])
    assert "undistort before you crop" in refused(
        undistort, np.zeros((8, 8, 3), np.float32), outside, Distortion(k1=0.1)
    )


@pytest.mark.parametrize(
    "lens",
    [
        Distortion(k1=-44.85, k2=1017.4, p1=0.62, p2=0.94),
        Distortion(k1=-3.0),
        Distortion(k1=-0.8),
        Distortion(k2=-1.5),
        Distortion(k3=-2.5),
        Distortion(k4=-5.0),
        Distortion(p1=0.9),
        Distortion(p2=-0.9),
        Distortion(k1=-9, k2=30, k3=-10),
        Distortion(k1=1e300, k2=-1e300),
    ],
)
def test_a_lens_that_folds_the_image_is_refused_whatever_it_does_at_the_border(lens):
    assert folds((64, 64), SQUARE, lens)
    line = refused(undistort, np.zeros((64, 64, 3), np.float32), SQUARE, lens)
    assert "folds the image" in line and "camera solve failed" in line and f"{next(filter(None, lens)):g}" in line


@pytest.mark.parametrize(
    "lens",
    [
        Distortion(),
        Distortion(k1=0.3),
        Distortion(k1=-0.3),
        Distortion(k1=-0.3, k2=0.1),
        Distortion(k1=-0.6),
        Distortion(p1=0.1),
        Distortion(k1=0.1, k2=-0.2, k3=0.3, p1=0.01, p2=-0.02),
    ],
)
def test_a_real_lens_does_not_fold(lens):
    assert not folds((64, 64), SQUARE, lens)
    # The slow way: no two neighbors change sides.
    v, u = np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 60), indexing="ij")
    spots = distort(np.stack([(u - 0.5) / 1.025, (v - 0.5) / 1.025], -1), lens)
    across, down = np.diff(spots, axis=1)[:-1], np.diff(spots, axis=0)[:, :-1]
    assert (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0] > 0).all()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"k1": -3.0}, "folds"),
        ({"frame": {"k1": -3.0}}, "folds"),
        ({"k1": 500.0}, "too strong"),
        ({"k5": 0.1}, "k5"),
        ({"s1": 0.1}, "s1"),
        ({"is_fisheye": True}, "is_fisheye"),
        ({"frame": {"camera_model": "OPENCV_FISHEYE"}}, "'OPENCV_FISHEYE'"),
        ({"ftheta_p0": 0.1}, "ftheta_p0"),
        ({"camera_model": "EQUIRECTANGULAR", "k1": 0.1}, "'EQUIRECTANGULAR'"),
        ({"camera_model": 5}, "'5'"),
        ({"latlong": True}, "latlong"),
        ({"distortion_params": [-3.0]}, "folds"),
        ({"distortion_params": [0.0] * 7}, "up to 6"),
        ({"distortion_params": {"k1": 1}}, "up to 6"),
        ({"w": "6"}, "frame images/r_0: w must be a finite number"),
        ({"k1": [0.1]}, "k1 must be a finite number"),
        ({"distortion_params": ["a"]}, "k1 must be a finite number"),
    ],
)
def test_lenses_that_cannot_be_removed_are_one_line(tmp_path, capsys, changes, word):
    frames, own = posed_frames(looking_inwards(3, distance=4)), changes.pop("frame", {})
    frames[1].update(own)
    write_transforms(tmp_path / "in", frames, fl_x=9.0, **changes)
    line = PACKING.refused(capsys, tmp_path / "in", tmp_path / "out")
    assert word in line and ("frame images/r_1" in line) >= bool(own)


def test_coefficients_come_from_the_frame_then_the_file_and_as_a_list():
    assert read_distortion({"k1": 0.2}, {"k1": 0.1, "p2": 0.3, "k5": 0}) == Distortion(k1=0.2, p2=0.3)
    assert read_distortion({"distortion_params": [0.1, 0.2, 0, 0, 0.3]}, {"k1": 9}) == Distortion(
        k1=0.1, k2=0.2, p1=0.3
    )
    assert not any(read_distortion({}, {"camera_model": None})) and not any(
        read_distortion({}, {"camera_model": "opencv", "is_fisheye": False, "fisheye": 0})
    )


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"fl_x": 9, "w": 6, "h": 8, "camera_angle_x": 2 * math.atan(3 / 9)}, False),
        ({"fl_x": 18, "w": 6, "h": 8, "camera_angle_x": 2 * math.atan(3 / 9)}, True),
        ({"fl_x": 18, "camera_angle_x": 2 * math.atan(3 / 9)}, False),
    ],
)
def test_a_focal_length_that_disagrees_with_the_field_of_view_is_told_and_taken(tmp_path, capsys, stated, said):
    write_transforms(tmp_path / "in", posed_frames(looking_inwards(3, distance=4)), **stated)
    record = PACKING.packed(tmp_path / "in", tmp_path / "out")
    assert ("fl_x is 18 pixels, and 9 by camera_angle_x" in capsys.readouterr().err) == said
    assert record.K[0, 0, 0] == stated["fl_x"] / 6
