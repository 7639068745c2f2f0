"""Whether weights fit a model, found out before the model takes memory: a configuration from a stranger may ask for any
size.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from vcgen.tensors import TooLarge, no_more_parameters_than
from vcgen.terminal import printable

#: Some modules replace parameters while they are built.
SLACK = 1000


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
    except (
        Exception
    ):  # of a class that needs values while it is built, or a fault that building it in earnest will find, too
        return ""


def mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps ``given`` from loading strictly into ``expected``, in a few words with the first names; "" when it
    fits.
    """
    both = [name for name in expected if name in given]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in both
        if given[name].shape != expected[name].shape
    ]
    kinds = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": shapes,
        "of another type": [
            name for name in both if given[name].is_floating_point() != expected[name].is_floating_point()
        ],
    }
    return "; ".join(f"{len(names)} {kind} ({first_names(names)})" for kind, names in kinds.items() if names)


def first_names(names: list[str], count: int = 3) -> str:
    """The first few of a list of names, as messages show them."""
    return ", ".join(printable(name)[:100] for name in names[:count]) + (", ..." if len(names) > count else "")
