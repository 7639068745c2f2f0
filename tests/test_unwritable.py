"""Places that cannot be written and disks that are full: one line that names the place, status 2, and nothing
half-written.
"""

import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from small_model import checkpoint
from stand_in import BallSystem
from test_render_command import CONFIG, QUICK, red_box
from training import refusal
from vcgen.checkpoints import model_folder as folder
from vcgen.cli import main as cli
from vcgen.errors import UserError
from vcgen.visualization.images import write_mp4

CARS = Path(__file__).parents[1] / "data" / "cars64" / "test"


@contextmanager
def full_disk(left: int):
    """Files may grow to ``left`` bytes, then the system refuses as a full disk does; no privileges are needed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, limits[1]))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def commands(tmp_path) -> dict[str, list[str]]:
    """Every command that writes, ready but for its output folder."""
    model = folder.save(tmp_path / "ball", BallSystem(size=0.3).state_dict(), CONFIG)
    photo = red_box(tmp_path / "box.png")
    protocol = CARS.parents[2] / "configs" / "protocols" / "cars64_view0_sparse.json"
    return {
        "export": ["export", "--checkpoint", str(checkpoint(tmp_path / "last.ckpt")), "--out"],
        "render": ["render", "--model", str(model), "--image", str(photo), "--views", "1", *QUICK, "--out"],
        "evaluate": [
            "evaluate",
            "--model",
            str(model),
            "--data",
            str(CARS),
            "--protocol",
            str(protocol),
            "--lpips",
            "none",
            "--out",
        ],
        "inspect": ["data", "inspect", str(CARS), "--out"],
    }


@pytest.mark.parametrize("deeper", ["out", "deep/out"])
@pytest.mark.parametrize("name", ["export", "render", "evaluate", "inspect"])
def test_a_file_where_a_folder_is_wanted(commands, tmp_path, capsys, name, deeper):
    (tmp_path / "file").write_text("precious")
    line = refusal(capsys, cli.main([*commands[name], str(tmp_path / "file" / deeper)]))
    assert str(tmp_path / "file") in line and "choose" in line
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "left"), [("export", 0), ("export", 200), ("render", 0), ("render", 200), ("inspect", 1000)]
)
def test_a_full_disk(commands, tmp_path, capsys, name, left):
    with full_disk(left):
        line = refusal(capsys, cli.main([*commands[name], str(tmp_path / "out")]))
    assert str(tmp_path / "out") in line and "File too large" in line and ("make room" in line or "free space" in line)
    for path in (tmp_path / "out").rglob("*.*"):  # what was written before is whole
        Image.open(path).load()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_leaves_the_older_model(commands, tmp_path, capsys):
    out = tmp_path / "ball"
    with full_disk(200):
        refusal(capsys, cli.main([*commands["export"], str(out)]))
    assert folder.load(out).size.item() == pytest.approx(0.3)


def test_an_animation_that_could_not_be_written_is_no_success(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    with full_disk(500), pytest.raises(UserError, match=r"turn.mp4: cannot be written .ffmpeg: "):
        write_mp4(tmp_path / "turn.mp4", frames)
    assert list(tmp_path.iterdir()) == []
