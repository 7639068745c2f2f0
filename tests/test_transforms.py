import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from geometry import coverage, matched_errors, visual_hull
from packing_command import Packing
from scenes import listing, looking_inwards, noise, write_transforms
from vcgen.cli.main import main
from vcgen.data.formats.scene import nearest_to_axes
from vcgen.data.formats.transforms import read_intrinsics
from vcgen.data.images.arrays import area_resize, premultiply
from vcgen.data.images.distortion import Distortion, distort, undistort
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views
from vcgen.errors import UserError

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
C2W = looking_inwards(3, distance=4)


PACKING = Packing("transforms", "--near", "2", "--far", "6")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def frames(prefix: str = "images/f", extension: str = ".png", **extra) -> list[dict]:
    """Three frames whose OpenCV poses are ``C2W``."""
    return [
        {"file_path": f"{prefix}_{i}{extension}", "transform_matrix": (C2W[i] @ OPENGL).tolist(), **extra}
        for i in range(3)
    ]


def test_blender_scenes_have_opengl_poses_a_field_of_view_and_names_without_extension(tmp_path):
    write_transforms(tmp_path / "mic", frames("./train/r", ""), "transforms_train.json", channels=4, camera_angle_x=0.8)
    record = packed(tmp_path / "mic", tmp_path / "out")
    assert np.allclose(record.c2w, C2W, atol=1e-12)
    focal = 0.5 / math.tan(0.4)
    assert np.allclose(record.K, [[focal, 0, 0.5], [0, focal * 6 / 8, 0.5], [0, 0, 1]])
    assert (record.key, record.views, record.background) == ("mic", ["train/r_0", "train/r_1", "train/r_2"], "alpha")
    rgb, _ = decode_views(record, [1])
    assert np.array_equal(np.round(rgb[0] * 255), noise(1)[..., :3].transpose(2, 0, 1))


def test_views_are_in_natural_order_with_their_own_poses(tmp_path):
    mixed = [
        {**frame, "file_path": name} for frame, name in zip(frames(), ("r_10.png", "r_2.png", "r_1.png"), strict=True)
    ]
    write_transforms(tmp_path / "in", mixed, camera_angle_x=0.8)
    record = packed(tmp_path / "in", tmp_path / "out")
    assert record.views == ["r_1", "r_2", "r_10"] and np.allclose(record.c2w, C2W[[2, 1, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("frame", "top", "fx", "fy"),
    [
        ({}, {"fl_x": 9, "fl_y": 10.0, "camera_angle_x": 2.0}, 9 / 6, 10 / 8),
        ({}, {"fl_x": 9}, 9 / 6, 9 / 8),
        ({"fl_x": 12.0}, {"fl_x": 9, "w": 6.0, "h": 8.0}, 12 / 6, 12 / 8),
        ({"camera_angle_x": math.pi / 2}, {"fl_x": 9, "fl_y": 8}, 0.5, 0.5 * 6 / 8),
        ({}, {"camera_angle_x": math.pi / 2, "camera_angle_y": math.pi / 2}, 0.5, 0.5),
        ({}, {"fl_x": 90, "fl_y": 90, "w": 60.0, "h": 80.0}, 90 / 60, 90 / 80),
    ],
)
def test_frames_beat_the_file_and_focal_lengths_beat_angles(frame, top, fx, fy):
    if "camera_angle_x" in frame:
        top = {key: value for key, value in top.items() if key != "fl_y"}
    assert np.allclose(read_intrinsics(frame, top, (8, 6)), [[fx, 0, 0.5], [0, fy, 0.5], [0, 0, 1]])


def test_the_principal_point_is_normalized_by_width_and_height():
    K = read_intrinsics({}, {"fl_x": 9, "cx": 2.4, "cy": 4.8}, (8, 6))
    assert np.allclose(K[:2, 2], [2.4 / 6, 4.8 / 8])


@pytest.mark.parametrize(
    ("top", "word"),
    [
        ({}, "neither fl_x"),
        ({"fl_x": "9"}, "fl_x must be"),
        ({"fl_x": 9, "w": 8, "h": 6}, "w and h say"),
        ({"fl_x": float("nan")}, "finite"),
    ],
)
def test_unusable_intrinsics_are_refused(top, word):
    with pytest.raises(UserError, match=word):
        read_intrinsics({}, top, (8, 6))


def test_distortion_is_the_formula_of_opencv():
    # Written out by hand for x = 0.5, y = -0.25, so r2 = 0.3125.
    lens = Distortion(k1=0.1, k2=-0.2, k3=0.3, p1=0.01, p2=-0.02)
    radial = 1 + 0.1 * 0.3125 - 0.2 * 0.3125**2 + 0.3 * 0.3125**3
    x = 0.5 * radial + 2 * 0.01 * 0.5 * -0.25 - 0.02 * (0.3125 + 2 * 0.25)
    y = -0.25 * radial + 0.01 * (0.3125 + 2 * 0.0625) + 2 * -0.02 * 0.5 * -0.25
    assert np.allclose(distort(np.array([0.5, -0.25]), lens), [x, y])


@pytest.mark.parametrize("lens", [Distortion(k1=0.2, p1=0.01), Distortion(k1=-0.2, k2=0.05)])
def test_undistorted_pixels_come_from_where_the_lens_put_them(lens):
    height, width = 40, 30
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    # Color is linear in position, so interpolation is exact and color tells the position that was read.
    image = np.stack([u, v, u], -1).astype(np.float32)
    K = np.array([[1.5, 0, 0.45], [0, 1.2, 0.55], [0, 0, 1]])
    straight, new_K = undistort(image, K, lens)
    assert new_K[0, 0] / 1.5 == pytest.approx(new_K[1, 1] / 1.2) and new_K[0, 0] >= 1.5
    ideal = np.stack([(u - new_K[0, 2]) / new_K[0, 0], (v - new_K[1, 2]) / new_K[1, 1]], -1)
    expected = distort(ideal, lens) * [1.5, 1.2] + [0.45, 0.55]
    assert expected.min() >= 0 and expected.max() <= 1
    inner = (slice(1, -1), slice(1, -1))
    assert np.abs(straight[..., :2] - expected)[inner].max() < 1e-5


def ideal_radius(distorted: np.ndarray, k1: float) -> np.ndarray:
    """The r with r + k1 r^3 = distorted: Cardano's formula, for k1 > 0."""
    half, third = distorted / (2 * k1), 1 / (3 * k1)
    root = np.sqrt(half**2 + third**3)
    return np.cbrt(half + root) + np.cbrt(half - root)


def test_a_nerfstudio_scene_with_a_lens_of_its_own_for_every_frame(tmp_path):
    """Color says from which direction light came, so each pixel must have the color of the direction that the stored
    camera gives it.
    """
    height, width = 48, 64
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    lenses = [
        dict(fl_x=50.0 + 5 * i, fl_y=52.0 + 3 * i, cx=31.0 + i, cy=25.0 - i, k1=0.06 + 0.03 * i) for i in range(3)
    ]
    (tmp_path / "in" / "images").mkdir(parents=True)
    for i, lens in enumerate(lenses):
        x, y = (u - lens["cx"]) / lens["fl_x"], (v - lens["cy"]) / lens["fl_y"]
        radius = np.hypot(x, y)
        straighten = ideal_radius(radius, lens["k1"]) / radius
        pixels = np.stack([127.5 + 170 * x * straighten, 127.5 + 220 * y * straighten, np.zeros_like(x)], -1)
        Image.fromarray(np.round(pixels).astype(np.uint8)).save(tmp_path / "in" / "images" / f"f_{i}.png")
    own = [{**frame, **lens, "w": width, "h": height} for frame, lens in zip(frames(), lenses, strict=True)]
    write_transforms(
        tmp_path / "in", own, camera_model="OPENCV", k2=0.0, p1=0.0, p2=0.0, applied_transform=np.eye(4)[:3].tolist()
    )
    record = packed(tmp_path / "in", tmp_path / "out")
    assert len(np.unique(record.K[:, 0, 0])) == 3 and np.allclose(record.K[:, 0, 2] * width, [31, 32, 33])
    rgb, _ = decode_views(record, [0, 1, 2])
    x = (u / width - record.K[:, 0, 2, None, None]) / record.K[:, 0, 0, None, None]
    y = (v / height - record.K[:, 1, 2, None, None]) / record.K[:, 1, 1, None, None]
    error = np.abs(rgb[:, :2] * 255 - np.stack([127.5 + 170 * x, 127.5 + 220 * y], 1))
    assert error[..., 1:-1, 1:-1].max() < 1.3, "half a level from rounding, twice, and interpolation"


def test_a_lens_too_strong_to_undo_and_a_fisheye_are_refused(tmp_path, capsys):
    write_transforms(tmp_path / "strong", frames(), fl_x=2.0, k1=50.0)
    assert "too strong" in refused(capsys, tmp_path / "strong", tmp_path / "out")
    write_transforms(tmp_path / "fish", frames(), fl_x=9.0, camera_model="OPENCV_FISHEYE")
    line = refused(capsys, tmp_path / "fish", tmp_path / "out")
    assert "OPENCV_FISHEYE" in line and "undistort" in line


def test_area_resize_keeps_the_mean_of_premultiplied_color_for_any_ratio():
    image = np.random.default_rng(0).random((11, 7, 4), dtype=np.float32)
    small = area_resize(image, (4, 3))
    assert np.allclose(premultiply(small).mean((0, 1)), premultiply(image).mean((0, 1)), atol=1e-6)
    ramp = np.tile(((np.arange(7) + 0.5) / 7)[None, :, None], (5, 1, 3)).astype(np.float32)
    assert np.allclose(area_resize(ramp, (5, 1)), 0.5)


def test_recentering_and_scaling_move_the_common_point_of_the_axes_to_the_origin(tmp_path):
    shift = np.array([3.0, -1.0, 2.0])
    moved = C2W.copy()
    moved[:, :3, 3] += shift
    assert np.allclose(nearest_to_axes(moved), shift)
    write_transforms(
        tmp_path / "in",
        [{**f, "transform_matrix": (moved[i] @ OPENGL).tolist()} for i, f in enumerate(frames())],
        camera_angle_x=0.8,
    )
    record = packed(tmp_path / "in", tmp_path / "out", "--recenter", "--scale", "0.5")
    assert np.allclose(record.c2w[:, :3, 3], C2W[:, :3, 3] / 2) and record.scale == 0.5


def test_splits_choose_the_file_and_folders_of_scenes_are_many_scenes(tmp_path, capsys):
    for name in ("a", "b"):
        for split in ("train", "test"):
            write_transforms(tmp_path / "in" / name, frames(split), f"transforms_{split}.json", camera_angle_x=0.8)
    assert pack(tmp_path / "in", tmp_path / "out", "--split", "test", "--workers", "2") == 0
    index = read_index(tmp_path / "out")
    assert [sample.key for _, sample in index.samples] == ["a", "b"] and index.read(0).views[0] == "test_0"
    line = refused(capsys, tmp_path / "in", tmp_path / "no", "--split", "val")
    assert "transforms_val.json" in line and "choose with --split" in line


def test_missing_images_are_listed(tmp_path, capsys):
    write_transforms(tmp_path / "in", frames(), camera_angle_x=0.8)
    (tmp_path / "in" / "images" / "f_1.png").unlink()
    assert "1 of 3 images are missing: images/f_1.png" in refused(capsys, tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"transform_matrix": [[1, 0, 0, 0]] * 4}, "not orthonormal"),
        ({"transform_matrix": [[float("nan")] * 4] * 4}, "malformed"),
        ({"transform_matrix": [[1, 0], [0]]}, "transform_matrix: Expected `array` of length >= 3"),
        ({"transform_matrix": [["1", 0, 0, 0]] * 4}, "got `str` - at `$[0][0]`"),
        ({"transform_matrix": [[10**400, 0, 0, 0]] * 4}, "more than 64 bits"),
        ({"transform_matrix": np.diag([-1.0, 1, 1, 1]).tolist()}, "mirror"),
        ({"file_path": "images/f_0.png"}, "more than once"),
    ],
)
def test_wrong_frames_are_refused(tmp_path, capsys, change, word):
    write_transforms(tmp_path / "in", [*frames()[:2], {**frames()[2], **change}], camera_angle_x=0.8)
    assert word in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_a_frame_without_pose_and_images_of_several_sizes_are_refused(tmp_path, capsys):
    broken = frames()
    del broken[1]["transform_matrix"]
    write_transforms(tmp_path / "in", broken, camera_angle_x=0.8)
    assert "f_1: missing pose" in refused(capsys, tmp_path / "in", tmp_path / "out")
    write_transforms(tmp_path / "sizes", frames(), camera_angle_x=0.8)
    Image.fromarray(noise(0, 16, 12, 3)).save(tmp_path / "sizes" / "images" / "f_2.png")
    line = refused(capsys, tmp_path / "sizes", tmp_path / "out")
    assert "several sizes" in line and "--size" in line


def test_ray_bounds_must_be_given(tmp_path, capsys):
    assert main(["data", "pack", "transforms", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "--near and --far" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize(("name", "background"), [("mic_256", "alpha"), ("lego_256", "alpha")])
def test_masks_and_cameras_of_real_scenes_carve_the_object(shared_data, tmp_path, name, background):
    record = packed(shared_data / name, tmp_path / "out")
    assert record.background == background and len(record.views) == 100
    carve, held_out = list(range(0, 100, 4)), (1, 30, 66, 91)
    hull = visual_hull(record, carve, record.c2w, half=1.4)
    for index in held_out:
        recall, inside = coverage(record, hull, index)
        assert recall > 0.97 and inside > 0.99
    shuffled = visual_hull(record, carve, record.c2w[np.random.default_rng(0).permutation(100)], half=1.4)
    assert len(shuffled) < 0.5 * len(hull)
    # Thin parts survive no wrong pose: the microphone vanishes entirely, the bulldozer keeps a convex core.
    assert name != "mic_256" or len(shuffled) < 0.01 * len(hull)
    assert len(visual_hull(record, carve, record.c2w @ OPENGL, half=1.4)) == 0


@pytest.mark.integration
def test_matches_between_real_photographs_lie_on_epipolar_lines(shared_data, tmp_path):
    keep = json.loads((shared_data / "fox" / "transforms.json").read_text())
    keep["frames"] = [keep["frames"][i] for i in (0, 3, 10, 13)]
    (tmp_path / "in" / "images").mkdir(parents=True)
    (tmp_path / "in" / "transforms.json").write_text(json.dumps(keep))
    for frame in keep["frames"]:
        shutil.copy(shared_data / "fox" / frame["file_path"], tmp_path / "in" / frame["file_path"])
    record = packed(tmp_path / "in", tmp_path / "out", "--size", "480x270")
    assert record.size == (480, 270) and record.background == "none"
    for first, second in ((0, 1), (2, 3)):
        errors = matched_errors(record, first, second)
        assert len(errors) > 50 and np.median(errors) < 1.0
    assert sorted(listing(tmp_path / "out")) == ["000000.tar", "index.json", "pack.json"]
