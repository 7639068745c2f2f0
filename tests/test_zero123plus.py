"""Sheets of six views become scenes: which view is which, where it was seen from, and what is refused."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from packing_command import Packing
from scenes import listing, noise, png
from seen_dots import DOTS, draw_dots, worst_epipolar_error, worst_error
from vcgen.cameras import view_angles
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views

#: (release, elevations, field of view and distance in radii): README of zero123plus, its issues 68 and 73.
FILLED = 1 / math.tan(math.radians(15))
RELEASES = [("1.2", (20, -10), 30.0, FILLED), ("1.1", (30, -20), 49.13434264120263, 35 / 16)]


PACKING = Packing("zero123plus")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def write_sheet(path, elevations=(20, -10), fov=30.0, radii=FILLED, side=96) -> None:
    """Dots within a ball of radius 0.5 as Zero123++ would show them; worked out here from angles alone."""
    focal = 0.5 / math.tan(math.radians(fov / 2))
    rows = []
    for row in range(3):
        tiles = []
        for column in range(2):
            azimuth, elevation = math.radians(30 + 120 * row + 60 * column), math.radians(elevations[column])
            # seen from the front (-y), the camera goes round counterclockwise: to +x first
            eye = [math.cos(elevation) * math.sin(azimuth), -math.cos(elevation) * math.cos(azimuth)]
            eye = 0.5 * radii * np.array([*eye, math.sin(elevation)])
            right = np.array([math.cos(azimuth), math.sin(azimuth), 0])
            forward = -eye / np.linalg.norm(eye)
            c2w = np.eye(4)
            c2w[:3] = np.stack([right, np.cross(forward, right), forward, eye], -1)
            tiles.append(draw_dots((side, side), c2w, np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])))
        rows.append(np.concatenate(tiles, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


@pytest.mark.parametrize(("release", "elevations", "fov", "radii"), RELEASES)
def test_the_cameras_are_those_that_the_authors_state(tmp_path, release, elevations, fov, radii):
    write_sheet(tmp_path / "in" / "mug.png", elevations, fov, radii)
    record = packed(tmp_path / "in", tmp_path / "out", "--release", release)
    assert record.key == "mug" and record.views == list("012345") and record.size == (96, 96)
    azimuths, heights = view_angles(torch.tensor(record.c2w[:, :3, 3]))
    assert azimuths.tolist() == pytest.approx([30, 90, 150, 210, 270, 330])
    assert heights.tolist() == pytest.approx(elevations * 3)
    assert record.K[:, 0, 0].tolist() == pytest.approx([0.5 / math.tan(math.radians(fov / 2))] * 6)
    assert np.linalg.norm(record.c2w[:, :3, 3], axis=1).tolist() == pytest.approx([0.5 * radii] * 6)
    assert worst_error(record) < 0.1 and worst_epipolar_error(record) < 0.2


def test_near_and_far_are_where_the_ball_of_the_object_begins_and_ends_and_scale_with_it(tmp_path):
    write_sheet(tmp_path / "in" / "mug.png")
    distance = 0.5 / math.tan(math.radians(15))
    record = packed(tmp_path / "in", tmp_path / "out", "--scale", "2")
    assert (record.t_near, record.t_far) == pytest.approx((2 * distance - 1, 2 * distance + 1))
    assert worst_error(record, 2 * DOTS) < 0.1
    record = packed(tmp_path / "in", tmp_path / "other", "--distance", "4", "--fov", "40", "--far", "6")
    assert (record.t_near, record.t_far) == (3.5, 6) and record.K[0, 1, 1] == 0.5 / math.tan(math.radians(20))
    assert record.c2w[0, 2, 3] == pytest.approx(4 * math.sin(math.radians(20)))


def test_views_are_cut_to_the_pixel_and_transparency_is_kept(tmp_path):
    pixels = noise(1, 30, 20)
    (tmp_path / "in.png").write_bytes(png(pixels))
    record = packed(tmp_path / "in.png", tmp_path / "out")
    color, alpha = decode_views(record, range(6))
    assert record.key == "in" and record.background == "alpha"
    for number, image in enumerate(np.concatenate([color, alpha], 1)):
        row, column = divmod(number, 2)
        tile = pixels[row * 10 : row * 10 + 10, column * 10 : column * 10 + 10]
        assert np.array_equal(np.round(image.transpose(1, 2, 0) * 255), tile)


@pytest.mark.integration
def test_a_folder_of_sheets_is_many_scenes_whose_bytes_do_not_depend_on_the_workers(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.png").write_bytes(png(noise(ord(name), 30, 20, 3)))
    (tmp_path / "in" / "notes.txt").write_text("not a sheet")
    assert pack(tmp_path / "in", tmp_path / "one") == 0
    assert pack(tmp_path / "in", tmp_path / "two", "--workers", "2") == 0
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    assert [sample.key for _, sample in read_index(tmp_path / "one").samples] == ["a", "b", "c"]
    held = packed(tmp_path / "in", tmp_path / "test", "--hold-out-views", "3", "--split", "test")
    assert held.views == ["0", "3"]


@pytest.mark.parametrize(
    ("shape", "options", "reason"),
    [
        ((20, 30), (), "20 x 30 pixels (height x width), but a sheet has 3 rows and 2 columns"),
        ((31, 20), (), "31 x 20 pixels"),
        (None, (), "no images in here"),
        ((30, 20), ("--fov", "180"), "--fov 180: must lie between 2 and 150 degrees"),
        ((30, 20), ("--distance", "0.5"), "--distance 0.5: must be more than the object's radius"),
        ((30, 20), ("--size", "20"), "cannot enlarge"),
        ((30, 20), ("--release", "1.3"), "--release must be one of 1.2, 1.1"),
    ],
)
def test_what_is_no_sheet_and_no_camera_is_refused_in_one_line(tmp_path, capsys, shape, options, reason):
    (tmp_path / "in").mkdir()
    if shape:
        (tmp_path / "in" / "mug.png").write_bytes(png(noise(0, *shape, 3)))
    assert reason in refused(capsys, tmp_path / "in", tmp_path / "out", *options)
    assert "no such file" in refused(capsys, tmp_path / "absent", tmp_path / "out")
