"""Losses and gradients that are not finite end a run, before anything is learned from them, with a line that fits the
stage.
"""

import dataclasses
import inspect
import math
import re

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from small_realfusion import CONFIG, photo
from text_folder import tiny_folder
from training import last_checkpoint, refusal, vcgen
from vcgen.data.datamodules.single import Same
from vcgen.errors import UserError
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.systems.base import System
from vcgen.systems.clip.system import ClipTraining
from vcgen.systems.distillation.loop import DistillOptions
from vcgen.systems.distillation.system import Distill
from vcgen.systems.mesh_refine.system import MeshRefine
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.systems.personalize import Personalize
from vcgen.systems.realfusion.options import RealFusionOptions
from vcgen.systems.realfusion.system import RealFusion
from vcgen.systems.text2image import TextToImage
from vcgen.systems.text_to_3d.options import TextTo3DOptions
from vcgen.systems.text_to_3d.system import TextTo3D

STAGES = [NerfDiff, TextToImage, ClipTraining, Distill, Personalize, RealFusion, TextTo3D, MeshRefine]


def steep(weights: torch.Tensor) -> torch.Tensor:
    """0, with a gradient that is not finite."""
    return (weights.sum() * 0).sqrt()


class Slope(System):
    """Learns a number; its gradient at step 1 is NaN while its loss is 0."""

    def __init__(self):
        super().__init__(OptimizerOptions(lr=0.1, warmup_steps=1), {})
        self.number = torch.nn.Parameter(torch.ones(2))

    def losses(self, example, generator):
        return {"slope": steep(self.number) if self.global_step == 1 else self.number.square().sum()}


def fitted(system: System, **options) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_steps=3, accelerator="cpu", gradient_clip_val=1.0, **quiet, **options)
    trainer.fit(system, DataLoader(Same(photo(), 3), batch_size=None))
    return trainer


def test_gradients_that_are_not_finite_under_a_finite_loss_end_the_run_unlearned():
    system = Slope()
    with pytest.raises(
        UserError,
        match=r"^gradients are not finite at step 1 \(slope = 0\); learning from disc: lower model.optimizer.lr",
    ):
        fitted(system)
    assert bool(system.number.isfinite().all())


def test_a_loss_scaler_skips_such_a_step_and_goes_on():
    system, scaler = Slope(), torch.amp.GradScaler("cpu")
    trainer = fitted(system, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert trainer.global_step == 3 and scaler.get_scale() == 65536 / 2
    assert bool(system.number.isfinite().all()) and float(system.number.detach()[0]) < 1


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_the_advice_names_options_that_the_stage_has(stage):
    groups = {
        "optimizer": OptimizerOptions,
        "options": {
            Distill: DistillOptions,
            RealFusion: RealFusionOptions,
            TextTo3D: TextTo3DOptions,
            MeshRefine: TextTo3DOptions,
        }.get(stage),
    }
    named = re.findall(r"model\.(\w+)\.(\w+)", stage.advice_when_not_finite)
    assert named
    for group, option in named:
        assert group in inspect.signature(stage).parameters
        assert option in {field.name for field in dataclasses.fields(groups[group])}
    assert (
        set(re.findall(r"trainer\.(\w+)", stage.advice_when_not_finite))
        <= inspect.signature(pl.Trainer).parameters.keys()
    )
    assert ("vcgen data inspect" in stage.advice_when_not_finite) == (stage in (NerfDiff, TextToImage, ClipTraining))


def spoilt(stage: type[System], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From step 3 on a loss of a stage is NaN."""
    losses = stage.losses

    def poisoned(self, example, generator):
        found = losses(self, example, generator)
        return {**found, name: found[name] * math.nan} if self.global_step == 3 else found

    monkeypatch.setattr(stage, "losses", poisoned)


def test_a_photos_scene_that_is_not_finite_ends_with_its_own_advice(tmp_path, monkeypatch, capsys):
    spoilt(RealFusion, monkeypatch, "sds")
    (tmp_path / "given.yaml").write_text(CONFIG)
    line = refusal(
        capsys, vcgen("fit", tmp_path / "given.yaml", tmp_path / "run", model__prior=tiny_folder(tmp_path / "prior"))
    )
    assert "loss is not finite at step 3 (rgb = 0." in line and "sds = nan" in line
    assert "learning from taxi: lower model.options.grid_lr" in line
    assert last_checkpoint(tmp_path / "run")["global_step"] == 2
    assert not (tmp_path / "run" / "views.png").exists()


def test_a_personalization_that_is_not_finite_ends_with_its_own_advice(tmp_path, monkeypatch, capsys):
    spoilt(Personalize, monkeypatch, "denoising")
    content = yaml.safe_load(CONFIG)
    method = {"class_path": "TextualInversion", "init_args": {"initial": "car"}}
    options = {
        "prior": str(tiny_folder(tmp_path / "prior")),
        "method": method,
        "optimizer": {"lr": 1e-3},
        "images": {"rows": 0},
    }
    content |= {
        "model": {"class_path": "Personalize", "init_args": options},
        "checkpoint": {"monitor": "val/denoising", "mode": "min"},
    }
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(content))
    line = refusal(capsys, vcgen("fit", tmp_path / "given.yaml", tmp_path / "run"))
    assert (
        "not finite at step 3 (denoising = nan); learning from taxi: lower model.optimizer.lr" in line
        and "photo.png" in line
    )
    assert last_checkpoint(tmp_path / "run")["global_step"] == 2
    assert not (tmp_path / "run" / "learned_embeds.safetensors").exists()
