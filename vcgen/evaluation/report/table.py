"""The tables of a report as text: headings, numbers with their intervals, paired differences."""

from collections.abc import Sequence

from vcgen.evaluation.distances import Distance
from vcgen.evaluation.results import Results
from vcgen.metrics.base import Column
from vcgen.metrics.distribution import DISTANCES


def title(results: Results, metric: str) -> str:
    """The heading of a column, with an arrow towards better."""
    column = results.column(metric)
    name = metric.replace("lpips_", "LPIPS-") if metric.startswith("lpips_") else column.title
    return f"{name} {'↑' if column.higher_is_better else '↓'}"


def number(column: Column, value: float, signed: bool = False) -> str:
    """A value as it is printed."""
    return f"{value:{'+' if signed else ''}.{column.decimals}f}"


def with_interval(column: Column, value: float, interval: Sequence[float] | None, signed: bool = False) -> str:
    """``24.53 [24.10, 24.96]``, or the value alone where there is no interval."""
    printed = number(column, value, signed)
    return printed if interval is None else f"{printed} [{', '.join(number(column, end, signed) for end in interval)}]"


def rows(results: Results) -> list[list[str]]:
    """The main table as text: a heading row, this model, then every method it is compared with."""
    table = [["method", *(title(results, metric) for metric in results.metrics)]]
    table.append(
        [
            results.name,
            *(with_interval(results.column(m), results.mean[m], results.interval95[m]) for m in results.metrics),
        ]
    )
    for name, other in results.baselines.items():
        cells = [
            with_interval(results.column(m), other["mean"][m], other["interval95"][m]) if m in other["mean"] else "–"
            for m in results.metrics
        ]
        table.append([name, *cells])
    return table


def difference_rows(results: Results) -> list[list[str]]:
    """Paired differences as text: a heading row, then one row per method compared with; empty if there is none."""
    if not results.baselines:
        return []
    table = [[f"{results.name} minus", *(title(results, metric) for metric in results.metrics)]]
    for name, other in results.baselines.items():
        cells = []
        for metric in results.metrics:
            entry = other["difference"].get(metric)
            text = (
                "–"
                if entry is None
                else with_interval(results.column(metric), entry["mean"], entry["interval"], signed=True)
            )
            cells.append(text if entry is None else f"{text}; better on {entry['improved']:.0%}")
        table.append([name, *cells])
    return table


def distance_rows(results: Results) -> list[list[str]]:
    """Distances of all images together as text: a heading row, then one each; empty if there is none."""
    if not results.distances:
        return []
    table = [["all images together", "↓", "predicted", "true"]]
    for name, distance in results.distances.items():
        table.append(
            [distance_title(name), distance_number(name, distance), str(distance.predicted), str(distance.true)]
        )
    return table


def distance_title(name: str) -> str:
    """``FID-inception``."""
    return DISTANCES[name].title if name in DISTANCES else name


def distance_number(name: str, distance: Distance) -> str:
    """A distance as it is printed."""
    return f"{distance.value:.{DISTANCES[name].decimals if name in DISTANCES else 4}f}"
