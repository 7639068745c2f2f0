"""Poses in other axes, inverted, in other units, elsewhere: one warning when packing and when inspecting, and none for
good ones.
"""

from pathlib import Path

import numpy as np
import pytest

from scenes import looking_inwards, make_record, noise, png, posed_frames, write_srn_object, write_transforms
from vcgen.cli.main import main
from vcgen.data.formats.plausible import FLIP, aim_of, odd_place, odd_poses
from vcgen.data.shards.files import write_shards

RING = looking_inwards(6, distance=4)
#: OpenCV camera-to-world (x right, y down, z forward) that looks along +y of a world with z up.
LEVEL = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def moved(c2w: np.ndarray, scale: float = 1.0, shift=(0, 0, 0)) -> np.ndarray:
    c2w = c2w.copy()
    c2w[:, :3, 3] = c2w[:, :3, 3] * scale + shift
    return c2w


def turned(world: np.ndarray) -> np.ndarray:
    """The ring in a world turned by (3, 3)."""
    transform = np.eye(4)
    transform[:3, :3] = world
    return transform @ RING


def one_reversed() -> np.ndarray:
    c2w = RING.copy()
    c2w[3] = c2w[3] @ FLIP
    return c2w


Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
ODD = {
    "OpenCV for OpenGL": (RING @ FLIP, "behind 6 of 6 cameras: OpenCV poses"),
    "one reversed": (one_reversed(), "behind 1 of 6 cameras"),
    "world-to-camera": (np.linalg.inv(RING), "world-to-camera"),
    "world-to-camera, OpenCV": (np.linalg.inv(RING) @ FLIP, "world-to-camera"),
    "world-to-camera, off the middle": (np.linalg.inv(moved(RING, 1, (1, 2, 0.5))), "world-to-camera"),
    "millimetres": (moved(RING, 1000), "stand 4000 from the point they look at, near and far are 2 and 6"),
    "kilometres": (moved(RING, 1e-3), "stand 0.004 from"),
    "a little too far": (moved(RING, 1.6), "stand 6.4 from"),
    "elsewhere": (moved(RING, 1, (3, 0, 0)), "a point 3 from the origin"),
    "y up": (turned(Y_UP), "theirs is ("),
    "upside down": (turned(np.diag([1.0, -1, -1])), "not upright"),
    "on their side": (
        RING @ np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        "up is (0, 0, 1); turn them",
    ),
    "a turntable": (np.tile(RING[:1], (6, 1, 1)), "all 6 views have one pose"),
}


def remarks(c2w: np.ndarray) -> list[str]:
    return odd_poses(c2w) or odd_place(c2w, 2, 6)


@pytest.mark.parametrize("name", ODD)
def test_odd_poses_are_told(name):
    c2w, words = ODD[name]
    (text,) = remarks(c2w)
    assert words in text


def level(positions: np.ndarray, yaw: np.ndarray, pitch: np.ndarray | float = 0.0) -> np.ndarray:
    """Level cameras at positions (n, 3), turned about the world's up and then down, radians."""
    c2w = np.tile(LEVEL, (len(positions), 1, 1))
    for pose, position, a, b in zip(c2w, positions, yaw, np.broadcast_to(pitch, yaw.shape), strict=True):
        about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        pose[:3] = np.concatenate([about_z @ LEVEL[:3, :3] @ about_x, position[:, None]], 1)
    return c2w


def rolls(count: int) -> np.ndarray:
    """(count, 4, 4) turns about the optical axis."""
    angles = np.random.default_rng(0).random(count) * 2 * np.pi
    turns = np.tile(np.eye(4), (count, 1, 1))
    turns[:, :2, :2] = np.moveaxis(
        np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]), 2, 0
    )
    return turns


RANDOM = np.random.default_rng(0)
GOOD = {
    "rolled at random": looking_inwards(60, distance=4) @ rolls(60),
    "inwards": RING,
    "two": RING[:2],
    "not exactly": moved(RING, 1.1, RANDOM.normal(size=(6, 3)) * 0.3),
    "forward, parallel": level(RANDOM.normal(size=(20, 3)) * 300, np.zeros(20)),
    "forward, by hand": level(RANDOM.normal(size=(20, 3)) * [0.3, 0.02, 0.2], *RANDOM.normal(size=(2, 20)) * 0.1),
    "a street": level(np.arange(30)[:, None] * [0.0, 5, 0], RANDOM.normal(size=30) * 0.3),
    "a panorama": level(np.zeros((12, 3)), np.arange(12) * np.pi / 6),
    "a panorama elsewhere": level(np.ones((12, 3)) * 9, np.arange(12) * 0.5),
    "a room": level(RANDOM.normal(size=(40, 3)) * 2, RANDOM.random(40) * 6.28),
    "from above": moved(
        level(RANDOM.normal(size=(9, 3)) * [1, 1, 0.1], np.zeros(9), 0.0 * np.zeros(9) - np.pi / 2), 1, (0, 0, 4)
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_other_ways_of_taking_photographs_are_no_faults(name):
    assert remarks(GOOD[name]) == []


def test_the_point_that_cameras_look_at():
    aim = aim_of(moved(RING, 1, (1, 2, 3)))
    assert (
        np.allclose(aim.point, [1, 2, 3]) and aim.distance == pytest.approx(4) and aim.miss < 1e-6 and aim.behind == 0
    )
    assert aim_of(level(np.eye(3), np.zeros(3))).spread < 1e-12


def pack(folder: Path, *options: str, kind: str = "transforms") -> list[str]:
    return ["pack", kind, str(folder / "in"), str(folder / "out"), "--near", "2", "--far", "6", *options]


def lines(capsys, *words: str) -> list[str]:
    assert main(["data", *words]) == 0
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("vcgen: warning")]


@pytest.mark.parametrize("name", ["OpenCV for OpenGL", "world-to-camera", "millimetres", "elsewhere"])
@pytest.mark.parametrize("kind", ["transforms", "srn"])
def test_packing_and_inspecting_warn_once_of_many_scenes(tmp_path, capsys, kind, name):
    c2w, words = ODD[name]
    for number in range(3):
        folder = tmp_path / "in" / f"car_{number}"
        if kind == "transforms":
            write_transforms(folder, posed_frames(c2w), camera_angle_x=0.8)
        else:
            write_srn_object(folder, poses=c2w)
    packed = lines(capsys, *pack(tmp_path, kind=kind))
    inspected = lines(capsys, "inspect", str(tmp_path / "out"), "--out", "none")
    assert len(packed) == 1 and packed == inspected
    assert words in packed[0] and "scene car_0" in packed[0] and "in 2 more scenes" in packed[0]


def test_recentering_and_scaling_settle_what_they_can_and_hide_nothing(tmp_path, capsys):
    command = pack(tmp_path, "--recenter", "--overwrite")
    write_transforms(tmp_path / "in", posed_frames(moved(RING, 1000, (3000, 0, 0))), camera_angle_x=0.8)
    assert lines(capsys, *command, "--scale", "0.001") == []
    assert "stand 4000 from" in lines(capsys, *command)[0]
    write_transforms(tmp_path / "in", posed_frames(np.linalg.inv(RING)), camera_angle_x=0.8)
    assert "world-to-camera" in lines(capsys, *command)[0]


def test_inspecting_holds_poses_to_the_scene_s_own_up(tmp_path, capsys):
    record = make_record(count=6, c2w=turned(Y_UP), t_near=2.0, t_far=6.0, images=[png(noise(i)) for i in range(6)])
    write_shards([record], tmp_path / "z", record.size)
    write_shards(
        [make_record(count=6, c2w=turned(Y_UP), t_near=2.0, t_far=6.0, up=(0.0, 1.0, 0.0))], tmp_path / "y", record.size
    )
    assert "not upright" in lines(capsys, "inspect", str(tmp_path / "z"), "--out", "none")[0]
    assert lines(capsys, "inspect", str(tmp_path / "y"), "--out", "none") == []


@pytest.mark.parametrize(
    "pose", [np.zeros((4, 4)), np.full((4, 4), 1e200), np.diag([1, 1, 1e308, 1.0]), np.eye(4) + 1e13 * np.eye(4, k=3)]
)
def test_matrices_that_are_no_poses_are_refused(tmp_path, capsys, pose):
    write_transforms(tmp_path / "in", posed_frames(np.stack([RING[0], pose, RING[1]])), camera_angle_x=0.8)
    assert main(["data", *pack(tmp_path, "--recenter")]) == 2
    assert "view images/r_1.png: the" in capsys.readouterr().err


def test_pixels_that_are_not_square_are_told(tmp_path, capsys):
    write_transforms(tmp_path / "in", posed_frames(RING), fl_x=9, fl_y=9.2)
    command = pack(tmp_path, "--overwrite")
    assert lines(capsys, *command) == []
    (line,) = lines(capsys, *command, "--size", "6")
    assert "not square (fl_x / fl_y is 1.3)" in line and lines(
        capsys, "inspect", str(tmp_path / "out"), "--out", "none"
    ) == [line]


@pytest.mark.parametrize(
    ("color", "background", "words"),
    [
        (255, "white", None),
        (240, "white", None),
        (0, "black", None),
        (128, "none", None),
        (0, "white", "says white, and the borders"),
        (255, "black", "says black"),
        (128, "white", "are (128, 128, 128) of 255"),
    ],
)
def test_another_backdrop_than_stated_is_told(tmp_path, capsys, color, background, words):
    write_srn_object(tmp_path / "in" / "car", channels=3)
    for i in range(3):
        pixels = np.full((8, 6, 3), color, np.uint8)
        pixels[2:6, 2:4] = 77
        (tmp_path / "in" / "car" / "rgb" / f"{i:06d}.png").write_bytes(png(pixels))
    found = lines(capsys, "pack", "srn", str(tmp_path / "in"), str(tmp_path / "out"), "--background", background)
    assert len(found) == bool(words) and all(words in line for line in found)


def test_a_transposed_pose_says_so(tmp_path, capsys):
    frames = [
        {**frame, "transform_matrix": np.transpose(frame["transform_matrix"]).tolist()} for frame in posed_frames(RING)
    ]
    write_transforms(tmp_path / "in", frames, camera_angle_x=0.8)
    assert main(["data", *pack(tmp_path)]) == 2
    assert "is the matrix transposed?" in capsys.readouterr().err


def test_a_pose_that_is_scaled_says_by_how_much(tmp_path, capsys):
    scaled = RING.copy()
    scaled[:, :3, :3] *= 0.33
    write_transforms(tmp_path / "in", posed_frames(scaled), camera_angle_x=0.8)
    assert main(["data", *pack(tmp_path)]) == 2
    assert "not orthonormal (scaled by 0.33: divide by that)" in capsys.readouterr().err
