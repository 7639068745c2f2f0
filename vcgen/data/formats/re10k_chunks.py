"""pixelSplat's packing of RealEstate10K and its like: files of about 100 MB that ``torch.save`` wrote, each a list of
clips, beside ``index.json``, which says which clip is in which file.

A clip is a dictionary: ``key``, its name; ``cameras``, (N, 18) floats, the columns of a camera file after the
timestamp; ``timestamps``, (N,) integers; ``images``, N encoded images as uint8. They are pickles, and read as
checkpoints are: nothing but plain containers and tensors, each part compared with its checksum.
"""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from vcgen.archives import damaged_part, foreign_name
from vcgen.data.images.reading import MAX_BYTES
from vcgen.errors import UserError
from vcgen.io import read_json
from vcgen.terminal import first_few, one_line

if TYPE_CHECKING:
    import torch

INDEX = "index.json"
#: Bytes allowed in a chunk.
MAX_CHUNK = 4 << 30
#: What the pickle of a chunk may name.
NAMES = re.compile(
    r"collections OrderedDict|torch (Byte|Int|Long|Half|Float|Double)Storage|torch\._utils _rebuild_tensor_v2"
)
ADVICE = "get the chunk again, or make it with pixelSplat's convert.py"


def chunks_of(folder: Path) -> dict[str, Path]:
    """The chunk that each clip is in, in the index's order. Raises UserError for chunks that are missing, and for no
    clips.
    """
    writer = "pixelSplat's generate_index.py writes it"
    index = read_json(folder / INDEX, dict[str, str], writer)
    if not index:
        raise UserError(f"{folder / INDEX}: names no clips; {writer}")
    if strange := [name for name in index.values() if Path(name).name != name or not name.endswith(".torch")]:
        raise UserError(one_line(f"{folder / INDEX}: {strange[0]!r} is no name of a chunk beside it, as 000000.torch"))
    names = dict.fromkeys(index.values())
    if missing := [name for name in names if not (folder / name).is_file()]:
        listed = first_few(missing, 5)
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} chunks that {INDEX} names are missing: {listed}; get them, or"
            " take their clips out of it"
        )
    return {clip: folder / name for clip, name in index.items()}


def read_chunk(path: Path, clip: str) -> tuple[list[str], np.ndarray, list[bytes]]:
    """(names of the frames, their timestamps; cameras (N, 18) float64; encoded images) of a clip. Raises UserError for
    what is no chunk, and for a clip that it does not hold whole.
    """
    import torch

    example = next((part for part in _load(path, path.stat().st_size) if part.get("key") == clip), None)
    if example is None:
        raise UserError(one_line(f"{path}: has no clip {clip!r}, though {INDEX} says so", ADVICE))
    images, cameras, times = (example.get(name) for name in ("images", "cameras", "timestamps"))
    where = f"{path}, clip {clip}"
    if not isinstance(images, list) or not all(_is_plain(image, 1, torch.uint8) for image in images):
        raise UserError(one_line(f"{where}: images must be a list of encoded images, as uint8", ADVICE))
    if not _is_plain(cameras, 2) or cameras.shape != (len(images), 18):
        raise UserError(one_line(f"{where}: cameras must be {len(images)} x 18, as many as images", ADVICE))
    if not _is_plain(times, 1, torch.int64) or len(times) != len(images):
        raise UserError(one_line(f"{where}: timestamps must be {len(images)} whole numbers, as many as images", ADVICE))
    return [str(time) for time in times.tolist()], cameras.double().numpy(), [i.numpy().tobytes() for i in images]


@functools.lru_cache(maxsize=1)
def _load(path: Path, size: int) -> list[dict[Any, Any]]:
    """The chunk, kept until another is asked for: clips of one stand side by side. size: bytes, of the file that is
    kept.
    """
    import torch

    try:
        if size > MAX_CHUNK:
            raise ValueError(f"longer than {MAX_CHUNK >> 30} GB")
        if damage := damaged_part(path) or foreign_name(path, NAMES):
            raise ValueError(damage)
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
            raise ValueError("it is no list of clips")
    except Exception as error:  # a file that is no chunk can fail in any way
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise UserError(one_line(f"{path}: damaged, or no chunk of pixelSplat's ({reason})", ADVICE)) from error
    return content


def _is_plain(value: Any, dimensions: int, kind: "torch.dtype | None" = None) -> "TypeGuard[torch.Tensor]":
    """Whether a value is a tensor whose numbers lie in the file one by one. kind: of numbers; None for floats."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.dim() == dimensions
        and (value.dtype == kind if kind else value.is_floating_point())
        and value.is_contiguous()
        and value.numel() * value.element_size() <= MAX_BYTES
    )
