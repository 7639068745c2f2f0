"""How checkpoints reach the disk and come back: written whole or not at all, unpickled never, refused in one line."""

import os
import shutil
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from msgspec import Meta
from torch import nn

from vcgen.archives import damaged_part
from vcgen.checkpoints.reader import ADVICE, read_checkpoint, rename_weights, tensor_bytes
from vcgen.errors import FULL, UserError
from vcgen.io import check, replacing
from vcgen.tensors import mismatch
from vcgen.terminal import one_line

E = TypeVar("E", bound=BaseException)
#: Of what a checkpoint holds beside weights. 1 (without a number): the data position is one integer; 2: an epoch and a
#: number of scenes.
FORMAT = 2
#: By which Lightning decides what to change in a checkpoint of an older one.
LightningVersion = Annotated[str, Meta(pattern=r"^[2-9]\.[0-9]{1,4}[0-9a-z.+-]{0,40}\Z")]


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoint plugin for a run.

    module: the system that checkpoints must fit. model: the {"class_path", "init_args"} it was built from; checkpoints
        hold theirs.
    """

    def __init__(self, module: nn.Module, model: dict[str, Any]):
        self.module, self.model = module, model

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write under a temporary name in the same folder, flush to the disk, read it back, rename.

        What is read back comes from the disk where the system lets go of its copy in memory, as Linux does for local
        disks when asked. That the drive has written its own cache, and will hold it, no program can see. Raises
        UserError when the disk refuses or holds something else than was written; the file of that name then is what it
        was, as it is after Ctrl-C."""
        path = Path(path)
        try:
            with replacing(path, flush=True) as temporary:
                with open(temporary, "wb") as file:
                    torch.save({"format": FORMAT, **checkpoint}, file)
                    file.flush()
                    os.fsync(file.fileno())
                    forget(file.fileno())
                if damage := damaged_part(temporary):
                    raise UserError(
                        f"{path}: the disk does not hold what was written ({damage}); {intact(path)}, have the disk"
                        " looked at"
                    )
        except (OSError, RuntimeError) as error:
            if interrupt := behind(error, KeyboardInterrupt):
                raise interrupt from None
            cause = behind(error, OSError)
            if cause is None:
                raise
            raise UserError(
                f"{path}: cannot be written ({cause.strerror}): {advice(cause, checkpoint, path)}"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read, always with ``weights_only=True``. Raises UserError for a file that is missing, damaged, foreign, old
        or does not fit.
        """
        checkpoint, here = read_checkpoint(path, map_location, f"{ADVICE}, `best` or `last`"), self.module.state_dict()
        rename_weights(checkpoint, list(here))
        written = checkpoint["vcgen"]
        if difference := mismatch(here, checkpoint["state_dict"]):
            found = [config_differences(written, self.model), difference]
            remedy = "take the config.yaml of its run, or train without --ckpt_path"
            raise UserError(f"{path}: does not fit this model: {'; weights: '.join(filter(None, found))}; {remedy}")
        if (form := checkpoint.get("format", 1)) != FORMAT:
            formats = f"checkpoint format {str(form)[:20]}, written by vcgen {str(written.get('version'))[:40]}"
            formats += f"; this one reads format {FORMAT}"
            advice = "go on with that version, or export the model and train on with --model.pretrained"
            raise UserError(one_line(f"{path}: {formats}: {advice}"))
        check(
            checkpoint.get("pytorch-lightning_version", "2.0"), LightningVersion, f"{path}, pytorch-lightning_version"
        )
        return checkpoint


def forget(descriptor: int) -> None:
    """Ask the system to drop its copy in memory of a file that has been flushed, so that reading it asks the disk."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def behind(error: BaseException | None, kind: type[E]) -> E | None:
    """The system's refusal, or Ctrl-C, behind an exception: torch's writer, when it is cut short, raises a RuntimeError
    of its own in its place.
    """
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def advice(cause: OSError, checkpoint: dict[str, Any], path: Path) -> str:
    """What to do when ``path`` could not be written, and nothing is left of the attempt."""
    if cause.errno not in FULL:
        return f"{intact(path)}; choose a writable trainer.default_root_dir"
    need, free = tensor_bytes(checkpoint) / 1e6, shutil.disk_usage(path.parent).free / 1e6
    return (
        f"it needs {need:.0f} MB beside the old one, {free:.0f} MB are free; {intact(path)}; make room and go on with"
        " --ckpt_path last"
    )


def intact(path: Path) -> str:
    """What is left of an earlier checkpoint of that name."""
    return f"the previous {path.name} is intact" if path.exists() else "no earlier one is there"


def config_differences(stored: dict[str, Any], current: dict[str, Any], limit: int = 6) -> str:
    """The keys in which two model configurations differ, with both values: "encoder.layers = 1, here 2"."""
    if not stored:
        return ""
    there, here = (flatten({"class_path": x["class_path"], **x["init_args"]}) for x in (stored, current))
    items = [f"{k} = {there.get(k)}, here {here.get(k)}" for k in {**here, **there} if there.get(k) != here.get(k)]
    return "; ".join(items[:limit]) + (f" (and {len(items) - limit} more)" if len(items) > limit else "")


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> one, with dotted keys as they are written on the command line (without "init_args")."""
    flat = {}
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else key
        flat.update(flatten(value, name) if isinstance(value, dict) and value else {name: value})
    return flat
