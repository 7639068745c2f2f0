"""Lightning starts the processes: what each trains on, that a stopped training goes on exactly, and what happens when one dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training import equal, load

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_two_processes_train_with_different_noise_and_end_with_equal_weights(config, tmp_path):
    command = [
        sys.executable, "-m", "vcgen.cli", "fit", "-c", str(config), "--trainer.default_root_dir", str(tmp_path / "run"),
        "--trainer.max_steps", "2", "--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp",
        "--trainer.callbacks+", "training.Ranks", "--trainer.callbacks.folder", str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert equal(first["weights"], second["weights"])
    assert not torch.equal(first["noise"], second["noise"])
    assert not set(first["scenes"]) & set(second["scenes"])
    assert not set(first["validated"]) & set(second["validated"]) and first["validated"] and second["validated"]
