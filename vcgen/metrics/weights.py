"""Files of public weights: looked for in known places, verified by the digits in their names, downloaded with a line
that says so. docs/evaluation.md has the order."""

import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vcgen.archives import damaged_part
from vcgen.errors import UserError
from vcgen.io import file_sha256
from vcgen.tensors import all_finite
from vcgen.terminal import one_line, printable


@dataclass(frozen=True)
class Source:
    """Where weights come from. weights: torchvision's enumeration, or an address; published: the file's name there,
    with the first digits of its SHA-256; features: ours, for the convolutional part alone (keys ``features.N...``), ""
    for none. whose: who publishes it.
    """

    weights: str
    published: str
    features: str = ""
    whose: str = "torchvision's"


def weights_folder() -> Path:
    """The documented folder for weights: ``$VCGEN_WEIGHTS``, else ``~/.cache/vcgen/weights``. It need not exist."""
    return Path(os.environ.get("VCGEN_WEIGHTS") or Path.home() / ".cache" / "vcgen" / "weights").expanduser()


def find(source: Source, what: str, offline: bool = False) -> Path:
    """The file: in the folder for weights, in torch's cache, or downloaded into that, unless ``offline`` or
    VCGEN_OFFLINE=1 forbids it. what: the metric that needs it, for the message.

    Raises UserError, in one line that says what to put where, if there is none, or if a file's hash contradicts its
    name.
    """
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for folder in (weights_folder(), cache):
        for name in filter(None, (source.published, source.features)):
            if (folder / name).is_file():
                return _verified(folder / name, source)
    if offline or os.environ.get("VCGEN_OFFLINE", "") not in ("", "0"):
        raise UserError(_missing(source, what, "downloads are switched off"))
    try:
        return _download(source, cache)
    except (OSError, RuntimeError) as error:
        raise UserError(_missing(source, what, f"the download failed ({first_line(error)})")) from error


def fill(network: nn.Module, path: Path, stored_as: Callable[[str], str] = str) -> None:
    """Load a file that has all of a network's weights, and perhaps others. stored_as: a weight's name -> that in the
    file. Raises UserError where one is missing, of another shape or not finite, and for a damaged file.
    """
    try:
        if zipfile.is_zipfile(path) and (damage := damaged_part(path)):
            raise ValueError(damage)
        stored = torch.load(path, map_location="cpu", weights_only=True)
        names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
        network.load_state_dict({name: stored[stored_as(name)] for name in names}, strict=False)
        if odd := [name for name in names if not all_finite(stored[stored_as(name)])]:
            raise ValueError(f"{odd[0]} holds NaN or infinity")
    except Exception as error:  # a file of another kind can fail in any way
        raise UserError(
            one_line(f"{path}: not the weights of this network ({first_line(error)})", "replace the file")
        ) from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _missing(source: Source, what: str, reason: str) -> str:
    other = f"(or {source.features}) " if source.features else ""
    return (
        f"no weights for {what}: {reason}; put {source.whose} {source.published} {other}into {weights_folder()}, or set"
        " VCGEN_WEIGHTS to the folder that holds it"
    )


def _verified(path: Path, source: Source) -> Path:
    digits = source.published.removesuffix(".pth").rsplit("-", 1)[1]
    if path.name == source.published and not file_sha256(path).startswith(digits):
        raise UserError(
            f"{path}: SHA-256 does not begin with {digits}, so the file is damaged; delete it and run again"
        )
    return path


def _download(source: Source, cache: Path) -> Path:
    import torchvision.models

    ours = source.weights.startswith("https://")
    url = source.weights if ours else getattr(torchvision.models, source.weights).IMAGENET1K_V1.url
    print(printable(f"downloading {url} into {cache}"), file=sys.stderr)
    torch.hub.load_state_dict_from_url(url, str(cache), map_location="cpu", check_hash=True, weights_only=True)
    return cache / source.published
