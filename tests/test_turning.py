"""Photographs with an EXIF orientation: turned upright with their cameras, so that every world point stays on the pixel
that shows it.
"""

import json

import numpy as np
import pytest
from PIL import Image

from packing_command import Packing
from scenes import looking_inwards, posed_frames, write_srn_object
from vcgen.data.images.distortion import Distortion, distort
from vcgen.data.images.framing import read
from vcgen.data.shards.record import SceneRecord, decode_views

PACKING = Packing("transforms", "--near", "2", "--far", "6")
C2W = looking_inwards(3, distance=4)
#: A red, a green and a blue spot in the world.
SPOTS = np.array([[0.5, 0.1, 0.3], [-0.6, 0.3, -0.2], [0.1, -0.5, -0.5]])
COLORS = np.eye(3) * 255
#: In pixels of an image of 72 x 48 (width x height).
CAMERA = {"fl_x": 70.0, "fl_y": 60.0, "cx": 39.0, "cy": 22.0, "w": 72, "h": 48}
#: The same for twice the resolution.
TWICE = {name: 2 * value for name, value in CAMERA.items()}
#: EXIF's orientation -> quarter turns counter-clockwise from the upright image to the stored one.
TURNS = {1: 0, 6: 1, 3: 2, 8: 3}


def photograph(pose: np.ndarray, camera: dict, lens: Distortion = Distortion()) -> np.ndarray:
    """The spots, 5 x 5 pixels each, as a camera sees them."""
    local = (SPOTS - pose[:3, 3]) @ pose[:3, :3]
    at = distort(local[:, :2] / local[:, 2:], lens) * [camera["fl_x"], camera["fl_y"]] + [camera["cx"], camera["cy"]]
    pixels = np.zeros((camera["h"], camera["w"], 3), np.uint8)
    for (x, y), color in zip(np.floor(at).astype(int), COLORS, strict=True):
        assert 2 <= x < camera["w"] - 2 and 2 <= y < camera["h"] - 2
        pixels[y - 2 : y + 3, x - 2 : x + 3] = color
    return pixels


def save(path, stored: np.ndarray, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)


def write_capture(
    folder,
    orientations: list[int | None],
    of_upright: bool = False,
    lens: Distortion = Distortion(),
    camera=CAMERA,
    **top,
):
    """The spots seen from ``C2W``: poses are of what is stored, or of the upright images."""
    for i, (pose, orientation) in enumerate(zip(C2W, orientations, strict=True)):
        pixels = photograph(pose, camera, lens)
        save(
            folder / f"images/r_{i}.png",
            np.rot90(pixels, TURNS[orientation or 1]) if of_upright else pixels,
            orientation,
        )
    content = {
        **camera,
        **{name: value for name, value in lens._asdict().items() if value},
        **top,
        "frames": posed_frames(C2W),
    }
    (folder / "transforms.json").write_text(
        json.dumps({name: value for name, value in content.items() if value is not None})
    )


def packed(tmp_path, capsys, *options: str) -> tuple[SceneRecord, list[str]]:
    record = PACKING.packed(tmp_path / "in", tmp_path / "out", *options)
    return record, [line for line in capsys.readouterr().err.splitlines() if "EXIF" in line]


def misplaced(record: SceneRecord) -> float:
    """The largest difference (of 255) between a spot's color and that of the pixel on which its camera puts it."""
    rgb, _ = decode_views(record, range(len(record.views)))
    worst = 0.0
    for pixels, pose, K in zip(rgb, record.c2w, record.K, strict=True):
        local = (SPOTS - pose[:3, 3]) @ pose[:3, :3]
        uv = local[:, :2] / local[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2]
        columns, rows = np.floor(uv * record.size[::-1]).astype(int).T
        worst = max(worst, float(np.abs(pixels[:, rows, columns].T * 255 - COLORS).max()))
    return worst


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("of_upright", [False, True])
def test_world_points_stay_on_their_pixels(tmp_path, capsys, orientation, of_upright):
    write_capture(tmp_path / "in", [orientation] * 3, of_upright)
    record, lines = packed(tmp_path, capsys)
    assert misplaced(record) == 0 or (orientation == 3 and of_upright)  # half a turn has no shape that could tell
    assert record.size == ((48, 72) if of_upright or orientation == 3 else (72, 48))
    upright, _ = read(tmp_path / "in" / "images" / "r_1.png")
    rgb, _ = decode_views(record, [1])
    assert np.array_equal(np.round(rgb[0] * 255).transpose(1, 2, 0), upright[..., :3]), (
        "what vcgen render and PhotoData make of the file"
    )
    (line,) = lines
    assert "3 of 3 images carry an EXIF orientation" in line and "turned upright" in line
    assert ("of the upright images, as w and h say" in line) == (of_upright and orientation != 3)
    record.validate()


@pytest.mark.parametrize("orientation", [None, 1, 9, 0])
def test_without_an_orientation_nothing_is_turned_or_said(tmp_path, capsys, orientation):
    write_capture(tmp_path / "in", [orientation] * 3)
    record, lines = packed(tmp_path, capsys)
    assert misplaced(record) == 0 and record.size == (48, 72) and lines == []
    assert np.allclose(record.c2w, C2W) and np.allclose(
        record.K[0], [[70 / 72, 0, 39 / 72], [0, 60 / 48, 22 / 48], [0, 0, 1]]
    )


@pytest.mark.parametrize("of_upright", [False, True])
def test_a_lens_is_removed_where_its_coefficients_hold(tmp_path, capsys, of_upright):
    write_capture(tmp_path / "in", [6, 6, 6], of_upright, Distortion(k1=-0.4, p1=0.05, p2=-0.02))
    record, _ = packed(tmp_path, capsys)
    assert misplaced(record) < 40  # a pixel beside the middle of a spot is interpolated


@pytest.mark.parametrize(
    ("of_upright", "top"),
    [(False, {"w": None, "h": None}), (True, {"w": None, "h": None}), (False, TWICE), (True, TWICE)],
)
def test_what_poses_are_of_is_told_by_sizes_of_other_scale_and_principal_points_alone(
    tmp_path, capsys, of_upright, top
):
    write_capture(tmp_path / "in", [8, 8, 8], of_upright, **top)
    assert misplaced(packed(tmp_path, capsys)[0]) == 0


def test_square_images_are_taken_as_stored(tmp_path, capsys):
    square = {"fl_x": 70.0, "fl_y": 70.0, "cx": 36.0, "cy": 37.0, "w": 72, "h": 72}
    write_capture(tmp_path / "in", [6, None, 8], camera=square)
    record, (line,) = packed(tmp_path, capsys)
    assert misplaced(record) == 0 and "2 of 3 images" in line and "of the images as stored" in line
    assert np.array_equal(record.c2w[1], C2W[1]) and not np.allclose(record.c2w[0], C2W[0])


def test_images_that_upright_would_differ_in_size_stay_as_stored(tmp_path, capsys):
    write_capture(tmp_path / "in", [6, None, 3])
    record, (line,) = packed(tmp_path, capsys)
    assert misplaced(record) == 0 and record.size == (48, 72) and np.array_equal(record.c2w, C2W)
    assert "2 of 3 images" in line and "packed as they are stored, since upright they would differ in size" in line


@pytest.mark.parametrize("orientation", [2, 4, 5, 7])
def test_mirror_images_are_refused(tmp_path, capsys, orientation):
    write_capture(tmp_path / "in", [None, orientation, None])
    line = PACKING.refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "r_1.png" in line and f"orientation {orientation}" in line and "mirrored" in line


def test_sizes_that_fit_neither_are_refused_and_say_why(tmp_path, capsys):
    write_capture(tmp_path / "in", [6] * 3, w=50, h=40)
    assert "w and h say 40 x 50" in PACKING.refused(capsys, tmp_path / "in", tmp_path / "out")
    write_capture(tmp_path / "in", [None] * 3, w=48, h=72)
    assert "turned by a quarter" in PACKING.refused(capsys, tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("of_upright", [False, True])
def test_images_in_srn_folders_and_of_all_formats_are_turned_too(tmp_path, capsys, kind, of_upright):
    write_srn_object(tmp_path / "in" / "car", height=48, width=72, poses=C2W)
    square = {**CAMERA, "fl_y": 70.0}
    (tmp_path / "in" / "car" / "intrinsics.txt").write_text("70 39 22 0\n0 0 0\n1\n48 72\n")
    for i, pose in enumerate(C2W):
        (tmp_path / "in" / "car" / "rgb" / f"{i:06d}.png").unlink()
        pixels = photograph(pose, square)
        save(tmp_path / "in" / "car" / "rgb" / f"{i:06d}.{kind}", np.rot90(pixels) if of_upright else pixels, 6)
    record = Packing("srn", "--near", "2", "--far", "6").packed(tmp_path / "in", tmp_path / "out")
    assert misplaced(record) < (60 if kind in ("jpg", "webp") else 1) and record.size == (
        (48, 72) if of_upright else (72, 48)
    )
    assert "3 of 3 images carry an EXIF orientation" in capsys.readouterr().err


def test_shrinking_follows_turning(tmp_path, capsys):
    write_capture(tmp_path / "in", [6] * 3)
    record, _ = packed(tmp_path, capsys, "--size", "36x24")
    assert record.size == (36, 24) and misplaced(record) < 200  # a spot still has two pixels, one of them mixed
