"""CO3D's second version: cameras, crops, masks, bounds, lists, what is refused."""

import gzip
import json

import numpy as np
import pytest
import torch

from co3d_files import C2W, COVERED, SIZE, VIEWS, WORLD, K, frames, in_world, write_category, write_jgz
from packing_command import Packing, keys
from scenes import listing, png, set_at
from seen_dots import DOTS, worst_epipolar_error, worst_error
from training import refusal
from vcgen.cameras import pytorch3d_to_c2w
from vcgen.data.formats.co3d_annotations import pinhole_pixels, poses, read_frames
from vcgen.data.formats.framed import centered_square, cut, square_around
from vcgen.data.shards.record import SceneRecord, check_pose, decode_views
from vcgen.errors import UserError
from vcgen.io import read_gzip

ALL = ("--subset", "")
#: As it is stored.
UNCHANGED = (*ALL, "--distance", "0", "--up", "z", "--masks", "false", "--near", "1", "--far", "3", "--crop", "none")


PACKING = Packing("co3d")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def dots_in(record: SceneRecord, c2w: np.ndarray = C2W) -> np.ndarray:
    """Where the dots are in the packed world, which is theirs turned, moved and scaled: two cameras tell."""
    scale = np.linalg.norm(record.c2w[1, :3, 3] - record.c2w[0, :3, 3]) / np.linalg.norm(c2w[1, :3, 3] - c2w[0, :3, 3])
    turn = record.c2w[0, :3, :3] @ c2w[0, :3, :3].T
    return scale * (DOTS - c2w[0, :3, 3]) @ turn.T + record.c2w[0, :3, 3]


@pytest.mark.parametrize("kind", ["ndc_isotropic", "ndc_norm_image_bounds"])
def test_cameras_are_those_that_were_written(tmp_path, kind):
    write_category(tmp_path / "in", ("1_2_3",), kind=kind, world=np.eye(4))
    record = packed(tmp_path / "in", tmp_path / "out", *UNCHANGED)
    assert np.allclose(record.c2w, C2W, atol=1e-12) and np.allclose(record.K, K, atol=1e-12)
    assert record.views[0] == "frame000008" and (record.key, record.size) == ("cup_1_2_3", SIZE)
    assert worst_error(record) < 0.1 and worst_epipolar_error(record) < 0.2


def test_an_annotation_of_the_published_data_is_what_a_phone_sees_from_where_the_solver_began(tmp_path):
    found = frames("540_79043_153212", category="apple")[0]
    found["image"]["size"] = [900, 2000]
    found["viewpoint"] = {
        "R": [
            [-0.9941162467002869, -0.10805200785398483, 0.007596105802804232],
            [0.10785271227359772, -0.9939004778862, -0.02301282249391079],
            [0.010036354884505272, -0.022058159112930298, 0.9997063279151917],
        ],
        "T": [-0.35470789670944214, 1.2838153839111328, 14.110940933227539],
        "focal_length": [3.959122657775879, 3.9611024856567383],
        "principal_point": [-0.0, -0.0],
        "intrinsics_format": "ndc_isotropic",
    }
    write_jgz(tmp_path / "frame_annotations.jgz", [found])
    (frame,) = read_frames(tmp_path)
    focal, center = pinhole_pixels(frame, frame.viewpoint)
    assert focal == pytest.approx([1781.6, 1782.5], abs=0.1) and center.tolist() == [1000, 450]
    (c2w,) = poses([frame])
    check_pose(c2w, "it")
    R, T = (torch.tensor(found["viewpoint"][name], dtype=torch.float64) for name in ("R", "T"))
    assert np.allclose(c2w, pytorch3d_to_c2w(R, T))
    assert np.degrees(np.arccos((np.trace(c2w[:3, :3]) - 1) / 2)) < 7, "COLMAP's first camera is not turned at all"
    depth = (np.linalg.inv(c2w) @ [0, 0, 0, 1])[2]
    assert depth == pytest.approx(14.110940933227539), "z points forward in both conventions"


@pytest.mark.parametrize("crop", ["center", "object", "none"])
def test_in_any_world_and_crop_the_dots_are_where_the_packed_cameras_see_them(tmp_path, capsys, crop):
    write_category(tmp_path / "in")
    record = packed(tmp_path / "in", tmp_path / "out", *ALL, "--crop", crop)
    assert "up was guessed as" in capsys.readouterr().err
    assert worst_error(record, dots_in(record)) < 0.2 and worst_epipolar_error(record) < 0.3
    assert record.size == {"center": (84, 84), "object": (91, 91), "none": SIZE}[crop]
    assert np.abs(record.c2w[:, 2, 0]).max() < 1e-6, "the rows of every image are level"


def test_every_sequence_gets_one_middle_and_distance_and_bounds_around_them(tmp_path):
    write_category(tmp_path / "in")
    record = packed(tmp_path / "in", tmp_path / "out", *ALL)
    assert np.linalg.norm(record.c2w[:, :3, 3], axis=1) == pytest.approx([1.3] * VIEWS)
    assert (record.t_near, record.t_far) == pytest.approx((0.65, 1.95))
    assert record.scale == pytest.approx(1.3 / 6), "the solver's world is three times as large as that of the dots"
    twice = packed(tmp_path / "in", tmp_path / "twice", *ALL, "--scale", "2", "--far", "9")
    assert (twice.t_near, twice.t_far) == (pytest.approx(1.3), 9)
    kept = packed(tmp_path / "in", tmp_path / "kept", *ALL, "--distance", "0", "--up", "z")
    assert np.allclose(kept.c2w, in_world(C2W, WORLD)) and (kept.t_near, kept.t_far) == pytest.approx((3, 9))


def test_lists_tell_splits_which_share_one_world(tmp_path):
    write_category(tmp_path / "in")
    train, val, test = (packed(tmp_path / "in", tmp_path / s, "--split", s) for s in ("train", "val", "test"))
    assert (keys(tmp_path / "train"), keys(tmp_path / "test")) == (["cup_1_2_3"], ["cup_4_5_6"])
    assert (len(train.views), len(val.views), len(test.views)) == (4, 2, 6)
    whole = packed(tmp_path / "in", tmp_path / "all", *ALL)
    assert np.allclose(np.concatenate([train.c2w, val.c2w]), whole.c2w, atol=1e-12)


def test_categories_and_qualities_choose_sequences(tmp_path, capsys):
    write_category(tmp_path / "in")
    write_category(tmp_path / "in", ("7_8_9",), category="book")
    packed(tmp_path / "in", tmp_path / "all", *ALL)
    assert keys(tmp_path / "all") == ["book_7_8_9", "cup_1_2_3", "cup_4_5_6"]
    packed(tmp_path / "in", tmp_path / "cups", *ALL, "--categories", "cup", "--quality", "1.5")
    assert (
        keys(tmp_path / "cups") == ["cup_4_5_6"] and "1 sequences have cameras of a quality" in capsys.readouterr().out
    )
    packed(tmp_path / "in" / "book", tmp_path / "one", *ALL)
    assert keys(tmp_path / "one") == ["book_7_8_9"]
    assert "no 'car'; it has book, cup" in refused(capsys, tmp_path / "in", tmp_path / "no", "--categories", "car")


def test_masks_become_coverage_and_frames_without_any_are_left_out(tmp_path, capsys):
    found = write_category(tmp_path / "in", ("1_2_3",))
    record = packed(tmp_path / "in", tmp_path / "out", *ALL, "--crop", "none")
    alpha = decode_views(record, [2])[1][0, 0]
    assert record.background == "alpha" and alpha[COVERED].all() and alpha.sum() == 55 * 70
    (tmp_path / "in" / found[3]["mask"]["path"]).write_bytes(png(np.zeros((*SIZE, 3), np.uint8)))
    fewer = packed(tmp_path / "in", tmp_path / "fewer", *ALL)
    assert len(fewer.views) == 5 and "frame000011" not in fewer.views
    assert "1 of 6 frames have a mask that marks nothing" in capsys.readouterr().err


def test_equal_sources_give_equal_bytes_and_changed_poses_are_noticed(tmp_path, capsys):
    found = write_category(tmp_path / "in")
    assert pack(tmp_path / "in", tmp_path / "one") == 0
    write_category(tmp_path / "moved" / "in")
    assert pack(tmp_path / "moved" / "in", tmp_path / "two") == 0
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    found[0]["viewpoint"]["T"][0] += 1e-6
    write_jgz(tmp_path / "in" / "cup" / "frame_annotations.jgz", found)
    assert "another source" in refusal(capsys, pack(tmp_path / "in", tmp_path / "one"))


def test_frames_without_a_camera_are_counted(tmp_path, capsys):
    found = write_category(tmp_path / "in")
    found[1]["viewpoint"] = None
    write_jgz(tmp_path / "in" / "cup" / "frame_annotations.jgz", found)
    assert len(packed(tmp_path / "in", tmp_path / "out").views) == 3
    assert "1 of 4 listed frames have no camera" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("0.image.path", "../../etc/passwd", "leads outside the folder of images"),
        ("0.mask.path", "/etc/passwd", "leads outside the folder of images"),
        ("0.image.path", "cup/1_2_3/images/lost.jpg", "1 of 4 images are missing: cup/1_2_3/images/lost.jpg"),
        ("0.mask.path", "cup/1_2_3/masks/lost.png", "masks: 1 of 4 images are missing: cup/1_2_3/masks/lost.png"),
        ("0.mask", None, "1 frames have no mask, frame000008 the first; give --masks false"),
        ("0.image.size", [120, 90], "90 x 120, annotated are 120 x 90"),
        ("0.viewpoint.focal_length", [400.0, 400.0], "frame frame000008: fl_x, the focal length"),
        ("0.viewpoint.R.0", [9.0, 0.0, 0.0], "frame frame000008: the pose's rotation is not orthonormal"),
        ("0.viewpoint.intrinsics_format", "pixels", "frame_annotations.jgz: Invalid enum value 'pixels'"),
        ("0.viewpoint.T", [0.0, 0.0], "frame_annotations.jgz: Expected `array` of length 3"),
    ],
)
def test_annotations_that_cannot_be_used_are_one_line(tmp_path, capsys, place, value, words):
    found = write_category(tmp_path / "in")
    set_at(found, place, value)
    write_jgz(tmp_path / "in" / "cup" / "frame_annotations.jgz", found)
    assert words in refused(capsys, tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--subset", "manyview"], "set_lists_manyview.json is missing; --subset is one of fewview_dev"),
        (["--split", "dev"], "has no split dev, but test, train, val"),
        (["--hold-out-views", "2"], "--subset parts frames already"),
        (["--crop", "object", "--masks", "false"], "--crop object is told by the masks"),
        (["--masks", "false"], "nothing tells how far it is: give --near and --far"),
        (["--distance", "-1"], "--distance must lie between 0"),
        (["--quality", "9"], "no sequence is left"),
        (["--size", "100"], "cannot enlarge a 84 x 84 image"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, capsys, options, words):
    write_category(tmp_path / "in")
    assert words in refused(capsys, tmp_path / "in", tmp_path / "out", *options)


def test_cameras_that_look_at_no_one_point_are_refused(tmp_path, capsys):
    write_category(tmp_path / "in", ("1_2_3",))
    away = C2W.copy()
    away[:, :3, 2] *= -1
    away[:, :3, 0] *= -1
    spoiled = frames("1_2_3")
    for frame, own in zip(spoiled, away, strict=True):
        frame["viewpoint"]["R"] = (own[:3, :3] @ np.diag([-1.0, -1.0, 1.0])).tolist()
        frame["viewpoint"]["T"] = (-own[:3, 3] @ np.array(frame["viewpoint"]["R"])).tolist()
    write_jgz(tmp_path / "in" / "cup" / "frame_annotations.jgz", spoiled)
    assert "do not look at one point" in refused(capsys, tmp_path / "in", tmp_path / "out", *ALL)
    assert "no category with frame_annotations.jgz" in refused(
        capsys, tmp_path / "in" / "cup" / "set_lists", tmp_path / "o"
    )


def test_a_file_that_decompresses_to_too_much_or_not_at_all_is_refused(tmp_path):
    (tmp_path / "bomb.jgz").write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(UserError, match=r"longer than 1 MB once decompressed"):
        read_gzip(tmp_path / "bomb.jgz", 1_000_000)
    for content in (b"", b"[]", gzip.compress(json.dumps([1] * 1000).encode())[:-9]):
        (tmp_path / "cut.jgz").write_bytes(content)
        if content:
            with pytest.raises(UserError, match="cannot be decompressed"):
                read_gzip(tmp_path / "cut.jgz", 1_000_000)


def test_squares_keep_what_is_seen_where_it_is(tmp_path):
    pixels = np.zeros((*SIZE, 4), np.float32)
    pixels[60:90, 100:120, 3] = 1
    left, top, side = square_around(pixels)
    assert side >= 1.3 * 30 and left + side > 120, "reaches outside"
    square, inner = cut(pixels, K, left, top, side)
    assert square.shape == (side, side, 4) and square[..., 3].sum() == 30 * 20
    spot = (K[:2, :2] @ [0.3, 0.2] + K[:2, 2]) * SIZE[::-1] - [left, top]
    assert (inner[:2, :2] @ [0.3, 0.2] + inner[:2, 2]) * side == pytest.approx(spot)
    assert centered_square(pixels, K) == (20, 0, 84)
