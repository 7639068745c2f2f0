"""Checkpoint files: whole or absent, checked when written and when read, and what a run refuses to go on from."""

import errno
import io
import os
import re
import resource

import pytest
import torch

from training import last_checkpoint, load, refusal, vcgen
from vcgen.checkpoints.files import FORMAT, CheckpointFiles, config_differences
from vcgen.errors import UserError


def test_checkpoints_hold_what_export_needs_and_no_temporary_file_is_left(finished):
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    checkpoint = last_checkpoint(finished)
    assert checkpoint["vcgen"]["class_path"] == "vcgen.systems.nerfdiff.NerfDiff"
    assert checkpoint["vcgen"]["image_size"] == [64, 64] and checkpoint["vcgen"]["camera"]["distance"] == pytest.approx(
        1.3, abs=0.01
    )
    weights = checkpoint["callbacks"]["EMA"]["weights"]
    assert set(weights) == set(checkpoint["state_dict"])
    assert any(not torch.equal(weights[name], checkpoint["state_dict"][name]) for name in weights)


@pytest.fixture
def files():
    """Writer and reader for a tiny module."""
    return CheckpointFiles(torch.nn.Linear(1, 1), {})


def content(number: float) -> dict:
    """A checkpoint of that module: half a megabyte."""
    weights = {"weight": torch.full((1, 1), float(number)), "bias": torch.zeros(1)}
    return {"state_dict": weights, "vcgen": {"version": "0.1"}, "ballast": torch.full((125_000,), number)}


def number_in(path) -> float:
    return float(load(path)["state_dict"]["weight"])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_leaves_the_old_checkpoint(files, tmp_path, monkeypatch, code):
    path = tmp_path / "last.ckpt"
    files.save_checkpoint(content(1), path)

    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(
        UserError, match=f"last.ckpt: cannot be written .{os.strerror(code)}.: .*the previous last.ckpt is intact"
    ) as error:
        files.save_checkpoint(content(2), path)
    assert ("it needs 1 MB beside the old one" in str(error.value)) == (code != errno.EIO)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"] and number_in(path) == 1


def test_a_refusal_in_the_middle_of_the_file_is_told_from_torchs_own_errors(files, tmp_path):
    """torch.save answers it with a RuntimeError about positions in the file."""
    path = tmp_path / "last.ckpt"
    files.save_checkpoint(content(1), path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # Python ignores the signal that comes with it
    try:
        with pytest.raises(UserError, match=r"last.ckpt: cannot be written .File too large.*intact"):
            files.save_checkpoint(content(2), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"] and number_in(path) == 1
    with pytest.raises(RuntimeError, match="of the program"):
        files.save_checkpoint({"bad": Unsavable()}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_ctrl_c_in_the_middle_of_the_file_stays_ctrl_c(files, tmp_path, monkeypatch):
    """Lightning ends a run in order on KeyboardInterrupt; torch.save makes a RuntimeError of it, too."""
    path = tmp_path / "last.ckpt"
    files.save_checkpoint(content(1), path)
    monkeypatch.setattr("vcgen.checkpoints.files.open", Interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        files.save_checkpoint(content(2), path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"] and number_in(path) == 1


class Interrupted(io.FileIO):
    """A file at whose first write of a tensor the user presses Ctrl-C."""

    def write(self, data) -> int:
        if len(data) > 100_000:
            raise KeyboardInterrupt
        return super().write(data)


class Unsavable:
    def __reduce__(self):
        raise RuntimeError("an error of the program")


def flip(path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 16
    path.write_bytes(data)


def test_what_the_disk_holds_is_compared_with_what_was_written(files, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    files.save_checkpoint(content(1), path)
    flush = os.fsync

    def spoil(descriptor):
        flush(descriptor)
        for temporary in tmp_path.glob(".*.partial*"):
            flip(temporary, 300_000)

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(
        UserError, match=r"does not hold what was written .*is damaged.; the previous last.ckpt is intact"
    ):
        files.save_checkpoint(content(2), path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"] and number_in(path) == 1


def test_what_is_read_back_is_not_the_systems_copy_in_memory(files, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: asked.append(words[1:]))
    files.save_checkpoint(content(1), tmp_path / "last.ckpt")
    assert asked == [(0, 0, os.POSIX_FADV_DONTNEED)]


def test_damage_is_found_that_the_reader_of_torch_does_not_notice(files, tmp_path):
    path = tmp_path / "last.ckpt"
    files.save_checkpoint(content(1), path)
    assert files.load_checkpoint(path)["format"] == FORMAT
    flip(path, 300_000)
    assert number_in(path) == 1  # read without complaint
    with pytest.raises(UserError, match=r"damaged or not a checkpoint .*is damaged"):
        files.load_checkpoint(path)


@pytest.mark.parametrize("bad", ["hello", "", "half", "foreign"])
def test_foreign_and_truncated_files_are_refused(files, tmp_path, bad):
    path = tmp_path / "bad.ckpt"
    files.save_checkpoint(content(1), path)
    whole = path.read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2]}.get(bad, bad.encode()))
    if bad == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"bad.ckpt: damaged or not a checkpoint"):
        files.load_checkpoint(path)


def test_another_format_is_refused_with_both_versions(files, tmp_path):
    path = tmp_path / "old.ckpt"
    torch.save(content(1), path)
    with pytest.raises(
        UserError,
        match=f"old.ckpt: checkpoint format 1, written by vcgen 0.1; this one reads format {FORMAT}: go on with",
    ):
        files.load_checkpoint(path)


def test_validation_of_the_best_checkpoint_uses_its_averaged_weights(capsys, config, finished, tmp_path):
    checkpoint = load(finished / "checkpoints" / "best.ckpt")
    config_of_run = (finished / "config.yaml").read_bytes()
    assert vcgen("validate", config, finished, ckpt_path="best", ema__decay=0.5) == 0
    assert (finished / "config.yaml").read_bytes() == config_of_run
    usual = float(re.search(r"val/psnr\D+([\d.]+)", capsys.readouterr().out)[1])
    best = checkpoint["callbacks"]["Checkpoints"]["best"]
    assert usual == pytest.approx(max(best.values()), abs=1e-4)
    changed = tmp_path / "run" / "checkpoints"
    changed.mkdir(parents=True)
    # averaged weights of zero draw another image, though the trained weights are the same
    for weight in checkpoint["callbacks"]["EMA"]["weights"].values():
        weight.zero_()
    torch.save(checkpoint, changed / "best.ckpt")
    assert vcgen("validate", config, tmp_path / "run", ckpt_path="best") == 0
    assert float(re.search(r"val/psnr\D+([\d.]+)", capsys.readouterr().out)[1]) != pytest.approx(usual, abs=1e-3)


def test_the_fit_command_refuses_a_damaged_checkpoint(capsys, config, finished, tmp_path):
    path = tmp_path / "bad.ckpt"
    path.write_bytes((finished / "checkpoints" / "last.ckpt").read_bytes()[:-1000])
    assert "bad.ckpt: damaged or not a checkpoint" in refusal(
        capsys, vcgen("fit", config, tmp_path / "run", ckpt_path=path)
    )
    assert not list((tmp_path / "run").rglob("config.yaml"))


def test_a_checkpoint_of_another_model_is_refused_with_the_keys_that_differ(capsys, config, finished, tmp_path):
    path = finished / "checkpoints" / "last.ckpt"
    config_of_run = (finished / "config.yaml").read_bytes()
    line = refusal(
        capsys,
        vcgen(
            "fit",
            config,
            finished,
            ckpt_path=path,
            model__encoder__plane_channels=16,
            model__encoder__decoder__channels=16,
        ),
    )
    assert "encoder.plane_channels = 8, here 16;" in line and "optimizer" not in line
    assert "of another shape (encoder." in line
    assert (finished / "config.yaml").read_bytes() == config_of_run


def test_configurations_are_compared_key_by_key():
    stored = {"class_path": "A", "init_args": {"encoder": {"class_path": "E", "init_args": {"size": 8}}, "rays": 2}}
    here = {"class_path": "A", "init_args": {"encoder": {"class_path": "E", "init_args": {"size": 16}}, "rays": 2}}
    assert config_differences(stored, here) == "encoder.size = 8, here 16"
    assert config_differences(stored, stored) == "" and config_differences({}, here) == ""
