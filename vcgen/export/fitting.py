"""Whether weights fit a model, found out before the model takes memory: a configuration from a stranger may ask for any size."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vcgen.errors import UserError
from vcgen.io import printable

#: Some modules replace parameters while they are built.
SLACK = 1000


def misfit(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> str:
    """What keeps ``weights`` from loading strictly into the module that ``build`` makes, as :func:`mismatch`; "" when it fits.

    The module is built without memory for its weights, and no further than it can fit. "" also for modules that cannot be built so.
    """
    try:
        with torch.device("meta"), no_more_parameters_than(2 * len(weights) + SLACK):
            return mismatch(build().state_dict(), weights)
    except TooLarge as error:
        return str(error)
    except UserError as error:
        if isinstance(error.__cause__, RuntimeError):  # what is computed while it is built needs memory
            return ""
        raise


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


def mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps ``given`` from loading strictly into ``expected``, in a few words with the first names; "" when it fits."""
    both = [name for name in expected if name in given]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in both if given[name].shape != expected[name].shape
    ]
    kinds = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": shapes,
        "of another type": [name for name in both if given[name].is_floating_point() != expected[name].is_floating_point()],
    }
    return "; ".join(f"{len(names)} {kind} ({first_names(names)})" for kind, names in kinds.items() if names)


def first_names(names: list[str], count: int = 3) -> str:
    """The first few of a list of names, as messages show them."""
    return ", ".join(printable(name)[:100] for name in names[:count]) + (", ..." if len(names) > count else "")
