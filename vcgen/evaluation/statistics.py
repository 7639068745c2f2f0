"""Averages and intervals whose unit is the object, or the group of objects that share one model: views of an object are
one draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Bootstrap resamples and their seed: part of the definition of every interval that is printed.
RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True)
class Difference:
    """Method A minus method B on the same objects.

    mean: average difference. interval: its 95 % interval, None for fewer than two groups. improved: fraction of objects
        where A wins.
    """

    mean: float
    interval: tuple[float, float] | None
    improved: float


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean in float64, summed in the order given."""
    return float(np.asarray(values, dtype=np.float64).sum() / len(values))


def bootstrap_interval(
    values: Sequence[float], groups: Sequence[str], resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of per-object values, resampling whole groups with replacement (Field &
    Welsh 2007).

    values: one number per object. groups: one name per object; objects with one name are drawn together. The result
    depends on the values, the partition into groups and the seed, not on the order or the names of the objects. None
    for fewer than two groups."""
    clusters: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        clusters.setdefault(group, []).append(value)
    if len(clusters) < 2:
        return None
    sums, counts = np.array(
        sorted((sum(sorted(members)), len(members)) for members in clusters.values()), dtype=np.float64
    ).T
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], groups: Mapping[str, str], higher_is_better: bool = True
) -> Difference:
    """Compare two methods on the same objects. first, second, groups: object -> value, value, group. ValueError if
    objects differ.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise ValueError(
            f"a paired comparison needs the same objects in both; {len(odd)} differ, for instance {odd[0]}"
        )
    objects = sorted(first)
    differences = [first[name] - second[name] for name in objects]
    interval = bootstrap_interval(differences, [groups[name] for name in objects])
    wins = [float(difference > 0 if higher_is_better else difference < 0) for difference in differences]
    return Difference(mean(differences), interval, mean(wins))
