"""The simplest layout, images and one cameras.json: geometry, names, masks, splits, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from packing_command import Packing
from pages import ROOT, blocks
from scenes import listing, looking_inwards, png
from seen_dots import draw_dots, worst_epipolar_error, worst_error
from vcgen.data.camera_file import read_camera_file
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views

SIZE = 60, 80
K = np.array([[1.1, 0, 0.47], [0, 1.1 * 80 / 60, 0.52], [0, 0, 1]])
C2W = looking_inwards(6, distance=2.0, seed=3)
NAMES = [f"view_{number}.png" for number in range(6)]


PACKING = Packing("folder")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def write_scene(folder: Path, place: str = ".", **changes) -> None:
    """Dots, and a file of their cameras; changes: entries of it, None to leave one out."""
    (folder / place).mkdir(parents=True, exist_ok=True)
    for name, pose in zip(NAMES, C2W, strict=True):
        (folder / place / name).write_bytes(png(draw_dots(SIZE, pose, K)))
    content = {"c2w": C2W.tolist(), "K": [K.tolist()], "t_near": 1.5, "t_far": 2.5, **changes}
    text = json.dumps({name: value for name, value in content.items() if value is not None})
    (folder / "cameras.json").write_text(text)


@pytest.mark.parametrize("place", [".", "images"])
@pytest.mark.parametrize("names", [None, NAMES, [name.removesuffix(".png") for name in NAMES]])
def test_the_dots_are_where_the_packed_cameras_see_them(tmp_path, place, names):
    write_scene(tmp_path / "in", place, views=names)
    record = packed(tmp_path / "in", tmp_path / "out")
    assert (record.c2w == C2W).all() and (record.K == K).all() and record.views == [name[:-4] for name in NAMES]
    assert (record.key, record.size, record.t_near, record.t_far) == ("in", SIZE, 1.5, 2.5)
    assert worst_error(record) < 0.1 and worst_epipolar_error(record) < 0.2


def test_names_say_which_image_a_camera_is_of(tmp_path):
    order = [3, 0, 5, 1, 4, 2]
    write_scene(tmp_path / "in", c2w=C2W[order].tolist(), views=[NAMES[i] for i in order], K=[K.tolist()] * 6)
    record = packed(tmp_path / "in", tmp_path / "out")
    assert (record.c2w == C2W).all() and worst_error(record) < 0.1


def test_near_and_far_are_the_files_and_scale_with_it_unless_they_are_given(tmp_path, capsys):
    write_scene(tmp_path / "in")
    record = packed(tmp_path / "in", tmp_path / "scaled", "--scale", "2", "--far", "9")
    assert (record.t_near, record.t_far) == (3.0, 9.0)
    write_scene(tmp_path / "in", t_far=None)
    assert "give --far, or t_far in the file" in refused(capsys, tmp_path / "in", tmp_path / "out")
    assert packed(tmp_path / "in", tmp_path / "given", "--far", "2.2").t_far == 2.2


def test_a_folder_of_scenes_is_many_and_every_nth_view_is_held_out(tmp_path):
    for name in ("a", "b"):
        write_scene(tmp_path / "in" / name)
    train, test = (
        packed(tmp_path / "in", tmp_path / split, "--split", split, "--hold-out-views", "3", "--recenter")
        for split in ("train", "test")
    )
    assert [sample.key for _, sample in read_index(tmp_path / "train").samples] == ["a", "b"]
    assert test.views == ["view_0", "view_3"] and len(train.views) == 4
    assert np.allclose(np.linalg.inv(train.c2w[0]) @ test.c2w[0], np.linalg.inv(C2W[1]) @ C2W[0]), "in one world"


def test_masks_become_coverage(tmp_path, capsys):
    write_scene(tmp_path / "in", "images")
    (tmp_path / "in" / "masks").mkdir()
    white = np.zeros(SIZE, np.uint8)
    white[:, 40:] = 255
    for name in NAMES:
        Image.fromarray(white).save(tmp_path / "in" / "masks" / name)
    record = packed(tmp_path / "in", tmp_path / "out", "--masks", "masks")
    assert record.background == "alpha" and (decode_views(record, [2])[1][0, 0] == white / 255).all()
    (tmp_path / "in" / "masks" / NAMES[4]).unlink()
    assert f"1 of 6 images have no mask: {NAMES[4]}" in refused(
        capsys, tmp_path / "in", tmp_path / "no", "--masks", "masks"
    )
    assert "is no folder" in refused(capsys, tmp_path / "in", tmp_path / "no", "--masks", "mask")


def test_equal_sources_give_equal_bytes(tmp_path):
    write_scene(tmp_path / "in")
    packed(tmp_path / "in", tmp_path / "one")
    write_scene(tmp_path / "other" / "in", "images", views=NAMES)
    packed(tmp_path / "other" / "in", tmp_path / "two")
    assert listing(tmp_path / "one")["000000.tar"] == listing(tmp_path / "two")["000000.tar"]


def test_a_scene_of_a_shard_written_as_a_folder_comes_back_as_it_was(tmp_path):
    scene = read_index(ROOT / "data" / "cars64" / "test").read(0)
    folder = tmp_path / "in" / scene.key
    folder.mkdir(parents=True)
    (folder / "cameras.json").write_text(json.dumps(scene.cameras_json()))
    for name, image in zip(scene.views, scene.images, strict=True):
        (folder / f"{name}.png").write_bytes(image)
    again = packed(tmp_path / "in", tmp_path / "out")
    assert (again.c2w == scene.c2w).all() and (again.K == scene.K).all() and again.views == scene.views
    assert (again.key, again.t_near, again.background) == (scene.key, scene.t_near, "alpha")
    views = range(len(scene.views))
    for ours, theirs in zip(decode_views(again, views), decode_views(scene, views), strict=True):
        assert (ours == theirs).all()


def test_an_option_that_no_scene_takes_is_said_once_and_one_of_a_thing_is_no_plural(tmp_path, capsys):
    for name in ("a", "b"):
        write_scene(tmp_path / "in" / name)
    options = "--split", "test", "--hold-out-views", "6"
    line = refused(capsys, tmp_path / "in", tmp_path / "no", *options)
    assert "2 of 2 scenes are broken" in line and line.count("leaves 1 of 6 views") == 1
    packed(tmp_path / "in" / "a", tmp_path / "out")
    assert "1 scene in 1 shard," in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"c2w": None}, "missing required field `c2w`"),
        ({"c2w": C2W[:5].tolist()}, "5 poses, and 6 images"),
        ({"c2w": C2W[:1].tolist()}, "has 1 pose, at least 2 are needed"),
        ({"c2w": (2 * C2W).tolist()}, "view 0: the pose's rotation is not orthonormal"),
        ({"K": [K.tolist()] * 2}, "6 poses and 2 intrinsics"),
        ({"K": [(100 * K).tolist()]}, "in pixels by mistake?"),
        ({"views": NAMES[:5]}, "views must be 6 different names"),
        ({"views": [NAMES[0]] * 6}, "views must be 6 different names"),
        ({"views": ["other", *NAMES[1:]]}, "1 of 6 images are missing: other"),
        ({"views": ["../in/view_0.png", *NAMES[1:]]}, "leads outside the folder of images"),
        ({"views": ["/etc/passwd", *NAMES[1:]]}, "leads outside the folder of images"),
        ({"t_near": 3}, "t_near must be less than t_far"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(tmp_path, capsys, changes, words):
    write_scene(tmp_path / "in", **changes)
    line = refused(capsys, tmp_path / "in", tmp_path / "out")
    assert words in line and "cameras.json" in line


def test_a_folder_without_cameras_says_what_is_there(tmp_path, capsys):
    write_scene(tmp_path / "in")
    (tmp_path / "in" / "cameras.json").rename(tmp_path / "in" / "transforms.json")
    assert "no cameras.json in here; transforms.json is of" in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_the_file_that_the_page_of_formats_writes_is_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(blocks(ROOT / "docs" / "formats.md", "python")[0])
    cameras = read_camera_file(Path("cameras.json"))
    assert cameras.names == ["000.png", "001.png"] and cameras.c2w[0, :3, 2].tolist() == [0, 1, 0]
