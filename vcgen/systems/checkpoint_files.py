"""How checkpoints reach the disk and come back: written whole or not at all, unpickled never, refused in one line."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from vcgen.errors import FULL, UserError
from vcgen.io import flush_to_disk, replacing

#: Of what a checkpoint holds beside weights. 1 (without a number): the data position is one integer; 2: an epoch and a number of scenes.
FORMAT = 2


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoint plugin for a run.

    module: the system that checkpoints must fit. model: the {"class_path", "init_args"} it was built from; checkpoints hold theirs.
    """

    def __init__(self, module: nn.Module, model: dict[str, Any]):
        self.module, self.model = module, model

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write under a temporary name in the same folder, flush to the disk, read it back, rename.

        Raises UserError when the disk refuses or holds something else than was written; the file of that name then is what it was.
        """
        path = Path(path)
        try:
            with replacing(path, flush=True) as temporary:
                with open(temporary, "wb") as file:
                    torch.save({"format": FORMAT, **checkpoint}, file)
                flush_to_disk(temporary)
                if damage := damaged_part(temporary):
                    raise UserError(f"{path}: the disk does not hold what was written ({damage}); {intact(path)}, have the disk looked at")
        except (OSError, RuntimeError) as error:
            cause = os_error(error)
            if cause is None:
                raise
            raise UserError(f"{path}: cannot be written ({cause.strerror}): {advice(cause, checkpoint, path)}") from error

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read, always with ``weights_only=True``. Raises UserError for a file that is missing, damaged, foreign, old or does not fit."""
        if not Path(path).is_file():
            raise UserError(f"{path}: no such checkpoint; give a file that `vcgen fit` wrote, `best` or `last`")
        try:
            if damage := damaged_part(Path(path)):  # torch.load would not notice
                raise ValueError(damage)
            checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
            weights, written = checkpoint["state_dict"], checkpoint["vcgen"]
            shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        except Exception as error:  # a file that is no checkpoint can fail in any way
            reason = str(error) if isinstance(error, ValueError) else type(error).__name__
            raise UserError(f"{path}: damaged or not a checkpoint ({reason}); give a file that `vcgen fit` wrote") from error
        expected = {name: tuple(tensor.shape) for name, tensor in self.module.state_dict().items()}
        if shapes != expected:
            found = [config_differences(written, self.model), weight_differences(shapes, expected)]
            remedy = "take the config.yaml of its run, or train without --ckpt_path"
            raise UserError(f"{path}: does not fit this model: {'; weights: '.join(filter(None, found))}; {remedy}")
        if (form := checkpoint.get("format", 1)) != FORMAT:
            found = f"checkpoint format {form}, written by vcgen {written.get('version')}; this one reads format {FORMAT}"
            raise UserError(f"{path}: {found}: go on with that version, or export the model and train on with --model.pretrained")
        return checkpoint


def damaged_part(path: Path) -> str:
    """Read a checkpoint and compare every part with the checksum that ``torch.save`` noted; "" if all is as it was written.

    0.4 s per GB on one core when the system still has the file in memory; a sixth of what writing takes.
    """
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
        return f"{part} is damaged" if part else ""
    except (zipfile.BadZipFile, EOFError) as error:
        return str(error)


def os_error(error: BaseException | None) -> OSError | None:
    """The system's refusal behind an exception: torch's writer raises a RuntimeError of its own in its place."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def advice(cause: OSError, checkpoint: dict[str, Any], path: Path) -> str:
    """What to do when ``path`` could not be written, and nothing is left of the attempt."""
    if cause.errno not in FULL:
        return f"{intact(path)}; choose a writable trainer.default_root_dir"
    need, free = tensor_bytes(checkpoint) / 1e6, shutil.disk_usage(path.parent).free / 1e6
    return f"it needs {need:.0f} MB beside the old one, {free:.0f} MB are free; {intact(path)}; make room and go on with --ckpt_path last"


def intact(path: Path) -> str:
    """What is left of an earlier checkpoint of that name."""
    return f"the previous {path.name} is intact" if path.exists() else "no earlier one is there"


def tensor_bytes(value: Any) -> int:
    """The size of all tensors in nested containers: that of a checkpoint, nearly."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(tensor_bytes, items))


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
