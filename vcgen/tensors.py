"""Files of tensors (safetensors): written with a checksum of what they hold, read within bounds and only when every
value is a number; and whether they fit a module, found out before it takes memory: a file may describe one of any size.
"""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from vcgen.errors import UserError
from vcgen.io import open_regular
from vcgen.terminal import first_few, one_line, printable

#: The entry of a file's metadata that holds the checksum.
CHECKSUM = "vcgen_sha256"
#: Bytes of names, shapes and metadata, which a reader holds in memory several times over.
MAX_HEADER = 16 << 20
MAX_BYTES = 1 << 42
#: Some modules replace parameters while they are built.
SLACK = 1000
DAMAGED = "it is damaged or no safetensors file: copy it again, or make it again"


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a file that :func:`read_tensors` and every other reader of safetensors reads; its bytes depend on the
    tensors alone.
    """
    # Tied parameters share memory, which safetensors refuses: every name gets its own copy.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = memoryview(save(own))
    end = 8 + int.from_bytes(data[:8], "little")
    # The library writes metadata in an order that changes from run to run. Readers of the Hugging Face kind want
    # "format".
    noted = {"__metadata__": {"format": "pt", CHECKSUM: checksum(own)}, **json.loads(bytes(data[8:end]))}
    header = json.dumps(noted, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    # Opened here: the library's own save_file would keep the file from other users, whatever the umask.
    with open(path, "wb") as file:
        file.writelines([len(header).to_bytes(8, "little"), header, data[end:]])


def read_tensors(path: Path | str, advice: str = DAMAGED) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU.

    Raises UserError for a file that is missing, damaged (files that vcgen wrote hold a checksum), none of safetensors,
    or that holds NaN or infinity. advice: what to do, the end of that line.
    """
    with open_regular(path, MAX_BYTES, advice) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise UserError(one_line(f"{path}: its header has {length} bytes, more than {MAX_HEADER}", advice))
    try:
        with safe_open(path, "pt") as file:
            noted = (file.metadata() or {}).get(CHECKSUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safetensors: no iterator)
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(one_line(f"{path}: not safetensors ({error})", advice)) from error
    if noted is not None and noted != checksum(tensors):
        raise UserError(one_line(f"{path}: does not hold what was written (its checksum differs)", advice))
    if odd := [name for name, tensor in tensors.items() if not all_finite(tensor)]:
        raise UserError(one_line(f"{path}: {odd[0]} holds NaN or infinity", advice))
    return tensors


def sum_of(parts: Iterable[Tensor]) -> Tensor:
    """Their sum, of one at least."""
    return functools.reduce(torch.add, parts)


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def require(holds: Tensor, message: str, found: Callable[[], str] = str) -> None:
    """Raise ValueError, with what was ``found``, unless a bool tensor () is true. On CUDA the GPU itself asserts it,
    because looking at the value here would wait for all that it has to do: the process then ends with a device-side
    assertion at a later call.
    """
    if holds.is_cuda:
        torch._assert_async(holds, message)
    elif not holds:
        raise ValueError(message + found())


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, kinds, shapes and values of tensors on the CPU."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()


class TensorsWithin(TorchDispatchMode):
    """Tensors that are made inside raise TooLarge, before they take memory, when they have more than ``limit``
    elements.
    """

    def __init__(self, limit: int):
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's
        self.limit = limit

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        size = (
            args[0] if args and isinstance(args[0], (list, tuple)) and all(isinstance(n, int) for n in args[0]) else ()
        )
        if math.prod(size) > self.limit:
            raise TooLarge(f"it asks for a tensor of {math.prod(size):.3g} elements")
        return func(*args, **(kwargs or {}))


class TooLarge(UserError):
    """The module has more parameters than there are weights."""


@contextmanager
def no_more_parameters_than(count: int) -> Iterator[None]:
    """Modules that are built inside raise TooLarge when they come to have more parameters."""
    left = count

    def register(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooLarge(f"it has more than {count} parameters")

    handle = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()


def misfit(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> str:
    """What keeps ``weights`` from loading strictly into the module that ``build`` makes, as :func:`mismatch`; "" when
    it fits.

    The module is built without memory for its weights, and no further than it can fit. "" also for modules that cannot
    be built so."""
    try:
        with torch.device("meta"), no_more_parameters_than(2 * len(weights) + SLACK):
            return mismatch(build().state_dict(), weights)
    except TooLarge as error:
        return str(error)
    except Exception:
        # of a class that needs values while it is built, or a fault that building it in earnest will find, too
        return ""


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What keeps ``found`` from loading strictly into ``expected``, in a few words with the first names; "" when it
    fits.
    """
    both = [name for name in expected if name in found]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in both
        if found[name].shape != expected[name].shape
    ]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": shapes,
        "of another type": [
            name for name in both if found[name].is_floating_point() != expected[name].is_floating_point()
        ],
    }
    return "; ".join(f"{len(names)} {kind} ({first_names(names)})" for kind, names in kinds.items() if names)


def first_names(names: list[str], count: int = 3) -> str:
    """The first few of a list of names, as messages show them."""
    return first_few([printable(name)[:100] for name in names], count)
