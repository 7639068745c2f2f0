"""Amazon Berkeley Objects become records, from the material benchmark and from the renderings for reconstruction."""

import json

import numpy as np
import pytest
from PIL import Image

from abo_files import (
    BALL,
    DISTANCE,
    FOCAL,
    MIDDLE,
    NUMBERS,
    SIDE,
    SPOTS,
    K,
    poses,
    silhouette,
    write_benchmark,
    write_renderings,
)
from packing_command import Packing, keys
from scenes import listing, set_at
from seen_dots import worst_epipolar_error, worst_error
from vcgen.data.formats.silhouette import outline_radius
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views

#: Meters of a stored unit: the ball, with the room that is left around it, gets the radius 0.5.
SCALE = 0.5 / (1.02 * BALL)


PACKING = Packing("abo")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def test_the_outlines_of_a_ball_tell_its_radius():
    for c2w in poses():
        assert outline_radius(silhouette(c2w) / 255, K, c2w, MIDDLE) == pytest.approx(BALL, rel=0.02)
    assert outline_radius(np.zeros((4, 4)), K, poses()[0], MIDDLE) == 0


@pytest.mark.parametrize("layout", ["benchmark", "renderings"])
def test_cameras_are_those_that_were_written_around_an_object_of_the_stored_size(tmp_path, layout):
    if layout == "benchmark":
        write_benchmark(tmp_path / "in" / "B00")
        names, order = [str(number) for number in sorted(NUMBERS)], np.argsort(NUMBERS)
    else:
        write_renderings(tmp_path / "in" / "B00", "B00")
        names, order = [f"B00_{number:02d}" for number in range(len(NUMBERS))], np.arange(len(NUMBERS))
    record = packed(tmp_path / "in", tmp_path / "out")
    assert (record.key, record.views, record.size, record.background) == ("B00", names, (SIDE, SIDE), "alpha")
    assert record.scale == pytest.approx(SCALE, rel=0.02)
    expected = poses()[order]
    expected[:, :3, 3] = (expected[:, :3, 3] - MIDDLE) * record.scale
    assert np.allclose(record.c2w, expected, atol=1e-6) and np.allclose(record.K, K)
    assert (record.t_near, record.t_far) == pytest.approx(
        (DISTANCE * record.scale - 0.5, DISTANCE * record.scale + 0.5), abs=1e-6
    )
    error = {"benchmark": 0.3, "renderings": 0.1}[layout]
    assert worst_error(record, (SPOTS - MIDDLE) * record.scale) < error and worst_epipolar_error(record) < 2 * error
    alpha = decode_views(record, range(len(names)))[1][:, 0]
    assert np.array_equal(alpha, np.stack([silhouette(c2w) for c2w in poses()[order]]) / 255), "noise is none"


def test_meters_may_be_kept_and_scale_comes_after(tmp_path):
    write_renderings(tmp_path / "in" / "B00", "B00")
    record = packed(tmp_path / "in", tmp_path / "out", "--radius", "0", "--scale", "2", "--far", "9")
    assert record.scale == 2 and np.allclose(record.c2w[:, :3, 3], 2 * (poses()[:, :3, 3] - MIDDLE), atol=1e-9)
    assert record.t_near == pytest.approx(2 * (DISTANCE - BALL), rel=0.02) and record.t_far == 9
    half = packed(tmp_path / "in", tmp_path / "half", "--scale", "0.5")
    assert half.scale == pytest.approx(SCALE / 2, rel=0.02) and half.t_far - half.t_near == pytest.approx(0.5)


def test_views_that_are_held_out_stay_in_one_world(tmp_path):
    write_benchmark(tmp_path / "in" / "B00")
    options = ("--hold-out-views", "4")
    train = packed(tmp_path / "in", tmp_path / "train", *options)
    (tmp_path / "in").rename(tmp_path / "moved")
    test = packed(tmp_path / "moved", tmp_path / "test", *options, "--split", "test")
    assert test.views == ["0", "9"] and len(train.views) == 6 and train.scale == test.scale


def test_the_list_tells_splits_and_environments_are_scenes_of_one_group(tmp_path, capsys):
    for name in ("B1", "B2", "B3", "B4"):
        write_benchmark(tmp_path / "in" / name, ("0", "1"))
    (tmp_path / "in" / "train_test_split.csv").write_text("id,SPLIT,a,b\nB1,TRAIN,x,y\nB2,TEST,x,y\nB3,TRAIN,x,y\n")
    packed(tmp_path / "in", tmp_path / "train", "--environment", "all", "--workers", "2")
    assert "1 of 4 objects are not in train_test_split.csv" in capsys.readouterr().err
    assert keys(tmp_path / "train") == ["B1_0", "B1_1", "B3_0", "B3_1"]
    assert [sample.group for _, sample in read_index(tmp_path / "train").samples] == ["B1", "B1", "B3", "B3"]
    packed(tmp_path / "in", tmp_path / "one", "--environment", "all")
    assert listing(tmp_path / "one") == listing(tmp_path / "train")
    bright, dim = (decode_views(read_index(tmp_path / "one").read(i), [0])[0].max() for i in (0, 1))
    assert bright > 0.9 and 0.4 < dim < 0.6
    assert keys_of_test(tmp_path) == ["B2"]
    assert "has no objects of split 'val', but test, train" in refused(
        capsys, tmp_path / "in", tmp_path / "out", "--split", "val"
    )


def keys_of_test(tmp_path) -> list[str]:
    packed(tmp_path / "in", tmp_path / "test", "--split", "test", "--environment", "1")
    return keys(tmp_path / "test")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("views.0.K", [1.0] * 8, "view 3: 8 numbers, expected 3 x 3, row by row"),
        ("views.0.K", [FOCAL, 0, 0.5, 0, FOCAL, 0.5, 0, 0, 1], "view 3: fl_x, the focal length, is 1.2 pixels"),
        ("views.0.pose", [[1, 0, 0, 0]] * 4, "view 3: the pose's rotation is not orthonormal"),
        ("views.0.pose", ["x"] * 16, "got `str` - at `$.views[0].pose[0]`"),
        ("views.0.index", 10, "two views have one name"),
        ("views.0.index", 77, "1 of 8 images are missing: render_77"),
        ("views", [], "length >= 2"),
        ("views", ..., "missing required field `views`"),
    ],
)
def test_a_benchmark_that_is_wrong_is_refused_in_one_line(tmp_path, capsys, path, value, reason):
    write_benchmark(tmp_path / "in" / "B00", ("0",))
    metadata = tmp_path / "in" / "B00" / "metadata.json"
    content = json.loads(metadata.read_text())
    set_at(content, path, value)
    metadata.write_text(json.dumps(content))
    assert reason in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_files_and_options_that_are_wrong_are_refused_in_one_line(tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    write_benchmark(source / "B00", ("0",))
    assert "8 of 8 images are missing" in refused(capsys, source, out, "--environment", "7")
    assert "--radius -1" in refused(capsys, source, out, "--radius", "-1")
    (source / "train_test_split.csv").write_bytes(b"\xff\xfe\n")
    assert "OBJECT,SPLIT" in refused(capsys, source, out)
    (source / "train_test_split.csv").unlink()
    (source / "B00" / "segmentation" / "segmentation_2.png").unlink()
    assert "segmentation_2" in refused(capsys, source, out)
    assert "no objects with metadata.json" in refused(capsys, source / "B00" / "render", out)
    for number in NUMBERS:
        Image.new("L", (SIDE, SIDE)).save(source / "B00" / "segmentation" / f"segmentation_{number}.png")
    assert "no view shows the object" in refused(capsys, source, out)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("frames.1.camera", ..., "missing required field `camera`"),
        ("frames.1.camera.angle_x", 45.0, "angle_x must lie between 0 and pi (radians)"),
        ("frames.1.camera.shift_x", 0.1, "shift_x and shift_y must be 0"),
        ("frames.1.file_path", "/a/B00_99", "1 of 8 images are missing: B00_99"),
        ("frames.1.transform_matrix", [[1.0, 0, 0, 0]] * 4, "frame B00_01: the pose's rotation is not orthonormal"),
    ],
)
def test_renderings_that_are_wrong_are_refused_in_one_line(tmp_path, capsys, path, value, reason):
    write_renderings(tmp_path / "in" / "B00", "B00")
    transforms = tmp_path / "in" / "B00" / "transforms.json"
    content = json.loads(transforms.read_text())
    set_at(content, path, value)
    transforms.write_text(json.dumps(content))
    assert reason in refused(capsys, tmp_path / "in", tmp_path / "out")
    write_renderings(tmp_path / "in" / "B00", "B00")
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "in" / "B00" / "B00_01.png")
    assert "B00_01.png: has no transparency" in refused(capsys, tmp_path / "in", tmp_path / "out")
