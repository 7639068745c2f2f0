"""Reading checkpoints: the one reader for going on with a run and for exporting it. Nothing is unpickled, and nothing
damaged is used.

A checkpoint is the zip archive that ``torch.save`` writes: a pickle that names plain containers and tensors, and the
tensors' bytes, stored as they are. Every part has a checksum, which ``torch.load`` does not look at."""

import re
from collections import deque
from pathlib import Path
from typing import Any

import torch

from vcgen.archives import damaged_part, foreign_name
from vcgen.errors import UserError
from vcgen.io import levels
from vcgen.terminal import one_line

#: What the pickle of a checkpoint may name: torch's reader knows more, some of which takes as much memory as the file
#: asks for.
NAMES = re.compile(
    r"collections (OrderedDict|defaultdict|Counter)|torch (\w+Storage|Size|device|b?float\d+|u?int\d+|bool)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)|torch\.serialization"
    r" _get_layout"
)
#: Values at one depth of what the model was built from.
MOST_VALUES = 100_000
#: Bytes of buffers that repeat a value, which takes no room in the file.
SMALL = 64 << 20
#: What torch.compile puts into the names of a module's weights.
COMPILED = "_orig_mod."
ADVICE = "give a .ckpt file that `vcgen fit` wrote"


def read_checkpoint(path: Path | str, map_location: Any = "cpu", advice: str = ADVICE) -> dict[str, Any]:
    """The content of a checkpoint: ``state_dict``, weights by name; ``vcgen``, what the model was built from; and what
    Lightning adds. advice: what to do where no file is.

    Raises UserError in one line for a file that is missing, damaged anywhere that matters, padded, compressed, or no
    checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise UserError(one_line(f"{path}: {'is a folder' if path.is_dir() else 'no such checkpoint'}", advice))
    try:
        kinds = torch.serialization.get_safe_globals()
        safe = {f"{getattr(kind, '__module__', '')} {getattr(kind, '__qualname__', '')}" for kind in kinds}
        if damage := damaged_part(path) or foreign_name(path, NAMES, safe):
            raise ValueError(damage)
        content = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        weights, entry = content["state_dict"], content["vcgen"]
        if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()):
            raise ValueError("its state_dict holds other things than weights")
        if not isinstance(content.get("callbacks", {}), dict) or not isinstance(entry, dict):
            raise ValueError("its vcgen or callbacks entry is no table")
        deque(levels(entry, MOST_VALUES), maxlen=0)
        # weights that are tied count under each of their names
        if tensor_bytes(content) > 4 * path.stat().st_size + SMALL:
            raise ValueError("its tensors are larger than the file")
    except Exception as error:  # a file that is no checkpoint can fail in any way
        reason = (
            str(error)
            if isinstance(error, ValueError)
            else f"no {error}"
            if isinstance(error, KeyError)
            else type(error).__name__
        )
        raise UserError(one_line(f"{path}: damaged or not a checkpoint ({reason})", ADVICE)) from error
    return content


def tensor_bytes(value: Any) -> int:
    """The size of all tensors in nested containers: that of a checkpoint, nearly."""
    return sum(item.numel() * item.element_size() for level in levels(value) for item in level if torch.is_tensor(item))


def plain_name(name: str) -> str:
    """The name of a weight without what ``torch.compile`` puts into it."""
    return name.replace(COMPILED, "")


def rename_weights(checkpoint: dict[str, Any], expected: "list[str]") -> None:
    """Give weights and averages of a checkpoint, in place, the names that a module expects: either may have been
    compiled, or not.

    Raises UserError where two weights get one name.
    """
    names = {plain_name(name): name for name in expected}
    tables = [checkpoint, checkpoint.get("callbacks", {}).get("EMA")]
    for table, key in zip(tables, ("state_dict", "weights"), strict=True):
        if isinstance(table, dict) and isinstance(table.get(key), dict):
            renamed = {names.get(plain_name(name), plain_name(name)): value for name, value in table[key].items()}
            if len(renamed) != len(table[key]):
                raise UserError("the checkpoint holds weights of a compiled module and the same ones of a plain module")
            table[key] = renamed
