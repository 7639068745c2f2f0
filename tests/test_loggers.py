"""Whatever the logger, a run's folder holds what it was and how it went; images go where they can be seen."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image

from training import refusal, vcgen
from vcgen.visualization.logging import show_animation, show_image

SHEET = "val/input_target_rendering_depth"


class Board(WandbLogger):
    """Stands in for WandbLogger, whose package is not installed: notes where it was told to write, and the images that
    it was given.
    """

    boards: list["Board"] = []

    def __init__(self, save_dir: str = "."):
        self.place, self.images = Path(save_dir), []
        self._save_dir, self._prefix, self._logged_metrics = save_dir, "", {}
        Board.boards.append(self)

    def log_image(self, key: str, images: list, step: int | None = None, **options) -> None:
        self.images.append((key, images, step))

    def log_metrics(self, metrics, step=None) -> None: ...

    def log_hyperparams(self, params) -> None: ...

    def finalize(self, status: str) -> None: ...

    def save(self) -> None: ...

    name = version = experiment = None


@pytest.fixture
def board():
    """A board without a run."""
    return Board()


def run_with(logger: str, config, folder: Path) -> set[str]:
    """A run of two steps with one validation; the files of its folder."""
    options = dict(trainer__max_steps=2, trainer__logger=logger, samples__turntable=2, samples__scenes=1)
    assert vcgen("fit", config, folder, **options) == 0
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_logger_of_files_needs_no_folder_and_its_run_leaves_images_as_files(config, tmp_path):
    found = run_with("CSVLogger", config, tmp_path / "run")
    images = {f"images/{SHEET}-0000002.png", "images/val/turntable-0000002.gif"}
    assert found == {
        "config.yaml",
        "run.json",
        "run.lock",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "lightning_logs/version_0/metrics.csv",
        *images,
    }
    with Image.open(tmp_path / "run" / "images" / f"{SHEET}-0000002.png") as sheet:
        assert sheet.size == (4 * 64 + 3 * 2, 64)
    with Image.open(tmp_path / "run" / "images" / "val" / "turntable-0000002.gif") as turntable:
        assert turntable.n_frames == 2
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["trainer"]["logger"]["init_args"]["save_dir"] == "."  # the next run of it writes into its own folder
    assert json.loads((tmp_path / "run" / "run.json").read_text())["command"]


def test_several_loggers_write_into_the_runs_folder_and_images_go_to_the_one_that_shows_them(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(Board, "boards", [])
    loggers = [
        {"class_path": "test_loggers.Board"},
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / "other")}},
    ]
    found = run_with(json.dumps(loggers), config, tmp_path / "run")
    assert {"config.yaml", "run.json"} <= found and (
        tmp_path / "other" / "lightning_logs" / "version_0" / "metrics.csv"
    ).is_file()
    (board,) = Board.boards
    assert board.place == tmp_path / "run"
    assert [(key, step) for key, _, step in board.images] == [("val/turntable", 2), (SHEET, 2)]
    assert [name for name in found if name.startswith("images")] == ["images/val/turntable-0000002.gif"]


def trainer_with(folder: Path, *loggers) -> SimpleNamespace:
    return SimpleNamespace(loggers=list(loggers), global_step=7, default_root_dir=str(folder), fast_dev_run=0)


def test_an_image_goes_to_log_image_as_pixels_and_an_animation_as_a_file(tmp_path, board):
    frames = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    show_image(trainer_with(tmp_path, board), "val/a", frames[0])
    show_animation(trainer_with(tmp_path, board), "val/b", frames, fps=10)
    (_, (pixels,), _), (_, (path,), step) = board.images
    assert np.array_equal(pixels, frames[0]) and step == 7
    assert Path(path) == tmp_path / "images" / "val" / "b-0000007.gif" and Path(path).read_bytes()[:3] == b"GIF"


@pytest.mark.parametrize(("logger", "files"), [(False, 0), (True, 1)])
def test_an_image_becomes_a_file_where_a_run_logs_and_no_logger_shows_images(tmp_path, logger, files):
    loggers = [CSVLogger(tmp_path / "log")] if logger else []
    show_image(trainer_with(tmp_path, *loggers), "val/a", np.zeros((4, 4, 3), np.uint8))
    assert len(list(tmp_path.glob("images/val/a-0000007.png"))) == files


def test_a_logger_whose_package_is_missing_is_refused_in_one_line(config, tmp_path, capsys):
    line = refusal(capsys, vcgen("fit", config, tmp_path / "run", trainer__logger="WandbLogger"))
    assert "WandbLogger: Requirement 'wandb" in line and "Iterable" not in line and "0x" not in line
