"""Which files of a source folder are read, and what views are called after them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from packing_command import Packing
from scenes import listing, looking_inwards, noise, png, posed_frames, write_srn_object, write_transforms
from vcgen.data.images.reading import SUFFIXES
from vcgen.data.shards.record import decode_views

FORMS = {form: Packing(form, "--near", "2", "--far", "6") for form in ("transforms", "srn")}
PACKING, SRN = FORMS.values()
C2W = looking_inwards(3, distance=4)
APPLE = b"\0\5\x16\7" + bytes(200)


def renamed(folder, names: list[str], files: list[str], kind: str = "PNG"):
    """A capture whose frames are called ``names`` and whose images lie in ``files``."""
    frames = [{**frame, "file_path": name} for frame, name in zip(posed_frames(C2W), names, strict=True)]
    folder.mkdir()
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames}))
    for number, file in enumerate(files):
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(noise(number, channels=3)).save(folder / file, kind)
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("images/r_{}", "images/r_{}.PNG"),
        ("images/r_{}", "images/r_{}.webp"),
        ("./images/r_{}", "images/r_{}.Png"),
        ("images\\r_{}.png", "images/r_{}.png"),
        (".\\images\\r_{}", "images/r_{}.png"),
        ("images/r_{}.png", "images/r_{}.PNG"),
        ("images/r_{}.JPG", "images/r_{}.jpg"),
        ("images/0.5_{}", "images/0.5_{}.png"),
        ("images/sub/../r_{}.png", "images/r_{}.png"),
    ],
)
def test_names_find_their_images_whatever_the_system_that_wrote_them(tmp_path, name, file):
    kind = "WEBP" if file.endswith("webp") else "PNG"
    (tmp_path / "in").parent.mkdir(exist_ok=True)
    folder = renamed(tmp_path / "in", [name.format(i) for i in range(3)], [file.format(i) for i in range(3)], kind)
    (folder / "images" / "sub").mkdir()
    record = PACKING.packed(folder, tmp_path / "out")
    assert record.views == [file.format(i).rsplit(".", 1)[0] for i in range(3)]
    rgb, _ = decode_views(record, [2])
    assert kind == "WEBP" or np.array_equal(np.round(rgb[0] * 255), noise(2, channels=3).transpose(2, 0, 1))


def test_a_backslash_that_is_part_of_a_name_is_left_alone(tmp_path):
    folder = renamed(tmp_path / "in", ["a\\b_0.png", "r_1.png", "r_2.png"], ["a\\b_0.png", "r_1.png", "r_2.png"])
    assert PACKING.packed(folder, tmp_path / "out").views == ["a\\b_0", "r_1", "r_2"]


def test_of_a_missing_image_the_line_says_which_extensions_were_tried(tmp_path, capsys):
    folder = renamed(
        tmp_path / "in", ["images/r_0", "images/r_1", "images/gone\x1b[31m"], ["images/r_0.png", "images/r_1.png"]
    )
    line = PACKING.refused(capsys, folder, tmp_path / "out")
    assert "1 of 3 images are missing: images/gone\\x1b[31m" in line and all(
        extension in line for extension in SUFFIXES
    )


@pytest.mark.parametrize("place", ["/home/someone/mug/", "C:\\Users\\someone\\mug\\", "D:/mug/"])
def test_absolute_names_of_another_computer_are_told_as_such(tmp_path, capsys, place):
    folder = renamed(tmp_path / "in", [f"{place}r_{i}.png" for i in range(3)], ["r_0.png"])
    assert "another computer's: make them relative" in PACKING.refused(capsys, folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["", ".", "images", "images/", "/", "images/\0.png", "x" * 300])
def test_a_name_that_is_no_file_is_a_missing_image(tmp_path, capsys, name):
    folder = renamed(tmp_path / "in", ["images/r_0", "images/r_1", name], ["images/r_0.png", "images/r_1.png"])
    Image.fromarray(noise(0)).save(tmp_path / "in.png")  # beside the folder, not in it
    line = PACKING.refused(capsys, folder, tmp_path / "out")
    assert "images are missing" in line or "File name too long" in line


def test_two_images_that_differ_in_their_extension_alone_keep_it(tmp_path):
    names = ["r_0.png", "r_0.jpg", "r_1.png"]
    assert PACKING.packed(renamed(tmp_path / "in", names, names), tmp_path / "out").views == sorted(names)


def views_of(tmp_path, folder) -> list[str]:
    return PACKING.packed(folder, tmp_path / "out").views


@pytest.mark.parametrize("place", ["{}/in", "{}/link"])
def test_views_with_absolute_names_below_the_folder_are_called_relative_to_it(tmp_path, place):
    (tmp_path / "link").symlink_to(tmp_path / "in")
    files = [f"images/r_{i}.png" for i in range(3)]
    folder = renamed(tmp_path / "in", [f"{place.format(tmp_path)}/{file}" for file in files], files)
    assert views_of(tmp_path, folder) == ["images/r_0", "images/r_1", "images/r_2"]


@pytest.mark.parametrize("place", ["{}/photos/", "../photos/"])
def test_views_outside_the_folder_are_called_relative_to_what_they_share(tmp_path, place):
    names = [f"{place.format(tmp_path)}{i}.png" for i in range(3)]
    folder = renamed(tmp_path / "in", names, [f"../photos/{i}.png" for i in range(3)])
    assert views_of(tmp_path, folder) == ["0", "1", "2"]


def test_images_that_are_links_are_called_as_the_folder_calls_them(tmp_path):
    files = [f"r_{i}.png" for i in range(3)]
    folder = renamed(tmp_path / "in", files, [f"../store/{i}0.png" for i in range(3)])
    for i in range(3):
        (folder / f"r_{i}.png").symlink_to(tmp_path / "store" / f"{i}0.png")
    assert views_of(tmp_path, folder) == ["r_0", "r_1", "r_2"]


def test_one_image_under_two_spellings_is_refused(tmp_path, capsys):
    folder = renamed(tmp_path / "in", ["r_0.png", "r_1.png", str(tmp_path / "in" / "r_1")], ["r_0.png", "r_1.png"])
    assert "'r_1' occurs more than once" in PACKING.refused(capsys, folder, tmp_path / "out")


def litter(folder) -> None:
    """What macOS and Windows leave in folders."""
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        (file.parent / f"._{file.name}").write_bytes(APPLE)
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png"):
            (place / name).write_bytes(APPLE)
    shutil.copytree(folder / "car", folder / "__MACOSX" / "car")
    shutil.copytree(folder / "car", folder / ".Trashes" / "car")


@pytest.mark.parametrize("kind", ["srn", "transforms"])
def test_what_systems_leave_in_folders_is_not_read(tmp_path, capsys, kind):
    if kind == "srn":
        write_srn_object(tmp_path / "in" / "car")
    else:
        write_transforms(tmp_path / "in" / "car", posed_frames(C2W, "images/r_{}"), camera_angle_x=0.8)
    assert FORMS[kind].pack(tmp_path / "in", tmp_path / "clean") == 0
    litter(tmp_path / "in")
    assert FORMS[kind].pack(tmp_path / "in", tmp_path / "out") == 0
    assert listing(tmp_path / "out") == listing(tmp_path / "clean"), "the fingerprint, too: it is the same source"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pose/000001.txt", APPLE),
        ("intrinsics.txt", b"\x1b[31m 1 2 3\n"),
        ("pose/000001.txt", "１ ２ drei".encode()),
        ("pose/000001.txt", b"1 " * 100_000),
        ("intrinsics.txt", b"nan 4 3\n0 0 0\n1\n8 6\n"),
        ("intrinsics.txt", b"9 4 3\n0 0 0\n1\nnan 6\n"),
        ("intrinsics.txt", b"9 4 3\n0 0 0\n1\n8 1e999\n"),
        ("intrinsics.txt", b"-9 4 3\n0 0 0\n1\n8 6\n"),
        ("intrinsics.txt", b""),
    ],
)
def test_numbers_that_are_none_are_refused_and_not_printed(tmp_path, capsys, name, content):
    write_srn_object(tmp_path / "in" / "car")
    (tmp_path / "in" / "car" / name).write_bytes(content)
    line = SRN.refused(capsys, tmp_path / "in", tmp_path / "out")
    assert name in line and line.strip().isprintable() and "drei" not in line


def test_world_to_camera_poses_that_have_no_inverse_are_refused(tmp_path, capsys):
    write_srn_object(tmp_path / "in" / "car")
    with open(tmp_path / "in" / "car" / "intrinsics.txt", "a") as file:
        file.write("1\n")
    (tmp_path / "in" / "car" / "pose" / "000001.txt").write_text("0 " * 16)
    line = SRN.refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "000001.txt: the pose's rotation is not orthonormal" in line


def test_two_images_of_one_view_are_refused(tmp_path, capsys):
    write_srn_object(tmp_path / "in" / "car")
    (tmp_path / "in" / "car" / "rgb" / "000001.JPG").write_bytes(png(noise(0)))
    line = SRN.refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "000001.png" in line and "000001.JPG" in line and "view 000001" in line


@pytest.mark.parametrize(
    ("kind", "file", "words"),
    [
        ("transforms", "sparse/0/cameras.bin", ["vcgen data pack colmap"]),
        ("srn", "cameras.txt", ["vcgen data pack colmap"]),
        ("transforms", "scene/database.db", ["vcgen data poses"]),
        ("transforms", "fern/poses_bounds.npy", ["LLFF"]),
        ("transforms", "apple/frame_annotations.jgz", ["CO3D"]),
        ("srn", "02958343/car/cameras.npz", ["NMR"]),
        ("srn", "lego/transforms_train.json", ["vcgen data pack transforms"]),
        ("transforms", "car/pose/0.txt", ["in here"]),
        ("transforms", "car/intrinsics.txt", ["vcgen data pack srn"]),
        ("srn", "train/index.json", ["packed already"]),
        ("srn", "photos/a.jpg", ["give the folder of one split"]),
    ],
)
def test_of_another_layout_the_line_says_what_it_is_and_what_makes_it_one_of_ours(tmp_path, capsys, kind, file, words):
    (tmp_path / "in" / file).parent.mkdir(parents=True)
    (tmp_path / "in" / file).write_text("")
    line = FORMS[kind].refused(capsys, tmp_path / "in", tmp_path / "out")
    assert all(word in line for word in words)


def test_a_byte_order_mark_is_no_number(tmp_path):
    write_srn_object(tmp_path / "in" / "car")
    file = tmp_path / "in" / "car" / "intrinsics.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert SRN.pack(tmp_path / "in", tmp_path / "out") == 0
