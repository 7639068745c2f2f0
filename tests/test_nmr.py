"""NMR's renderings of ShapeNet in DVR's layout: geometry, lists, masks, what is refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from packing_command import Packing, keys
from scenes import listing, looking_inwards, png
from seen_dots import draw_dots, worst_epipolar_error, worst_error
from vcgen.data.npz import read_npz
from vcgen.data.shards.record import decode_views
from vcgen.errors import UserError

SIDE, VIEWS, FOCAL = 64, 5, 1.7
#: pixelNeRF's turn of the world, from ``src/data/DVRDataset.py``.
TURN = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
CAR, CHAIR = "02958343", "03001627"


PACKING = Packing("nmr", "--background", "black")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def write_object(folder: Path, seed: int = 0, inverse: bool = True, rows: int = 4, **arrays: np.ndarray) -> np.ndarray:
    """An object as DVR packs it; returns the cameras (V, 4, 4), OpenCV axes, z up. arrays: instead of those written."""
    c2w = looking_inwards(VIEWS, distance=2.7, seed=seed)
    cameras = {}
    for part in ("image", "mask"):
        (folder / part).mkdir(parents=True)
    for number, pose in enumerate(c2w):
        stored = np.linalg.inv(TURN) @ pose
        cameras[f"world_mat_{number}"] = np.linalg.inv(stored)[:rows].astype(np.float32)
        if inverse:
            cameras[f"world_mat_inv_{number}"] = stored.astype(np.float32)
        cameras[f"camera_mat_{number}"] = np.diag([FOCAL, FOCAL, 1, 1]).astype(np.float32)
        K = np.array([[FOCAL / 2, 0, 0.5], [0, FOCAL / 2, 0.5], [0, 0, 1]])
        (folder / "image" / f"{number:04d}.png").write_bytes(png(draw_dots((SIDE, SIDE), pose, K)))
        mask = np.zeros((SIDE, SIDE, 3), np.uint8)
        mask[10:50, 20:40] = 255
        (folder / "mask" / f"{number:04d}.png").write_bytes(png(mask))
    np.savez(folder / "cameras.npz", **{**cameras, **arrays})
    return c2w


@pytest.fixture
def source(tmp_path) -> Path:
    """Two classes of three objects, with lists as NMR_Dataset.zip has them."""
    for number, name in enumerate((CAR, CHAIR)):
        for i in range(3):
            write_object(tmp_path / "in" / name / f"{i}a.b", seed=3 * number + i)
        for split, lines in (("train", "0a.b\n1a.b\n"), ("test", "2a.b\n"), ("val", "")):
            (tmp_path / "in" / name / f"softras_{split}.lst").write_text(lines)
    (tmp_path / "in" / CAR / "gen_train.lst").write_text("2a.b\n")
    (tmp_path / "in" / "metadata.yaml").write_text('{"02958343": {"id": "02958343", "name": "car"}}')
    return tmp_path / "in"


@pytest.mark.parametrize(("inverse", "rows"), [(True, 4), (False, 4), (False, 3)])
def test_the_dots_are_where_the_packed_cameras_see_them(tmp_path, inverse, rows):
    c2w = write_object(tmp_path / "in" / CAR / "car", inverse=inverse, rows=rows)
    record = packed(tmp_path / "in", tmp_path / "out", "--lists", "")
    assert np.allclose(record.c2w, c2w, atol=1e-6) and record.views == [f"{i:04d}" for i in range(VIEWS)]
    assert worst_error(record) < 0.1 and worst_epipolar_error(record) < 0.2
    cameras = np.load(tmp_path / "in" / CAR / "car" / "cameras.npz")
    opengl = TURN @ np.linalg.inv(np.vstack([cameras["world_mat_3"], [[0, 0, 0, 1]]])[:4]) @ np.diag([1, -1, -1, 1])
    assert np.allclose(record.c2w[3] @ np.diag([1, -1, -1, 1]), opengl, atol=1e-6), "pixelNeRF's poses are OpenGL's"
    assert record.K[0, 0, 0] * SIDE == pytest.approx(FOCAL * SIDE / 2), "and its focal length is f W / 2"


def test_a_camera_of_the_published_data_stands_upright_30_degrees_up_and_sees_30(tmp_path):
    world_mat = [[0, 0, -1, 0], [0.5, -0.86602539, 0, 0], [-0.86602539, -0.49999997, 0, 2.73199987], [0, 0, 0, 1]]
    camera_mat = np.diag([3.7320509, 3.7320509, 1, 1])
    arrays = {"world_mat_0": np.array(world_mat, np.float32), "camera_mat_0": camera_mat.astype(np.float32)}
    write_object(tmp_path / "in" / CAR / "car", inverse=False, **arrays)
    record = packed(tmp_path / "in", tmp_path / "out", "--lists", "")
    (right, down, forward), eye = record.c2w[0, :3, :3].T, record.c2w[0, :3, 3]
    assert np.linalg.norm(eye) == pytest.approx(2.732) and eye[2] == pytest.approx(2.732 * 0.5, abs=1e-6)
    assert np.allclose(forward, -eye / 2.732, atol=1e-6), "it looks at the origin"
    assert abs(right[2]) < 1e-6 and down[2] < -0.8, "and its image is upright"
    assert 2 * np.degrees(np.arctan(0.5 / record.K[0, 0, 0])) == pytest.approx(30, abs=1e-4)


def test_lists_tell_splits_and_near_and_far_are_pixelnerfs(tmp_path, source):
    record = packed(source, tmp_path / "train")
    assert keys(tmp_path / "train") == [f"{name}_{i}a_b" for name in (CAR, CHAIR) for i in (0, 1)]
    assert (record.t_near, record.t_far, record.source, record.split) == (1.2, 4.0, "nmr", "train")
    packed(source, tmp_path / "test", "--split", "test", "--classes", CHAIR)
    assert keys(tmp_path / "test") == [f"{CHAIR}_2a_b"]
    packed(source, tmp_path / "gen", "--lists", "gen")
    assert keys(tmp_path / "gen") == [f"{CAR}_2a_b"], "chairs are no class of theirs"
    packed(source / CAR, tmp_path / "one")
    assert keys(tmp_path / "one") == [f"{CAR}_0a_b", f"{CAR}_1a_b"]
    packed(source, tmp_path / "all", "--lists", "")
    assert len(keys(tmp_path / "all")) == 6


def test_masks_become_coverage_where_asked(tmp_path, source):
    assert packed(source, tmp_path / "plain").background == "black"
    record = packed(source, tmp_path / "masked", "--masks")
    alpha = decode_views(record, [2])[1][0, 0]
    assert record.background == "alpha" and alpha[10:50, 20:40].all() and alpha.sum() == 40 * 20


def test_equal_sources_give_equal_bytes(tmp_path, source):
    packed(source, tmp_path / "one")
    packed(source.rename(tmp_path / "moved"), tmp_path / "two")
    assert listing(tmp_path / "one") == listing(tmp_path / "two")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "val"], ["no softras_val.lst with objects"]),
        (["--split", "valid"], ["softras_valid.lst", "gen_train.lst", "softras_test.lst", "--lists"]),
        (["--classes", "car"], ["no class 'car'", CAR, CHAIR]),
    ],
)
def test_lists_that_are_not_there_are_named(tmp_path, source, capsys, options, words):
    line = refused(capsys, source, tmp_path / "out", *options)
    assert all(word in line for word in words)


def test_objects_that_are_not_whole_are_named(tmp_path, source, capsys):
    (source / CAR / "softras_train.lst").write_text("0a.b\nlost\n")
    assert "lost/image: no such folder" in refused(capsys, source, tmp_path / "out")
    (source / CAR / "softras_train.lst").write_text("../03001627/0a.b\n")
    assert "is no name of an object's folder" in refused(capsys, source, tmp_path / "out")
    (source / CAR / "softras_train.lst").write_bytes(b"\xff\xfe")
    assert "not a text file" in refused(capsys, source, tmp_path / "out")
    assert "no class with lists" in refused(capsys, source / CAR / "0a.b" / "image", tmp_path / "out")
    (source / CAR / "softras_train.lst").write_text("0a.b\n")
    (source / CAR / "0a.b" / "mask" / "0002.png").unlink()
    assert "0002.png: missing mask" in refused(capsys, source, tmp_path / "out", "--masks")
    (source / CAR / "0a.b" / "image" / "0002.png").unlink()
    assert "4 images and 5 cameras" in refused(capsys, source, tmp_path / "out")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"world_mat_inv_1": np.full((4, 4), np.nan)}, "world_mat_inv_1 is no 3 x 4 or 4 x 4 matrix"),
        ({"world_mat_inv_1": np.eye(3)}, "world_mat_inv_1 is no 3 x 4 or 4 x 4 matrix"),
        ({"world_mat_inv_1": 2 * np.eye(4)}, "view 0001: the pose's rotation is not orthonormal"),
        ({"camera_mat_1": np.diag([900.0, 900, 1])}, "view 0001: normalized focal lengths 450"),
        ({"camera_mat_1": np.array("text")}, "holds no numbers"),
        ({"camera_mat_1": np.array([None])}, "holds no numbers"),
    ],
)
def test_cameras_that_are_none_are_refused(tmp_path, capsys, arrays, words):
    write_object(tmp_path / "in" / CAR / "car", **arrays)
    assert words in refused(capsys, tmp_path / "in", tmp_path / "out", "--lists", "")


def member(header: bytes, data: bytes = b"") -> bytes:
    """An archive of one array with this header."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a zip file"),
        (member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}", bytes(8)), "cut short"),
        (member(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "holds no numbers"),
        (member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os'),)}"), "npz file of numbers"),
        (member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (5000,)}", bytes(40_000)), "or 0 MB"),
    ],
)
def test_archives_that_are_none_are_refused_before_memory_is_taken(tmp_path, content, words):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_npz(tmp_path / "a.npz", limit=10_000)


def test_arrays_are_those_that_numpy_wrote(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.eye(3, dtype=np.float32)),
        "c": np.array(True),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert all((found[name] == array).all() and found[name].dtype == array.dtype for name, array in arrays.items())
    assert read_npz(tmp_path / "a.npz", names=("b",)).keys() == {"b"}
