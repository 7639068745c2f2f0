"""The scene from which a refinement starts: read from the folder of its run, then kept in every checkpoint, so that a
resumed run has it as it was, whatever has become of that folder.
"""

from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor

from vcgen.checkpoints import model_folder
from vcgen.checkpoints.reader import read_checkpoint
from vcgen.data.input_camera import InputCamera
from vcgen.encoders.base import OptimizedScene
from vcgen.encoders.scene_shown import ShownScene
from vcgen.encoders.scene_triplane import SceneTriplane
from vcgen.errors import UserError
from vcgen.io import check
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Finetunable, Views

#: Its name in a checkpoint.
KEY = "coarse"
ADVICE = "give a .ckpt file that `vcgen fit` wrote"


class Kept(Struct):
    """What a checkpoint holds of it: the config.json and the weights of its model folder."""

    config: dict[str, Any]
    weights: dict[str, Any]


def of_folder(folder: Path) -> NerfDiff:
    """The model of one scene in a run's folder, or in a model folder. Raises UserError in one line for any other."""
    place = folder / "field" if (folder / "field").is_dir() else folder
    return one_scene(model_folder.load(place), place)


def to_keep(system: NerfDiff) -> dict[str, Any]:
    """What a checkpoint holds of it."""
    return {"config": system.config, "weights": dict(system.state_dict())}


def of_checkpoint(path: Path) -> NerfDiff | None:
    """What :func:`to_keep` has kept; None of a checkpoint that was written before it did. Raises UserError in one line
    for a file that is none, or damaged.
    """
    content = read_checkpoint(path)
    if KEY not in content:
        return None
    kept = check(content[KEY], Kept, f"{path}, {KEY}", ADVICE)
    check(kept.config, model_folder.Config, f"{path}, {KEY}", ADVICE)
    if not all(isinstance(weight, Tensor) for weight in kept.weights.values()):
        raise UserError(f"{path}, {KEY}: holds other things than weights; {ADVICE}")
    return one_scene(model_folder.assembled(kept.config, kept.weights, path), path)


def one_scene(system: object, place: Path) -> NerfDiff:
    """The model, if it is of one scene. Raises UserError for any other."""
    if isinstance(system, NerfDiff) and isinstance(system.encoder, OptimizedScene | SceneTriplane | ShownScene):
        return system
    advice = "give the folder of a run of TextTo3D, RealFusion or Distill, or the field/ in it"
    raise UserError(f"{place} holds no single scene: {advice}")


def field_of(system: NerfDiff, device: torch.device) -> Finetunable:
    """The scene of a model of one. Raises UserError for one that cannot be refined."""
    height, width = system.config["image_size"]
    camera = InputCamera.of(system.config).cameras([0.0], 0.0)
    field = system.to(device).eval().field(Views(torch.ones(1, 1, 3, height, width), camera[None]).to(device))
    if not isinstance(field, Finetunable):
        raise UserError(f"a {type(field).__name__} cannot be refined; use planes, voxels or a hash grid")
    return field
