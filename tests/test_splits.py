"""No test image is packed for training: which views of a capture belong to a split."""

import json

import numpy as np
import pytest

from scenes import looking_inwards, make_record, noise, png, posed_frames, write_srn_object, write_transforms
from training import refusal
from vcgen.cli.main import main
from vcgen.data.datamodules.shards import ShardData
from vcgen.data.shards.files import read_index, write_shards

C2W = looking_inwards(10, distance=4)
FRAMES = posed_frames(C2W)
#: The views of ``FRAMES``, in natural order.
ALL = [f"images/r_{i}" for i in range(10)]


def pack(source, out, split: str, *options: str, kind: str = "transforms") -> int:
    near = "0.8" if kind == "srn" else "2"
    return main(["data", "pack", kind, str(source), str(out), "--near", near, "--far", "6", "--split", split, *options])


def packed(tmp_path, split: str, *options: str, kind: str = "transforms") -> list[str]:
    """The names of the views that come into a pack of ``tmp_path/in``."""
    assert pack(tmp_path / "in", tmp_path / split, split, *options, kind=kind) == 0
    return read_index(tmp_path / split).read(0).views


def warnings(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("vcgen: warning: ")]


@pytest.mark.parametrize(
    "spell", ["images/r_{}.png", "./images/r_{}.png", "images/r_{}", "images\\r_{}.png", "{root}/images/r_{}.png"]
)
def test_lists_of_names_choose_the_frames(tmp_path, capsys, spell):
    def names(*numbers: int) -> list[str]:
        return [spell.format(i, root=tmp_path / "in") for i in numbers]

    lists = {"train_filenames": names(7, 0, 1, 2), "val_filenames": names(3, 4), "test_filenames": names(6, 5)}
    write_transforms(tmp_path / "in", FRAMES, camera_angle_x=0.8, **lists)
    assert packed(tmp_path, "train") == [ALL[i] for i in (0, 1, 2, 7)]
    assert packed(tmp_path, "val") == [ALL[3], ALL[4]] and packed(tmp_path, "test") == [ALL[5], ALL[6]]
    assert warnings(capsys) == []


@pytest.mark.parametrize(
    ("lists", "split", "words"),
    [
        ({"train_filenames": ALL[:4]}, "test", ["no test_filenames", "but train_filenames"]),
        (
            {"test_filenames": ALL[:4], "val_filenames": ALL[:2]},
            "train",
            ["no train_filenames", "but val_filenames, test_filenames"],
        ),
        (
            {"train_filenames": ["images/r_0", "images/r_77", "r_1.png"]},
            "train",
            ["2 of 3 names match no frame: images/r_77, r_1.png"],
        ),
        ({"train_filenames": []}, "train", ["with one at least"]),
        ({"train_filenames": "images/r_0"}, "train", ["list of names"]),
        ({"train_filenames": [0, 1]}, "train", ["list of names"]),
        ({"train_filenames": None}, "test", ["no test_filenames"]),
        ({"train_filenames": ALL[:1]}, "train", ["at least 2 are needed"]),
    ],
)
def test_lists_that_do_not_tell_are_refused(tmp_path, capsys, lists, split, words):
    write_transforms(tmp_path / "in", FRAMES, camera_angle_x=0.8, **lists)
    line = refusal(capsys, pack(tmp_path / "in", tmp_path / "out", split))
    assert all(word in line for word in words) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["test", "val", "evaluation"])
def test_a_capture_without_splits_says_that_every_frame_is_taken(tmp_path, capsys, split):
    write_transforms(tmp_path / "in", FRAMES, camera_angle_x=0.8)
    assert packed(tmp_path, split) == ALL
    (line,) = warnings(capsys)
    assert f"all 10 are packed as split {split}" in line and "--hold_out_views" in line
    assert packed(tmp_path, "train") == ALL and warnings(capsys) == []


@pytest.mark.parametrize(("step", "test"), [(8, [0, 8]), (2, [0, 2, 4, 6, 8]), (5, [0, 5])])
@pytest.mark.parametrize("kind", ["transforms", "srn"])
def test_one_capture_is_parted_into_training_and_test_views(tmp_path, capsys, kind, step, test):
    if kind == "srn":
        write_srn_object(tmp_path / "in" / "car", views=10)
    else:
        write_transforms(tmp_path / "in", FRAMES, camera_angle_x=0.8)
    names = [f"{i:06d}" for i in range(10)] if kind == "srn" else ALL
    options = ("--hold-out-views", str(step))
    assert packed(tmp_path, "test", *options, kind=kind) == [names[i] for i in test]
    assert packed(tmp_path, "train", *options, kind=kind) == [names[i] for i in range(10) if i not in test]
    assert warnings(capsys) == []
    assert pack(tmp_path / "in", tmp_path / "whole", "train", kind=kind) == 0
    held, whole = read_index(tmp_path / "test").read(0), read_index(tmp_path / "whole").read(0)
    assert [whole.images[i] for i in test] == held.images and (whole.c2w[test] == held.c2w).all()


@pytest.mark.parametrize("how", ["held out", "lists", "files", "srn"])
def test_views_that_are_parted_stay_in_one_world(tmp_path, how):
    """The middle of the training views, or of the whole capture, is the origin of both."""
    moved = looking_inwards(10, distance=4)
    moved[:, :3, 3] += np.random.default_rng(0).normal(size=(10, 3)) + np.array([3, 1, 2])
    frames, options = posed_frames(moved), ["--recenter"]
    if how == "srn":
        write_srn_object(tmp_path / "in" / "car", poses=moved)
    elif how == "files":
        write_transforms(tmp_path / "in", frames[::8], "transforms_test.json", camera_angle_x=0.8)
        write_transforms(tmp_path / "in", [*frames[1:8], frames[9]], "transforms_train.json", camera_angle_x=0.8)
    else:
        lists = {"train_filenames": [*ALL[1:8], ALL[9]], "test_filenames": ALL[::8]} if how == "lists" else {}
        write_transforms(tmp_path / "in", frames, camera_angle_x=0.8, **lists)
    options += ["--hold-out-views", "8"] if how in ("held out", "srn") else []
    kind = "srn" if how == "srn" else "transforms"
    assert (
        len(packed(tmp_path, "train", *options, kind=kind)) == 8
        and len(packed(tmp_path, "test", *options, kind=kind)) == 2
    )
    train, test = (read_index(tmp_path / split).read(0).c2w[:, :3, 3] for split in ("train", "test"))
    shift = test[0] - moved[0, :3, 3]
    assert np.linalg.norm(shift) > 2 and np.allclose(test, moved[::8, :3, 3] + shift)
    assert np.allclose(train, moved[[*range(1, 8), 9], :3, 3] + shift)


@pytest.mark.parametrize(
    ("step", "split", "word"),
    [
        ("10", "test", "leaves 1 of 10 views to split test"),
        ("1", "train", "give 2 or more"),
        ("-8", "train", "give 2 or more"),
        ("8", "evaluation", "not 'evaluation'"),
    ],
)
def test_views_that_cannot_be_held_out_are_refused(tmp_path, capsys, step, split, word):
    write_transforms(tmp_path / "in", FRAMES, camera_angle_x=0.8)
    assert word in refusal(capsys, pack(tmp_path / "in", tmp_path / "out", split, "--hold_out_views", step))


@pytest.mark.parametrize(
    ("name", "lists"), [("transforms.json", {"train_filenames": ALL[:4]}), ("transforms_train.json", {})]
)
def test_a_capture_that_is_split_already_is_not_split_again(tmp_path, capsys, name, lists):
    write_transforms(tmp_path / "in", FRAMES, name, camera_angle_x=0.8, **lists)
    line = refusal(capsys, pack(tmp_path / "in", tmp_path / "out", "train", "--hold_out_views", "8"))
    assert "split already" in line and (name if not lists else "train_filenames") in line


def test_images_that_two_lists_share_are_remarked(tmp_path, capsys):
    write_transforms(
        tmp_path / "in",
        FRAMES,
        camera_angle_x=0.8,
        train_filenames=ALL[:6],
        val_filenames=ALL[6:],
        test_filenames=ALL[4:],
    )
    packed(tmp_path, "train")
    (line,) = warnings(capsys)
    assert "2 of 6 images of split train are in test_filenames" in line
    packed(tmp_path, "test")
    assert "2 of 6 images of split test are in train_filenames" in warnings(capsys)[0]
    packed(tmp_path, "val")
    assert warnings(capsys) == []


@pytest.mark.parametrize("strange", [None, 5, "images", [1, None, "images/r_9"]])
def test_a_list_of_another_split_may_be_anything(tmp_path, strange):
    write_transforms(tmp_path / "in", FRAMES, camera_angle_x=0.8, train_filenames=ALL[:6], test_filenames=strange)
    assert packed(tmp_path, "train") == ALL[:6]


@pytest.mark.parametrize("train", ["transforms_train.json", "transforms.json"])
def test_images_that_two_files_share_are_remarked(tmp_path, capsys, train):
    write_transforms(tmp_path / "in", FRAMES[:7], train, camera_angle_x=0.8)
    write_transforms(tmp_path / "in", FRAMES[6:], "transforms_test.json", camera_angle_x=0.8)
    packed(tmp_path, "train")
    (line,) = warnings(capsys)
    assert "1 of 7 images of split train are in transforms_test.json" in line
    packed(tmp_path, "test")
    assert f"1 of 4 images of split test are in {train}" in warnings(capsys)[0]


def test_splits_that_share_no_image_and_a_broken_neighbor_say_nothing(tmp_path, capsys):
    for split, frames in (("train", FRAMES[:7]), ("test", FRAMES[7:])):
        write_transforms(tmp_path / "in", frames, f"transforms_{split}.json", camera_angle_x=0.8)
    (tmp_path / "in" / "transforms_val.json").write_text("{")
    assert packed(tmp_path, "train") == ALL[:7] and packed(tmp_path, "test") == ALL[7:]
    assert warnings(capsys) == []


def test_one_line_speaks_for_all_scenes_and_comes_again_from_kept_shards(tmp_path, capsys, monkeypatch):
    for name in "abc":
        write_transforms(tmp_path / "in" / name, FRAMES[: 4 + ord(name) % 3], camera_angle_x=0.8)
    options = ("--samples-per-shard", "1")
    with monkeypatch.context() as patch:
        patch.setattr(
            "vcgen.data.shards.packing.publish",
            lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device", "out")),
        )
        assert pack(tmp_path / "in", tmp_path / "out", "test", *options) == 2
    capsys.readouterr()
    notes = [json.loads(path.read_bytes()) for path in (tmp_path / "out.partial").glob("*.json")]
    assert len(notes) == 3 and all(len(note["remarks"]) == 1 for note in notes)
    assert pack(tmp_path / "in", tmp_path / "out", "test", *options) == 0
    (line,) = warnings(capsys)
    assert "scene a: " in line and "all 5 are packed" in line and "in 2 more scenes" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--near", "6", "--far", "2"], ["--near 6", "the other way round"]),
        (["--near", "2", "--far", "2"], ["less than far"]),
        (["--near", "-1"], ["--near -1"]),
        (["--scale", "0"], ["--scale 0"]),
        (["--scale", "-1"], ["--scale -1"]),
        (["--split", "../test"], ["--split '../test'"]),
        (["--split", ""], ["--split ''"]),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(tmp_path, capsys, options, words):
    line = refusal(capsys, pack(tmp_path / "nowhere", tmp_path / "out", "train", *options))
    assert all(word in line for word in words)


@pytest.mark.parametrize("name", ["cars_test", "val", "chairs-val"])
def test_a_folder_called_test_that_is_packed_for_training_is_remarked(tmp_path, capsys, name):
    write_srn_object(tmp_path / name / "car")
    assert pack(tmp_path / name, tmp_path / "out", "train", kind="srn") == 0
    assert f"{name} is packed as split train" in warnings(capsys)[0]
    assert pack(tmp_path / name, tmp_path / "test", "test", kind="srn") == 0
    assert warnings(capsys) == []


def fit_data(tmp_path, train: dict, val: dict, split: str = "train") -> ShardData:
    """The data of a training on shard folders with these scenes, each a key -> the seed of its images. split: of the
    first.
    """
    for name, scenes in (("train", train), ("val", val)):
        records = [
            make_record(key, images=[png(noise(seed * 10 + i)) for i in range(3)]) for key, seed in scenes.items()
        ]
        write_shards(records, tmp_path / name, (8, 6), split=split if name == "train" else name)
    return ShardData(str(tmp_path / "train"), str(tmp_path / "val"))


@pytest.mark.parametrize(
    ("val", "split", "words"),
    [
        ({"a": 1, "b": 2}, "train", "2 of 2 scenes of data.val are in data.train"),
        ({"a": 3, "c": 2}, "train", None),
        ({"b": 2, "c": 3}, "train", "1 of 2 scenes of data.val are in data.train"),
        ({"c": 3}, "test", "is of split test"),
    ],
)
def test_training_on_what_is_validated_or_tested_on_is_remarked(tmp_path, capsys, val, split, words):
    fit_data(tmp_path, {"a": 1, "b": 2}, val, split).setup("fit")
    lines = warnings(capsys)
    assert len(lines) == (words is not None) and all(words in line for line in lines)


def test_validating_on_variants_of_what_is_trained_on_is_remarked(tmp_path, capsys):
    for name, numbers in (("train", (0, 1)), ("val", (2, 3))):
        records = [
            make_record(f"car_{i}", images=[png(noise(9 * i + j)) for j in range(3)], group="car") for i in numbers
        ]
        write_shards([*records, make_record(f"{name}_boat")], tmp_path / name, (8, 6), split=name)
    ShardData(str(tmp_path / "train"), str(tmp_path / "val")).setup("fit")
    (line,) = warnings(capsys)
    assert "2 of 3 scenes of data.val are variants of objects in data.train, of car for one" in line


def test_one_folder_for_training_and_validation_is_remarked_and_held_out_scenes_are_not(tmp_path, capsys):
    fit_data(tmp_path, {"a": 1, "b": 2, "c": 3}, {"d": 4})
    ShardData(str(tmp_path / "train"), str(tmp_path / "train")).setup("fit")
    assert "3 of 3 scenes of data.val" in warnings(capsys)[0]
    ShardData(str(tmp_path / "train"), hold_out=1).setup("fit")
    ShardData(str(tmp_path / "train"), str(tmp_path / "train")).setup("validate")
    assert warnings(capsys) == []
