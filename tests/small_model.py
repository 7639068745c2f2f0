"""A small model with weights of its own, and the folder that export makes of it."""

import torch

from stand_in import BallSystem
from vcgen.cameras import orbit, pinhole
from vcgen.types import Views

CAMERA = {"focal": 1.0254, "distance": 1.3, "elevation": 20, "near": 0.8, "far": 1.8}


ENTRY = {
    "class_path": "stand_in.BallSystem",
    "init_args": {"density": 50.0},
    "image_size": [16, 16],
    "camera": CAMERA,
    "data": "balls/train",
    "version": "0.1.0",
    "git": "abc123",
}


CONFIG = {**{key: ENTRY[key] for key in ("class_path", "init_args", "image_size", "camera")}, "background": 1.0}


def trained_system():
    system = BallSystem(density=50.0)
    with torch.no_grad():
        system.size.fill_(0.25)
        system.tint.copy_(torch.tensor([0.9, 0.4, 0.2]))
    return system


def checkpoint(path, **changes):
    """What training writes: the raw weights, and averages that differ from them."""
    content = {
        "state_dict": trained_system().state_dict(),
        "global_step": 1200,
        "vcgen": ENTRY,
        "callbacks": {
            "EMA": {"weights": {"size": torch.tensor([0.35]), "tint": torch.tensor([0.1, 0.2, 0.9])}},
            "ModelCheckpoint{'monitor': 'val/psnr'}": {"monitor": "val/psnr", "current_score": torch.tensor(21.5)},
        },
        **changes,
    }
    torch.save(content, path)
    return path


def image(system):
    cameras = orbit(torch.tensor([30.0]), torch.tensor([20.0]), 1.3, pinhole(1.0254), 0.8, 1.8)[None]
    return system.render(system.field(Views(torch.ones(1, 1, 3, 16, 16), cameras)), cameras, (16, 16)).rgb
