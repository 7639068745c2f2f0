"""One of several processes fails: all end soon, the terminal shows that one's message, and nothing hides it."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from ranks import vcgen_ranks
from training import CONFIG, FIT
from vcgen.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path):
    """The tiny configuration, endless and without validation, as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.replace("max_steps: 4", "max_steps: 100000").replace("val: data/cars64/test", "val: null"))
    return path


class Trouble(pl.Callback):
    """After a step of one rank: an exception, a refusal, a loss that is no number, or a rank that is killed."""

    def __init__(self, kind: str, rank: int):
        self.kind, self.rank = kind, rank

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch, batch_idx: int) -> None:
        if trainer.global_step < 1 or trainer.global_rank != self.rank:
            return
        if self.kind == "exception":
            raise RuntimeError("a fault on one rank")
        if self.kind == "refusal":
            raise UserError("shard.tar: damaged; copy or pack it again")
        if self.kind == "nan":
            losses = module.losses
            module.losses = lambda *arguments: {name: value * torch.nan for name, value in losses(*arguments).items()}
        if self.kind == "kill":
            os.kill(os.getpid(), 9)


def lines(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if any(word in line for word in words)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rank", "status", "said"),
    [
        ("exception", 1, 1, "RuntimeError: a fault on one rank"),
        ("exception", 0, 1, "RuntimeError: a fault on one rank"),
        ("refusal", 1, 2, "vcgen: error: rank 1: shard.tar: damaged; copy or pack it again"),
        ("refusal", 0, 2, "vcgen: error: shard.tar: damaged; copy or pack it again"),
        ("nan", 1, 2, "vcgen: error: rank 1: loss is not finite at step 1"),
        ("kill", 1, 137, "vcgen: error: process 1 of 2 terminated with code -9 (SIGKILL"),
    ],
)
def test_all_end_with_the_message_of_the_one_that_failed(config, tmp_path, kind, rank, status, said):
    command = [
        *FIT,
        str(config),
        "--trainer.default_root_dir",
        str(tmp_path / "run"),
        "--trainer.devices",
        "2",
        "--trainer.strategy",
        "ddp",
        "--trainer.callbacks+",
        "test_together.Trouble",
        "--trainer.callbacks.kind",
        kind,
        "--trainer.callbacks.rank",
        str(rank),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    # It would go on for ever: the limit is for a machine under load.
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr
    assert len(lines(done.stderr, said)) == 1
    assert len(lines(done.stderr, "error:", "Error:")) == 1, done.stderr


class Scribe(pl.Callback):
    """Notes the files and folders that this process makes, changes or removes below a folder."""

    def __init__(self, folder: str, notes: str):
        self.notes, self.touched = notes, set()

        def hook(event: str, arguments: tuple) -> None:
            written = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if written or event in ("os.mkdir", "os.rename", "os.remove", "os.link"):
                path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else ""
                self.touched |= {path} if path.startswith(folder) else set()

        sys.addaudithook(hook)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        Path(f"{self.notes}.{trainer.global_rank}").write_text("\n".join(sorted(self.touched)))


@pytest.mark.integration
def test_only_the_first_process_writes(tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    options = {"trainer__callbacks__plus": "test_together.Scribe", "trainer__callbacks__folder": tmp_path / "run"}
    assert vcgen_ranks(
        2, "fit", tmp_path / "tiny.yaml", tmp_path / "run", **options, trainer__callbacks__notes=tmp_path / "notes"
    ) == [0, 0]
    first, second = ((tmp_path / f"notes.{rank}").read_text() for rank in range(2))
    assert all(name in first for name in (".config.", ".run.", "tfevents", ".last.", ".best.")), first
    assert second == ""


@pytest.mark.integration
def test_a_distillation_on_several_processes_is_refused(tmp_path, capfd):
    assert vcgen_ranks(2, "fit", ROOT / "configs" / "distill.yaml", tmp_path / "run", trainer__max_steps=1) == [2, 2]
    assert "set trainer.devices to 1" in capfd.readouterr().err


@pytest.mark.integration
def test_data_that_all_refuse_is_refused_and_nobody_waits(config, tmp_path, capfd):
    assert vcgen_ranks(2, "fit", config, tmp_path / "run", data__train="/nowhere") == [2, 2]
    assert "vcgen: error: /nowhere: no index.json" in capfd.readouterr().err


@pytest.mark.slow
def test_where_others_started_the_processes_each_that_remains_says_that_its_partner_has_gone(config, tmp_path, capfd):
    trouble = dict(
        trainer__callbacks__plus="test_together.Trouble", trainer__callbacks__kind="nan", trainer__callbacks__rank=1
    )
    assert vcgen_ranks(2, "fit", config, tmp_path / "run", **trouble) == [2, 2]
    said = lines(capfd.readouterr().err, "error:", "Error:")
    assert len(said) == 2
    assert "rank 1: loss is not finite" in said[0] and "the connection to another process broke" in said[1]
