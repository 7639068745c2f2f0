"""Scenes of CLEVR3D become records: where they were seen from, which split they are of, what is refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from packing_command import Packing, keys
from scenes import listing
from seen_dots import DOTS, draw_dots, worst_epipolar_error, worst_error
from training import refusal

SIZE = (60, 80)
#: Dots in a world of that size, on the ground and above.
SPOTS = 8 * DOTS


PACKING = Packing("clevr3d")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def eyes_of(scene: int) -> np.ndarray:
    """(3, 3): around the scene, and above the ground."""
    angles = 0.3 * scene + np.array([0.0, 2.1, 4.2])
    return np.stack([9 * np.cos(angles), 9 * np.sin(angles), [4.0, 5.0, 6.0]], -1)


def camera(eye: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(c2w, K) by SRT's rays: 35 mm from the eye to the middle of a level sensor, 32 mm wide."""
    direction = -eye / np.linalg.norm(eye)
    horizontal = np.cross(direction, [0.0, 0.0, 1.0])
    horizontal /= np.linalg.norm(horizontal)
    c2w = np.eye(4)
    c2w[:3] = np.stack([horizontal, np.cross(direction, horizontal), direction, eye], -1)
    width, height = 0.032, 0.032 * SIZE[0] / SIZE[1]
    return c2w, np.array([[0.035 / width, 0, 0.5], [0, 0.035 / height, 0.5], [0, 0, 1]])


def write_scenes(folder, scenes=(0, 1, 2), total=5, **changes) -> None:
    """``metadata.npz`` of ``total`` scenes, the images of some. Scene 2 has seven objects, others three."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    shape = np.zeros((total, 10), np.int64)
    shape[:, :3] = 2
    shape[2::100_000, :7] = 1
    eyes = np.stack([eyes_of(scene) for scene in range(total)])
    arrays = {"camera_pos": eyes, "shape": shape, "material": np.array(["rubber"])} | changes
    np.savez_compressed(folder / "metadata.npz", **arrays)
    for scene in scenes:
        for view, eye in enumerate(eyes_of(scene)):
            pixels = draw_dots(SIZE, *camera(eye), SPOTS)
            Image.fromarray(np.dstack([pixels, np.full(SIZE, 255, np.uint8)])).save(
                folder / "images" / f"img_{scene}_{view}.png"
            )


def test_cameras_are_those_of_the_published_loader(tmp_path):
    write_scenes(tmp_path / "in")
    record = packed(tmp_path / "in", tmp_path / "out")
    assert keys(tmp_path / "out") == ["000000", "000001"], "scene 2 has more than six objects"
    for view, eye in enumerate(eyes_of(0)):
        c2w, K = camera(eye)
        assert np.allclose(record.c2w[view], c2w, atol=1e-9) and np.allclose(record.K[view], K)
    assert record.K[0, 0, 0] * 320 == pytest.approx(350)
    assert (record.views, record.size, record.background) == (["0", "1", "2"], SIZE, "none")
    assert worst_error(record, SPOTS) < 0.1 and worst_epipolar_error(record) < 0.2


def test_near_and_far_are_the_published_ones_and_scale_with_the_world(tmp_path):
    write_scenes(tmp_path / "in")
    record = packed(tmp_path / "in", tmp_path / "out", "--scale", "0.1", "--max-objects", "10")
    assert keys(tmp_path / "out") == ["000000", "000001", "000002"]
    assert (record.t_near, record.t_far) == pytest.approx((0.0035, 3.5))
    assert np.allclose(record.c2w[:, :3, 3], 0.1 * eyes_of(0))
    assert packed(tmp_path / "in", tmp_path / "given", "--near", "1").t_near == 1


def test_splits_are_by_number_and_scenes_without_images_are_counted(tmp_path, capsys):
    write_scenes(tmp_path / "in", (0, 69_999, 70_000, 84_999, 85_000), total=85_003)
    assert keys_of(tmp_path, "train") == ["000000", "069999"]
    assert "69997 of 69999 scenes have no images, and are left out" in capsys.readouterr().err
    assert keys_of(tmp_path, "val") == ["070000"] and keys_of(tmp_path, "test") == ["085000"]
    assert "CLEVR3D has train, val, test" in refused(capsys, tmp_path / "in", tmp_path / "no", "--split", "valid")


def keys_of(tmp_path, split: str) -> list[str]:
    packed(tmp_path / "in", tmp_path / split, "--split", split)
    return keys(tmp_path / split)


@pytest.mark.integration
def test_equal_sources_give_equal_bytes_and_a_moved_camera_is_noticed(tmp_path, capsys):
    write_scenes(tmp_path / "in")
    assert pack(tmp_path / "in", tmp_path / "one") == 0
    assert pack(tmp_path / "in", tmp_path / "two", "--workers", "2") == 0
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    write_scenes(tmp_path / "in", camera_pos=np.stack([eyes_of(scene + 1) for scene in range(5)]))
    assert "another source" in refusal(capsys, pack(tmp_path / "in", tmp_path / "one"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"camera_pos": np.zeros((5, 3))}, "camera_pos and shape are (5, 3) and (5, 10)"),
        ({"shape": np.zeros((4, 10))}, "camera_pos and shape are (5, 3, 3) and (4, 10)"),
        ({"camera_pos": np.full((5, 3, 3), np.nan)}, "scene 0: a camera stands at no place"),
        ({"camera_pos": np.tile([0.0, 0.0, 9.0], (5, 3, 1))}, "right above the origin"),
        ({"camera_pos": np.array([["x"]])}, "holds no numbers"),
    ],
)
def test_metadata_of_another_kind_is_refused_in_one_line(tmp_path, capsys, changes, reason):
    write_scenes(tmp_path / "in", **changes)
    assert reason in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_files_that_are_missing_are_named_in_one_line(tmp_path, capsys):
    write_scenes(tmp_path / "in")
    (tmp_path / "in" / "images" / "img_1_2.png").unlink()
    assert "scene 1: 1 of 3 images are missing: img_1_2.png" in refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "no images of split test" in refused(capsys, tmp_path / "in", tmp_path / "out", "--split", "test")
    shutil.rmtree(tmp_path / "in" / "images")
    assert "no metadata.npz with images/ in here" in refused(capsys, tmp_path / "in", tmp_path / "out")
