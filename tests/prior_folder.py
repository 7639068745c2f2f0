"""A small NerfDiff with a diffusion prior, and its way through a checkpoint into a model folder."""

from pathlib import Path

import torch

from vcgen.checkpoints.build import build_system
from vcgen.cli.export import main
from vcgen.systems.nerfdiff import NerfDiff


def entry(**prior) -> dict:
    """The ``vcgen`` entry of a checkpoint of a small NerfDiff with a prior."""
    sizes = {"plane_size": 16, "plane_channels": 8, "channels": [32, 32], "layers": 1, "attention": [False, False]}
    decoder = {
        "class_path": "vcgen.fields.triplane.TriplaneDecoder",
        "init_args": {"channels": 8, "hidden": 8, "density_bias": 2.0},
    }
    arguments = {
        "encoder": {
            "class_path": "vcgen.encoders.triplane.TriplaneEncoder",
            "init_args": {"decoder": decoder, **sizes},
        },
        "render": {"samples": 8},
        "prior": {
            "class_path": "vcgen.diffusion.prior.ViewPrior",
            "init_args": {"channels": [16, 32], "attention": [False, True], "size": 16, **prior},
        },
    }
    return {
        "class_path": "vcgen.systems.nerfdiff.NerfDiff",
        "init_args": arguments,
        "image_size": [16, 16],
        "version": "0.1.0",
        "camera": {"focal": 1.0254, "distance": 1.3, "elevation": 20, "near": 0.8, "far": 1.8},
    }


def trained(about: dict) -> NerfDiff:
    """A system in eval mode whose every weight has moved away from its start."""
    system = build_system(about["class_path"], about["init_args"]).eval()
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return system


def exported(system: NerfDiff, about: dict, base: Path, *options: str) -> Path:
    """Through a checkpoint whose raw weights are zeros, so that the averages must come from where they are."""
    average = {name: p.detach().clone() for name, p in system.named_parameters()}
    raw = {name: torch.zeros_like(value) for name, value in system.state_dict().items()}
    base.mkdir(exist_ok=True)
    torch.save({"state_dict": raw, "vcgen": about, "callbacks": {"EMA": {"weights": average}}}, base / "last.ckpt")
    main(["--checkpoint", str(base / "last.ckpt"), "--out", str(base / "model"), *options])
    return base / "model"
