"""Faults of the machine during a training: one line, a status that says so, and the last good checkpoint."""

import multiprocessing
import os
import shutil
import subprocess
from pathlib import Path

import lightning.pytorch as pl
import pytest

from training import last_checkpoint, refusal, vcgen
from vcgen.data.shards.files import read_index

TRAIN = Path(__file__).parents[1] / "data" / "cars64" / "train"


def names(folder: Path) -> list[str]:
    """The files of a run's checkpoint folder."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


# --- the disk ---


def mount(*arguments) -> None:
    """Mount for the life of the test; skips where that is not allowed."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system ({done.stderr.strip()})")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 20 MB: four checkpoints of the tiny model."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=20m", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class FillDisk(pl.Callback):
    """Fills the disk up to so many bytes when a step is done."""

    def __init__(self, folder: str, step: int, leave: int):
        self.folder, self.step, self.leave = Path(folder), step, leave

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            with open(self.folder / "ballast", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.folder).free - self.leave)


@pytest.mark.integration
@pytest.mark.parametrize("leave", [1_000_000, 0])
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_from_which_it_goes_on(
    capsys, config, small_disk, leave
):
    fill = dict(
        trainer__callbacks__plus="test_machine.FillDisk",
        trainer__callbacks__folder=small_disk,
        trainer__callbacks__step=3,
    )
    line = refusal(capsys, vcgen("fit", config, small_disk / "run", **fill, trainer__callbacks__leave=leave))
    if leave:
        assert (
            "cannot be written (No space left on device): it needs 5 MB beside the old one, 1 MB are free; the previous"
            in line
        )
    assert "No space left on device" in line
    assert names(small_disk / "run") == ["best.ckpt", "last.ckpt"]
    assert last_checkpoint(small_disk / "run")["global_step"] == 2
    (small_disk / "ballast").unlink()
    assert vcgen("fit", config, small_disk / "run", ckpt_path="last") == 0
    assert last_checkpoint(small_disk / "run")["global_step"] == 4


def test_a_folder_that_cannot_be_written_is_refused_before_training(capsys, config, tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):  # the administrator may write all the same
        mount("--bind", folder, folder)
        try:
            mount("-o", "remount,ro,bind", folder)
            line = refusal(capsys, vcgen("fit", config, folder))
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    else:
        line = refusal(capsys, vcgen("fit", config, folder))
    assert str(folder) in line and "choose a writable trainer.default_root_dir" in line
    assert list(folder.iterdir()) == []


# --- the data and its loaders ---


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_bit_in_an_image_ends_the_run_with_its_place(capsys, config, tmp_path, workers):
    """In the middle of every image: a decoder alone would often see another color there."""
    shutil.copytree(TRAIN, tmp_path / "cars")
    index = read_index(tmp_path / "cars")
    shards = {shard.name: bytearray((index.folder / shard.name).read_bytes()) for shard in index.shards}
    for number, (name, scene) in enumerate(index.samples):
        for image in index.read(number).images:
            shards[name][shards[name].index(image, scene.offset) + len(image) // 2] ^= 4
    for name, data in shards.items():
        (index.folder / name).write_bytes(data)
    line = refusal(
        capsys, vcgen("fit", config, tmp_path / "run", data__train=tmp_path / "cars", data__num_workers=workers)
    )
    assert "scene " in line and "the PNG is damaged (a checksum is wrong)" in line


class KillLoader(pl.Callback):
    """Kills a loader process after a step, as the system does that is out of memory."""

    #: Children of the tests' process that earlier tests have left.
    others: list = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == 3:
            next(child for child in multiprocessing.active_children() if child not in self.others).kill()


@pytest.mark.slow
def test_a_killed_loader_process_ends_the_run_in_one_line(capsys, config, tmp_path, monkeypatch):
    monkeypatch.setattr(KillLoader, "others", multiprocessing.active_children())
    options = dict(data__num_workers=2, trainer__max_steps=1000, trainer__callbacks__plus="test_machine.KillLoader")
    line = refusal(capsys, vcgen("fit", config, tmp_path, **options))
    assert "a loader process " in line and "go on with --ckpt_path last" in line
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]
    assert last_checkpoint(tmp_path)["global_step"] >= 2
