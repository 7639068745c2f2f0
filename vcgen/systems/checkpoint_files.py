"""How checkpoints reach the disk and come back: written whole or not at all, unpickled never, refused in one line."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from vcgen.errors import UserError


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoint plugin for a run.

    module: the system that checkpoints must fit. model: the {"class_path", "init_args"} it was built from; checkpoints hold theirs.
    """

    def __init__(self, module: nn.Module, model: dict[str, Any]):
        self.module, self.model = module, model

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write under a temporary name in the same folder, flush to the disk, rename. Raises UserError when the disk refuses."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            advice = "choose a writable trainer.default_root_dir with free space"
            raise UserError(f"{path}: cannot be written ({error.strerror}); {advice}") from error
        finally:
            if temporary.exists():
                temporary.unlink()

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read, always with ``weights_only=True``. Raises UserError for a file that is missing, damaged, foreign or does not fit."""
        if not Path(path).is_file():
            raise UserError(f"{path}: no such checkpoint; give a file that `vcgen fit` wrote, `best` or `last`")
        try:
            checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
            weights = checkpoint["state_dict"]
            shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        except Exception as error:  # a file that is no checkpoint can fail in any way
            raise UserError(f"{path}: damaged or not a checkpoint ({type(error).__name__}); give a file that `vcgen fit` wrote") from error
        expected = {name: tuple(tensor.shape) for name, tensor in self.module.state_dict().items()}
        if shapes != expected:
            found = [config_differences(checkpoint.get("vcgen", {}), self.model), weight_differences(shapes, expected)]
            advice = "take the config.yaml of its run, or train without --ckpt_path"
            raise UserError(f"{path}: does not fit this model: {'; weights: '.join(filter(None, found))}; {advice}")
        return checkpoint


def config_differences(stored: dict[str, Any], current: dict[str, Any], limit: int = 6) -> str:
    """The keys in which two model configurations differ, with both values: "encoder.layers = 1, here 2"."""
    if not stored:
        return ""
    there, here = (flatten({"class_path": x["class_path"], **x["init_args"]}) for x in (stored, current))
    return enumerate_few([f"{k} = {there.get(k)}, here {here.get(k)}" for k in {**here, **there} if there.get(k) != here.get(k)], limit)


def weight_differences(stored: dict[str, tuple], expected: dict[str, tuple], limit: int = 2) -> str:
    """The same for the names and shapes of weights."""
    names = [name for name in {**expected, **stored} if stored.get(name) != expected.get(name)]
    return enumerate_few([f"{n} is {stored.get(n, 'missing')}, here {expected.get(n, 'unknown')}" for n in names], limit)


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> one, with dotted keys as they are written on the command line (without "init_args")."""
    flat = {}
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else key
        flat.update(flatten(value, name) if isinstance(value, dict) and value else {name: value})
    return flat


def enumerate_few(items: list[str], limit: int) -> str:
    """The first few of a list, and how many more there are."""
    return "; ".join(items[:limit]) + (f" (and {len(items) - limit} more)" if len(items) > limit else "")
