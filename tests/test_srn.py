import numpy as np
import pytest

from packing_command import Packing
from scenes import listing, looking_inwards, noise, png, write_srn_object
from training import refusal
from vcgen.cli.main import main
from vcgen.data.formats.srn import read_intrinsics, read_pose
from vcgen.data.shards import conversion, packing
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views
from vcgen.errors import UserError

PACKING = Packing("srn")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


@pytest.fixture
def source(tmp_path):
    for number in range(5):
        write_srn_object(tmp_path / "cars_train" / f"car_{number}", seed=number)
    return tmp_path / "cars_train"


def test_cameras_and_pixels_are_those_of_the_source(tmp_path):
    c2w = write_srn_object(tmp_path / "in" / "car", views=4)
    record = packed(tmp_path / "in", tmp_path / "out", "--near", "0.5", "--far", "2", "--split", "val")
    assert np.array_equal(record.c2w, c2w)
    assert np.allclose(record.K, np.array([[9 / 6, 0, 0.5], [0, 9 / 8, 0.5], [0, 0, 1]]))
    assert (record.size, record.t_near, record.t_far, record.split, record.background) == (
        (8, 6),
        0.5,
        2.0,
        "val",
        "alpha",
    )
    rgb, alpha = decode_views(record, [3])
    assert np.array_equal(np.round(np.concatenate([rgb, alpha], 1)[0] * 255), noise(3).transpose(2, 0, 1))


def test_poses_on_one_line_and_on_four_are_the_same(tmp_path):
    numbers = np.arange(16.0)
    (tmp_path / "one").write_text(" ".join(str(x) for x in numbers) + "\n")
    (tmp_path / "four").write_text("\n".join("\t".join(str(x) for x in row) for row in numbers.reshape(4, 4)) + "\n\n")
    assert np.array_equal(read_pose(tmp_path / "one"), numbers.reshape(4, 4))
    assert np.array_equal(read_pose(tmp_path / "four"), numbers.reshape(4, 4))


def test_the_last_line_of_intrinsics_is_height_then_width(tmp_path):
    (tmp_path / "intrinsics.txt").write_text("131.25 64.000000 32.000000 0.\n0. 0. 0.\n1.\n64 128\n")
    assert read_intrinsics(tmp_path / "intrinsics.txt") == (131.25, 64.0, 32.0, 64, 128, False)
    (tmp_path / "intrinsics.txt").write_text("131.25 64")
    with pytest.raises(UserError, match="four lines"):
        read_intrinsics(tmp_path / "intrinsics.txt")


def test_world_to_camera_poses_are_inverted_where_the_flag_says_so(tmp_path):
    c2w = looking_inwards(3)
    write_srn_object(tmp_path / "in" / "car", poses=np.linalg.inv(c2w))
    with open(tmp_path / "in" / "car" / "intrinsics.txt", "a") as file:
        file.write("1\n")
    assert np.allclose(packed(tmp_path / "in", tmp_path / "out").c2w, c2w, atol=1e-9)


def test_shrinking_is_the_area_mean_of_premultiplied_color_and_keeps_intrinsics(tmp_path):
    write_srn_object(tmp_path / "in" / "car")
    record = packed(tmp_path / "in", tmp_path / "out", "--size", "4x3")
    pixels = noise(1).astype(np.float64) / 255
    blocks = (
        np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], -1).reshape(4, 2, 3, 2, 4).mean((1, 3))
    )
    rgb, alpha = decode_views(record, [1])
    assert np.allclose(alpha[0, 0], blocks[..., 3], atol=0.51 / 255)
    assert np.allclose(rgb[0].transpose(1, 2, 0), blocks[..., :3] / blocks[..., 3:], atol=0.51 / 255)
    assert np.allclose(record.K[0], [[9 / 6, 0, 0.5], [0, 9 / 8, 0.5], [0, 0, 1]])


def test_enlarging_is_refused(tmp_path, source, capsys):
    assert "cannot enlarge" in refused(capsys, source, tmp_path / "out", "--size", "64")


def test_opaque_alpha_is_dropped_and_rgb_accepted(tmp_path):
    write_srn_object(tmp_path / "in" / "a", channels=3)
    write_srn_object(tmp_path / "in" / "b")
    for i in range(3):
        pixels = noise(i)
        pixels[..., 3] = 255
        (tmp_path / "in" / "b" / "rgb" / f"{i:06d}.png").write_bytes(png(pixels))
    assert pack(tmp_path / "in", tmp_path / "out") == 0
    index = read_index(tmp_path / "out")
    assert [index.read(i).background for i in range(2)] == ["white", "white"]


def test_groups_come_from_the_pattern(tmp_path, source):
    write_srn_object(source / "van")
    assert pack(source, tmp_path / "out", "--group-pattern", "(.+)_[0-9]+") == 0
    assert {sample.group for _, sample in read_index(tmp_path / "out").samples} == {"car", "van"}


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path, source):
    assert pack(source, tmp_path / "one", "--samples-per-shard", "2") == 0
    assert pack(source, tmp_path / "two", "--samples-per-shard", "2", "--workers", "2") == 0
    assert listing(tmp_path / "one") == listing(tmp_path / "two")


def test_an_interrupted_pack_continues_and_ends_as_if_it_had_not_been(tmp_path, source, monkeypatch, capsys):
    options = ("--samples-per-shard", "2")
    assert pack(source, tmp_path / "whole", *options) == 0
    converted = []

    def convert_some(read_scene, scene, settings, original=conversion.convert_one):
        if len(converted) == 3:
            raise KeyboardInterrupt
        converted.append(scene.key)
        return original(read_scene, scene, settings)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "convert_one", convert_some)
        assert pack(source, tmp_path / "out", *options) == 2
    assert "the same command continues" in capsys.readouterr().err and not (tmp_path / "out").exists()
    converted.clear()
    monkeypatch.setattr(
        conversion,
        "convert_one",
        lambda *a, original=conversion.convert_one: converted.append(a[1].key) or original(*a),
    )
    assert pack(source, tmp_path / "out", *options) == 0
    assert converted == ["car_2", "car_3", "car_4"]
    assert listing(tmp_path / "out") == listing(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


def test_a_second_run_does_nothing_and_other_settings_need_overwrite(tmp_path, source, capsys):
    out = tmp_path / "out"
    assert pack(source, out) == 0
    before = listing(out)
    assert pack(source, out) == 0
    assert "already packed" in capsys.readouterr().out
    assert pack(source, out, "--near", "0.7") == 2
    assert "--overwrite" in capsys.readouterr().err and listing(out) == before
    assert packed(source, out, "--near", "0.7", "--overwrite").t_near == 0.7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cars_train", "out"]


def test_two_packs_into_one_folder_do_not_mix(tmp_path, source, capsys):
    (tmp_path / "out.partial").mkdir()
    with packing.hold_lock(tmp_path / "out.partial"):
        assert "another process of vcgen" in refused(capsys, source, tmp_path / "out")
    assert pack(source, tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.tar", "index.json", "pack.json"]


def test_a_folder_that_is_no_shard_folder_is_never_replaced(tmp_path, source, capsys):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    assert pack(source, tmp_path / "home", "--overwrite") == 2
    assert "not a shard folder" in capsys.readouterr().err and (tmp_path / "home" / "letter").read_text() == "dear"


def test_broken_objects_are_counted_and_can_be_left_out(tmp_path, source, capsys):
    (source / "car_9").mkdir()
    (source / "car_1" / "pose" / "000002.txt").unlink()
    line = refused(capsys, source, tmp_path / "out")
    assert "2 of 6 scenes are broken" in line and "000002.txt: missing pose" in line and "car_9: no rgb/ folder" in line
    assert pack(source, tmp_path / "out", "--skip-broken") == 0
    assert "left out 2 broken scenes" in capsys.readouterr().out
    assert [sample.key for _, sample in read_index(tmp_path / "out").samples] == ["car_0", "car_2", "car_3", "car_4"]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("rgb/000001.png", png(noise(1))[:-40], "000001.png: cannot be read as an image"),
        ("rgb/000001.png", b"", "000001.png: cannot be read as an image"),
        ("rgb/000001.png", png(noise(1, 9, 6)), "9 x 6, but intrinsics.txt is for 8 x 6"),
        ("pose/000001.txt", b"1 0 0 nan 0 1 0 0 0 0 1 0 0 0 0 1", "NaN"),
        ("pose/000001.txt", b"2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "view 000001: the pose's rotation is not orthonormal"),
        ("pose/000001.txt", b"1 0 0", "expected 16 numbers"),
        ("pose/000001.txt", b"one two", "not a text file of numbers"),
        ("intrinsics/000000.txt", b"", "pixelNeRF-hosted"),
    ],
)
def test_a_damaged_object_is_refused_by_name(tmp_path, source, capsys, name, content, word):
    path = source / "car_3" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    line = refused(capsys, source, tmp_path / "out")
    assert "car_3" in line and word in line


def test_mixed_resolutions_are_refused(tmp_path, source, capsys):
    write_srn_object(source / "car_9", height=16, width=12)
    assert "give one --size" in refused(capsys, source, tmp_path / "out")
    assert pack(source, tmp_path / "out", "--size", "8x6") == 0


def test_the_other_srn_cars_are_refused(tmp_path, capsys):
    write_srn_object(tmp_path / "in" / "car", views=250)
    assert "250 views" in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_nested_folders_are_searched_and_two_splits_are_refused(tmp_path, source, capsys):
    write_srn_object(tmp_path / "chairs_train" / "chairs_2.0_train" / "chair.1")
    assert pack(tmp_path / "chairs_train", tmp_path / "out") == 0
    assert read_index(tmp_path / "out").samples[0][1].key == "chair_1"
    assert "one split at a time" in refused(capsys, tmp_path, tmp_path / "both")


def test_places_that_cannot_be_written_or_read_are_one_line(tmp_path, source, capsys):
    (tmp_path / "file").write_text("")
    assert pack(source, tmp_path / "file" / "out") == 2
    assert "cannot create" in capsys.readouterr().err
    assert "not a folder" in refused(capsys, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "no object" in refused(capsys, tmp_path / "empty", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "word"), [(["srn", "a"], "OUT"), (["srn", "a", "b", "--workers", "x"], "workers")]
)
def test_a_wrong_command_line_exits_2_with_the_reason(arguments, word, capsys):
    assert word in refusal(capsys, main(["data", "pack", *arguments]))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["nope", "a", "b"], "unknown format 'nope'"),
        (["SRN", "a"], "'SRN'"),
        ([], "no format"),
        (["colmapp", "a"], "did you mean colmap"),
    ],
)
def test_an_unknown_format_is_one_line_that_names_those_there_are(words, what, capsys):
    assert main(["data", "pack", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("vcgen: error: ") and line.count("\n") == 1
    assert what in line and "srn, transforms, colmap" in line and "vcgen data pack FORMAT SOURCE OUT" in line


def test_wrong_options_are_refused(tmp_path, source, capsys):
    assert "--size" in refused(capsys, source, tmp_path / "out", "--size", "64x")
    assert "parentheses" in refused(capsys, source, tmp_path / "out", "--group-pattern", "abc")
    assert "near" in refused(capsys, source, tmp_path / "out", "--near", "3")
