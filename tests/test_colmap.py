"""COLMAP models become records: geometry, bounds, upright worlds, layouts, masks, splits."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from colmap_files import C2W, COEFFICIENTS, DOTS, HEIGHT, POINTS, WIDTH, WORLD, write_scene
from geometry import epipolar_errors
from packing_command import Packing
from training import refusal
from vcgen.data.epipolar import fundamental_matrix
from vcgen.data.formats.colmap_model import read_model
from vcgen.data.images.lenses import CAMERA_MODELS
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import SceneRecord, decode_views

PACKING = Packing("colmap")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def centroids(record: SceneRecord) -> np.ndarray:
    """Where the dots are in the images, (V, 3, 2), as fractions of the image."""
    weights = decode_views(record, range(len(record.views)))[0].astype(np.float64)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    weights /= weights.sum((2, 3), keepdims=True)
    return np.stack([(weights * columns).sum((2, 3)) / WIDTH, (weights * rows).sum((2, 3)) / HEIGHT], -1)


def expected(record: SceneRecord, dots: np.ndarray) -> np.ndarray:
    """Where the record's cameras see world points (n, 3): (V, n, 2)."""
    local = np.einsum("vij,nj->vni", np.linalg.inv(record.c2w), np.concatenate([dots, np.ones((len(dots), 1))], 1))
    image = np.einsum("vij,vnj->vni", record.K, local[..., :3])
    return image[..., :2] / image[..., 2:]


@pytest.mark.parametrize("kind", ["txt", "bin"])
def test_poses_points_and_intrinsics_are_those_that_were_written(tmp_path, kind):
    write_scene(tmp_path / "in", kind)
    record = packed(tmp_path / "in", tmp_path / "out", "--up", "z")
    assert np.allclose(record.c2w, C2W, atol=1e-12)
    assert np.allclose(record.K, [[130 / 120, 0, 62 / 120], [0, 130 / 90, 42 / 90], [0, 0, 1]])
    assert record.views == [f"cam/view_{i}" for i in range(6)]
    assert (record.key, record.size, record.background) == ("in", (90, 120), "none")
    model = read_model(tmp_path / "in" / "sparse" / "0")
    assert np.allclose(model.points, POINTS, atol=1e-12)


QUICK = ("PINHOLE", "OPENCV", "OPENCV_FISHEYE")


@pytest.mark.parametrize(
    "model",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.integration) for name in sorted(CAMERA_MODELS)],
)
def test_through_any_lens_the_dots_are_where_the_packed_cameras_see_them(tmp_path, model):
    write_scene(tmp_path / "in", "bin", model, COEFFICIENTS[model], WORLD)
    record = packed(tmp_path / "in", tmp_path / "out", "--recenter", "--scale", "0.5")
    found = centroids(record)
    dots = np.concatenate([DOTS, np.ones((3, 1))], 1) @ WORLD[:3].T
    # the packed world is the model's, turned, moved and halved: which way, the first camera tells
    to_packed = record.c2w[0] @ np.linalg.inv(model_pose(C2W[0], 0.5))
    error = np.abs(found - expected(record, dots * 0.5 @ to_packed[:3, :3].T + to_packed[:3, 3]))
    assert (error * [WIDTH, HEIGHT]).max() < 0.3, "pixels"
    for other in range(1, 6):
        F = fundamental_matrix(record.c2w[0], record.K[0], record.c2w[other], record.K[other])
        assert epipolar_errors(F, found[0], found[other], record.size).max() < 0.5


def model_pose(c2w: np.ndarray, scale: float) -> np.ndarray:
    """A camera of the dots' world in the model's, positions scaled."""
    pose = WORLD @ c2w
    pose[:3, :3] /= 3.0
    pose[:3, 3] *= scale
    return pose


def test_the_world_is_turned_upright_by_how_the_camera_was_held(tmp_path, capsys):
    write_scene(tmp_path / "in", world=WORLD)
    record = packed(tmp_path / "in", tmp_path / "out")
    assert "up was guessed as" in capsys.readouterr().err
    assert np.abs(record.c2w[:, 2, 0]).max() < 1e-9, "the rows of every image are level"
    assert np.allclose(record.c2w[:, 2, 1], C2W[:, 2, 1]), "and each camera leans as it did"
    other = packed(tmp_path / "in", tmp_path / "y", "--up", "-y")
    assert np.allclose(other.c2w[:, 2, :3], -(WORLD @ C2W)[:, 1, :3] / 3.0)


def test_near_and_far_are_told_by_the_points_and_scale_with_them(tmp_path, capsys):
    line = np.stack([np.zeros(101), np.zeros(101), np.linspace(-0.5, 0.5, 101)], -1)
    write_scene(tmp_path / "in", points=line)
    record = packed(tmp_path / "in", tmp_path / "out", "--scale", "2", "--up", "z")
    assert "by 101 sparse points; the cameras stand 4 from the point" in capsys.readouterr().err
    distances = np.linalg.norm(line - C2W[:, None, :3, 3], axis=-1)  # all of them lie in every image
    assert record.t_near == pytest.approx(2 * np.percentile(distances, 1, axis=1).min() / 1.1)
    assert record.t_far == pytest.approx(2 * np.percentile(distances, 99, axis=1).max() * 1.1)
    given = packed(tmp_path / "in", tmp_path / "given", "--far", "3", "--up", "z")
    assert given.t_far == 3 and given.t_near == pytest.approx(record.t_near / 2)


def test_without_points_near_and_far_must_be_given(tmp_path, capsys):
    write_scene(tmp_path / "in")
    (tmp_path / "in" / "sparse" / "0" / "points3D.txt").unlink()
    assert "give --near and --far" in refused(capsys, tmp_path / "in", tmp_path / "out")
    assert packed(tmp_path / "in", tmp_path / "out", "--near", "1", "--far", "3").t_near == 1


@pytest.mark.parametrize("place", [".", "sparse", "sparse_3/0", "colmap/sparse/0"])
def test_models_are_found_where_the_solvers_put_them(tmp_path, place):
    write_scene(tmp_path / "in", place=place)
    assert len(packed(tmp_path / "in", tmp_path / "out").views) == 6


def test_the_folder_of_a_model_serves_as_well_and_of_several_the_largest_is_taken(tmp_path):
    write_scene(tmp_path / "in", place="sparse/1")
    write_scene(tmp_path / "in", place="sparse/0", c2w=C2W[:2])
    assert len(packed(tmp_path / "in", tmp_path / "out").views) == 6
    assert len(packed(tmp_path / "in" / "sparse" / "0", tmp_path / "small").views) == 2
    (tmp_path / "in" / "images").rename(tmp_path / "photos")
    record = packed(tmp_path / "in", tmp_path / "far", "--images", str(tmp_path / "photos"))
    assert record.views[0] == "cam/view_0"


def test_a_folder_of_scenes_is_many_and_every_nth_view_is_held_out(tmp_path):
    for name in ("a", "b"):
        write_scene(tmp_path / "in" / name, world=WORLD)
    train, test = (
        packed(tmp_path / "in", tmp_path / split, "--split", split, "--hold-out-views", "3", "--recenter")
        for split in ("train", "test")
    )
    assert [sample.key for _, sample in read_index(tmp_path / "train").samples] == ["a", "b"]
    assert test.views == ["cam/view_0", "cam/view_3"] and len(train.views) == 4
    assert (train.t_near, train.t_far) == (test.t_near, test.t_far)
    between = np.linalg.inv(train.c2w[0]) @ test.c2w[0]
    assert np.allclose(between, np.linalg.inv(model_pose(C2W[1], 1.0)) @ model_pose(C2W[0], 1.0)), "in one world"


@pytest.mark.parametrize("name", ["cam/view_{}.png.png", "cam/view_{}.jpg"])
def test_masks_become_coverage(tmp_path, capsys, name):
    write_scene(tmp_path / "in")
    (tmp_path / "in" / "masks" / "cam").mkdir(parents=True)
    white = np.zeros((HEIGHT, WIDTH), np.uint8)
    white[:, 40:] = 255
    for number in range(6):
        Image.fromarray(white).save(tmp_path / "in" / "masks" / name.format(number))
    record = packed(tmp_path / "in", tmp_path / "out", "--masks", "masks")
    assert record.background == "alpha"
    assert np.abs(decode_views(record, [2])[1][0, 0] - white / 255).max() < 0.05
    assert packed(tmp_path / "in", tmp_path / "opaque").background == "none", "they may be of another kind"
    (tmp_path / "in" / "masks" / name.format(4)).unlink()
    assert "1 of 6 images have no mask" in refused(capsys, tmp_path / "in", tmp_path / "no", "--masks", "masks")
    assert "is no folder" in refused(capsys, tmp_path / "in", tmp_path / "no", "--masks", "mask")


def test_images_may_be_smaller_than_their_cameras_say_but_not_of_another_shape(tmp_path, capsys):
    write_scene(tmp_path / "in")
    for path in (tmp_path / "in" / "images" / "cam").iterdir():
        Image.open(path).resize((60, 45)).save(path)
    assert np.allclose(packed(tmp_path / "in", tmp_path / "out").K[:, 0, 0], 130 / 120)
    Image.new("RGB", (45, 60)).save(tmp_path / "in" / "images" / "cam" / "view_3.png")
    assert "cam/view_3.png: the image is 45 x 60" in refused(capsys, tmp_path / "in", tmp_path / "no")


def test_missing_images_are_listed(tmp_path, capsys):
    write_scene(tmp_path / "in")
    (tmp_path / "in" / "images" / "cam" / "view_3.png").unlink()
    line = refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "1 of 6 images are missing: cam/view_3.png" in line and "--images" in line
    shutil.rmtree(tmp_path / "in" / "sparse")
    assert "no COLMAP model" in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_an_equal_pack_is_not_made_twice_and_a_changed_model_is_noticed(tmp_path, capsys):
    write_scene(tmp_path / "in")
    (tmp_path / "in" / "database.db").write_bytes(b"x")
    assert pack(tmp_path / "in", tmp_path / "out") == 0
    (tmp_path / "in" / "database.db").write_bytes(b"longer")
    assert pack(tmp_path / "in", tmp_path / "out") == 0
    assert "nothing to do" in capsys.readouterr().out
    write_scene(tmp_path / "in", c2w=C2W[:5])
    assert "another source" in refusal(capsys, pack(tmp_path / "in", tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "pack.json").read_text())["settings"]["near"] is None, "it was measured"
