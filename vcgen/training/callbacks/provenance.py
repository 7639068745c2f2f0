"""What a run was: versions and git commit in its folder, and in every checkpoint all that export needs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from vcgen import __version__, provenance, redaction
from vcgen.io import write_bytes


class Provenance(pl.Callback):
    """Writes ``run.json`` into the run folder and a ``vcgen`` entry into every checkpoint.

    model: {"class_path", "init_args"} of the system as configured.
    """

    def __init__(self, model: dict[str, Any]):
        self.model = model

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Record command, versions and machine before anything can fail."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        facts = {
            **provenance.record(),
            "device": str(module.device),
            "ranks": trainer.world_size,
            "parameters": sum(p.numel() for p in module.parameters()),
        }
        path = Path(trainer.default_root_dir) / "run.json"
        write_bytes(path, (json.dumps(facts, indent=2) + "\n").encode())

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what ``vcgen export`` needs: how to build the model, and the camera its training images were taken
        with.
        """
        data = trainer.datamodule
        checkpoint["vcgen"] = {
            **self.model,
            "image_size": list(data.image_size),
            "camera": asdict(data.input_camera()),
            "background": 1.0,
            "data": redaction.hide_word(str(data.train_folder)),
            "version": __version__,
            "git": provenance.git_commit(),
        }


class ConfigOfRun(pl.Callback):
    """Writes ``config.yaml`` into the run's folder, whatever the logger, once nothing is left that could refuse it: a
    checkpoint that does not fit, for one. Not in validation, which has its own settings.

    text: its content.
    """

    def __init__(self, text: str):
        self.text = text

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Data and checkpoint have been read."""
        if trainer.is_global_zero and not trainer.fast_dev_run:
            write_bytes(Path(trainer.default_root_dir) / "config.yaml", self.text.encode())
