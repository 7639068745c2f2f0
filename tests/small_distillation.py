"""A distillation of moments: model folders with random weights, and a stage of two rounds."""

from pathlib import Path

import torch
import yaml
from torch import nn

from training import last_checkpoint, vcgen
from vcgen.checkpoints import model_folder as folder
from vcgen.diffusion.prior import ViewPrior
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.nerfdiff import NerfDiff

CAMERA = {"focal": 1.0254, "distance": 1.3, "elevation": 20.0, "near": 0.8, "far": 1.8}
PRIOR = {
    "class_path": "vcgen.diffusion.prior.ViewPrior",
    "init_args": {"channels": [32, 32], "attention": [False, False], "input_attention": False, "patch": 4},
}
ARGUMENTS = {
    "decoder": {"channels": 8, "hidden": 16},
    "plane_size": 16,
    "plane_channels": 8,
    "channels": [32, 32],
    "layers": 1,
    "attention": [False, False],
}
DISTILLATION = {
    "class_path": "Distill",
    "init_args": {
        "model": "unused",
        "guidance": {"class_path": "NGD", "init_args": {"rounds": 2, "updates": 2}},
        "options": {"views": 2, "rays": 64, "input_rays": 16},
    },
}


def make_folder(path: Path, prior: bool = True) -> Path:
    torch.manual_seed(0)
    encoder = TriplaneEncoder(TriplaneDecoder(8, 16), 16, 8, channels=(32, 32), layers=1, attention=(False, False))
    return write_model(path, encoder, "vcgen.encoders.triplane.TriplaneEncoder", ARGUMENTS, prior)


def write_model(path: Path, encoder: nn.Module, class_path: str, arguments: dict, prior: bool = True) -> Path:
    """A model folder of an untrained model with this encoder."""
    network = ViewPrior(**PRIOR["init_args"]) if prior else None
    system = NerfDiff(encoder, RenderOptions(8), prior=network)
    given = {
        "encoder": {"class_path": class_path, "init_args": arguments},
        "render": {"samples": 8},
        "prior": PRIOR if prior else None,
    }
    config = {
        "class_path": "vcgen.systems.nerfdiff.NerfDiff",
        "init_args": given,
        "image_size": [64, 64],
        "camera": CAMERA,
        "background": 1.0,
    }
    return folder.save(path, system.state_dict(), config, prior=system.prior)


def write_distillation(path: Path, **changes) -> Path:
    """A configuration of the stage, with these of its arguments changed."""
    path.write_text(yaml.safe_dump({"model": {**DISTILLATION, "init_args": {**DISTILLATION["init_args"], **changes}}}))
    return path


#: Of `vcgen fit -c configs/distill.yaml`: six updates in three rounds.
SMALL = dict(
    model__guidance__rounds=3,
    model__guidance__updates=2,
    model__options__views=2,
    model__options__rays=64,
    trainer__accelerator="cpu",
    trainer__val_check_interval=2,
    samples__turntable=0,
)


def run(out: Path, model: Path, **options) -> dict:
    """A distillation as a training run; returns its last checkpoint."""
    assert vcgen("fit", "configs/distill.yaml", out, model__model=model, **SMALL, **options) == 0
    return last_checkpoint(out)
