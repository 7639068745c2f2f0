"""The metrics of this package that a protocol or ``--metrics`` adds to the default columns, by name."""

from collections.abc import Sequence
from typing import get_args

import torch

from vcgen import plugins
from vcgen.errors import UserError, suggestion
from vcgen.metrics.base import Metric
from vcgen.metrics.distribution import DISTANCES
from vcgen.metrics.dists import load_dists
from vcgen.metrics.image import DEFAULT, FURTHER
from vcgen.metrics.lpips import Network, load_lpips

#: Those of networks, whose weights have to be found.
LEARNED = ("dists", *(f"lpips_{network}" for network in get_args(Network)))
#: All names that mean a column, or a distance of all images together.
NAMES = (*(metric.name for metric in DEFAULT), *FURTHER, *LEARNED, *DISTANCES)


def further(names: Sequence[str]) -> list[str]:
    """Those of ``names`` that are not among the default columns anyway, each once."""
    return list(dict.fromkeys(name for name in names if name not in {metric.name for metric in DEFAULT}))


def by_name(chosen: Sequence[str] | None) -> tuple[tuple[Metric, ...], tuple[str, ...]]:
    """The words of ``--metrics``: the metrics of the user's own, and the words that are in :data:`NAMES`. Raises
    UserError for what is neither.
    """
    known = [*NAMES, *plugins.names("vcgen.metrics")]
    for name in chosen or ():
        if "." not in name and name not in known:
            near = suggestion(name.lower(), known)
            raise UserError(f"there is no metric {name!r}{near}; the metrics are {', '.join(known)}")
    others = (plugins.find(Metric, name, "vcgen.metrics") for name in chosen or () if name not in NAMES)
    return tuple(others), tuple(name for name in chosen or () if name in NAMES)


def load(name: str, device: torch.device | str = "cpu", offline: bool = False) -> Metric:
    """The metric of a name, of those in :data:`NAMES` that are a column and no default. Raises UserError, in one line
    that says what to put where, for one whose weights are missing.
    """
    if name in FURTHER:
        return FURTHER[name]
    if name == "dists":
        return load_dists(device, offline)
    network: Network = name.removeprefix("lpips_")  # type: ignore[assignment]  # NAMES has no others
    return load_lpips(network, device, offline)
