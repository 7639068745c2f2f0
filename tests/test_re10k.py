"""Clips of RealEstate10K become records, from camera files and from pixelSplat's chunks, which run no code."""

import json
import shutil

import numpy as np
import pytest
import torch

from packing_command import Packing
from re10k_files import SIZE, SPOTS, TIMES, K, clip_poses, example, write_chunks, write_clip
from scenes import listing
from seen_dots import worst_epipolar_error, worst_error
from vcgen.data.formats.re10k import read_cameras
from vcgen.data.formats.re10k_chunks import read_chunk
from vcgen.data.shards.files import read_index

#: y down becomes z up.
TURN = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


PACKING = Packing("re10k")
pack, packed, refused = PACKING.pack, PACKING.packed, PACKING.refused


def test_cameras_are_those_that_were_written_and_the_world_is_turned_upright(tmp_path, capsys):
    write_clip(tmp_path / "in")
    names, rows = read_cameras(tmp_path / "in" / "0a1b.txt")
    assert names == [str(time) for time in TIMES] and rows.shape == (6, 18)
    record = packed(tmp_path / "in", tmp_path / "out")
    said = capsys.readouterr().err.replace("-0.000", "0.000")
    assert "up was guessed as (0.000, -1.000, 0.000), perpendicular to the rows of the images" in said
    assert np.allclose(record.c2w[:, :3], TURN @ clip_poses()[:, :3], atol=1e-9)
    assert np.allclose(record.K, K) and record.size == SIZE and record.views == names
    assert (record.key, record.background, record.t_near, record.t_far) == ("0a1b", "none", 0.1, 1000)
    assert worst_error(record, SPOTS @ TURN.T) < 0.1 and worst_epipolar_error(record) < 0.2
    given = packed(tmp_path / "in", tmp_path / "given", "--up", "z", "--scale", "2", "--near", "1")
    assert np.allclose(given.c2w[:, :3, 3], 2 * clip_poses()[:, :3, 3], atol=1e-9)
    assert (given.t_near, given.t_far) == (1, 2000)


@pytest.mark.integration
def test_chunks_hold_the_same_clips(tmp_path):
    write_clip(tmp_path / "text")
    write_chunks(tmp_path / "in" / "train", [example("ffff"), example("0a1b")], [example("cccc")])
    text = packed(tmp_path / "text", tmp_path / "from_text")
    record = packed(tmp_path / "in", tmp_path / "out")
    assert [sample.key for _, sample in read_index(tmp_path / "out").samples] == ["ffff", "0a1b", "cccc"]
    assert np.allclose(record.c2w, text.c2w, atol=1e-5) and np.allclose(record.K, text.K, atol=1e-6)
    assert record.views == text.views
    assert worst_error(record, SPOTS @ TURN.T) < 0.3, "JPEG"
    assert pack(tmp_path / "in", tmp_path / "two", "--workers", "2") == 0
    assert listing(tmp_path / "two") == listing(tmp_path / "out")


def test_frames_may_lie_elsewhere_and_clips_whose_video_is_gone_are_counted(tmp_path, capsys):
    for name in ("a", "b", "c"):
        write_clip(tmp_path / "in" / "test", name, tmp_path / "frames")
    shutil.rmtree(tmp_path / "frames" / "b")
    options = ("--split", "test", "--frames", str(tmp_path / "frames"))
    assert pack(tmp_path / "in", tmp_path / "out", *options) == 0
    assert "1 of 3 clips have no frames, and are left out" in capsys.readouterr().err
    assert [sample.key for _, sample in read_index(tmp_path / "out").samples] == ["a", "c"]


def test_every_nth_frame_is_kept_and_of_these_every_mth_is_held_out(tmp_path):
    write_clip(tmp_path / "in")
    kept = packed(tmp_path / "in", tmp_path / "kept", "--every", "2", "--up", "z")
    assert kept.views == [str(time) for time in TIMES[::2]]
    assert np.allclose(kept.c2w, clip_poses()[::2], atol=1e-9)
    test = packed(tmp_path / "in", tmp_path / "test", "--hold-out-views", "3", "--split", "test", "--up", "z")
    train = packed(tmp_path / "in", tmp_path / "train", "--hold-out-views", "3", "--up", "z")
    assert test.views == [str(time) for time in TIMES[::3]]
    assert {*test.views, *train.views} == {str(time) for time in TIMES} and len(train.views) == 4


def test_the_middle_square_keeps_the_geometry(tmp_path):
    write_clip(tmp_path / "in")
    record = packed(tmp_path / "in", tmp_path / "out", "--square")
    assert record.size == (90, 90) and record.K[0, 0, 0] == pytest.approx(record.K[0, 1, 1])
    assert record.K[0, 0, 2] == pytest.approx((0.52 * 160 - 35) / 90)
    assert worst_error(record, SPOTS @ TURN.T) < 0.2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines[1:], "line 1 must be the video's address"),
        (lambda lines: lines[:1], "has no frames"),
        (lambda lines: [*lines[:2], lines[2] + " 1"], "line 3: 20 columns, expected 19"),
        (lambda lines: [*lines[:2], lines[2].replace("0.9 ", "x ")], "line 3: not all columns are numbers"),
        (lambda lines: [*lines[:2], lines[2].replace(" 0.0 0.0 ", " 0.1 0.0 ")], "must be 0, found 0.1"),
        (lambda lines: [*lines[:2], lines[2].replace("0.9 ", "90 ")], "(in pixels by mistake?)"),
        (lambda lines: [*lines[:2], " ".join(lines[2].split()[:7]) + " 2" * 12], "not orthonormal"),
        (lambda lines: [*lines, lines[1]], "one timestamp"),
        (lambda lines: [*lines, "1" + lines[1]], "1 of 7 images are missing"),
    ],
)
def test_camera_files_that_are_wrong_are_refused_in_one_line(tmp_path, capsys, change, reason):
    write_clip(tmp_path / "in")
    path = tmp_path / "in" / "0a1b.txt"
    path.write_text("\n".join(change(path.read_text().splitlines())))
    assert reason in refused(capsys, tmp_path / "in", tmp_path / "out", "--up", "z")


def test_places_without_clips_are_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "in" / "test").mkdir(parents=True)
    assert "there is test: choose with --split" in refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "no camera files" in refused(capsys, tmp_path / "in" / "test", tmp_path / "out", "--split", "test")
    write_clip(tmp_path / "clips", "a", tmp_path / "frames")
    assert "--frames says where they are" in refused(capsys, tmp_path / "clips", tmp_path / "out")
    assert "--every 0" in refused(capsys, tmp_path / "clips", tmp_path / "out", "--every", "0")


class Evil:
    """What a stranger may put into a pickle."""

    def __reduce__(self):
        return print, ("this ran",)


def changed(**entries) -> list[dict]:
    return [{**example("0a1b"), **entries}]


@pytest.mark.parametrize(
    ("clips", "reason"),
    [
        ([*changed(), Evil()], "it names __builtin__.print"),
        (changed(more=np.float64(1.0)), "it names numpy"),
        (changed(more=torch.zeros(2).to_sparse()), "it names torch._utils._rebuild_sparse_tensor"),
        ({"key": "0a1b"}, "it is no list of clips"),
        (changed(key=7), "has no clip '0a1b'"),
        (changed(images=[torch.zeros(3)] * 6), "images must be a list of encoded images"),
        (changed(images=[torch.zeros(1, dtype=torch.uint8).expand(1 << 40)] * 6), "images must be a list"),
        (changed(cameras=torch.zeros(6, 19)), "cameras must be 6 x 18"),
        (changed(timestamps=torch.zeros(5, dtype=torch.int64)), "timestamps must be 6 whole numbers"),
        (changed(images=[torch.zeros(9, dtype=torch.uint8)] * 6), "frame 900000: cannot be read as an image"),
    ],
)
def test_chunks_of_another_kind_are_refused_in_one_line_and_run_nothing(tmp_path, capsys, clips, reason):
    write_chunks(tmp_path / "in", [example("0a1b")])
    torch.save(clips, tmp_path / "in" / "000000.torch")
    line = refused(capsys, tmp_path / "in", tmp_path / "out", "--up", "z")
    assert reason in line and "this ran" not in capsys.readouterr().out


def test_damaged_and_missing_chunks_are_refused_in_one_line(tmp_path, capsys):
    write_chunks(tmp_path / "in", [example("0a1b")], [example("b")])
    path = tmp_path / "in" / "000000.torch"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert "damaged, or no chunk of pixelSplat's" in refused(capsys, tmp_path / "in", tmp_path / "out")
    path.write_bytes(b"none")
    assert "damaged, or no chunk of pixelSplat's" in refused(capsys, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "000001.torch").unlink()
    assert "1 of 2 chunks that index.json names are missing" in refused(capsys, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "index.json").write_text(json.dumps({"b": "../000000.torch"}))
    assert "is no name of a chunk beside it" in refused(capsys, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "index.json").write_text("{}")
    assert "names no clips" in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_a_chunk_is_read_once_for_all_its_clips(tmp_path, monkeypatch):
    write_chunks(tmp_path / "in", [example("a"), example("b")])
    reads = []
    monkeypatch.setattr(torch, "load", lambda *a, original=torch.load, **k: reads.append(a) or original(*a, **k))
    for clip in ("a", "b"):
        assert len(read_chunk(tmp_path / "in" / "000000.torch", clip)[2]) == 6
    assert len(reads) == 1
