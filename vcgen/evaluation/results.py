"""From per-image records to the numbers that are printed, and the file that keeps both."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msgspec import Struct, structs, to_builtins

from vcgen.errors import UserError
from vcgen.evaluation.distances import Distance
from vcgen.evaluation.pixels import rules
from vcgen.evaluation.protocol import Protocol
from vcgen.evaluation.records import ObjectScore
from vcgen.evaluation.statistics import RESAMPLES, SEED, bootstrap_interval, mean, paired_difference
from vcgen.io import check, read_json, write_bytes
from vcgen.metrics.base import PSNR_CAP, Column
from vcgen.metrics.image import check_values, column
from vcgen.schema import Count, Finite, Name, Text
from vcgen.terminal import one_line, printable

RESULTS = "results.json"
#: Ten million images take a gigabyte.
MAX_BYTES = 1 << 30
ADVICE = "not a result of this version: evaluate again"
#: What an image or an object of results.json is, beside its metrics.
Row = dict[str, Any]
PLACE = ("object", "group", "view", "view_name")


class Results(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything ``results.json`` holds.

    name: the model. mean, interval95: metric -> mean over objects, and its bootstrap interval (None for fewer than two
        groups).
    objects: per object its name, group, number of views and metric means. images: per image its object, group, view,
        view_name, metrics.
    counts: objects, groups, images, and psnr_capped, the number of identical images. missing: metric -> why it could
        not be computed.
    skipped: object -> why it could not be read and is in no number (``--on_error skip``).
    protocol, definitions, versions, hashes, run (command, time, hardware), model (its config.json): provenance.
    columns: of metrics that are not of this package, by name. distances: of all images together (FID, KID), by name.
    baselines: name -> mean, interval95, and this model's paired difference to it by metric.
    """

    name: Name
    mean: dict[str, Finite]
    interval95: dict[str, tuple[Finite, Finite] | None]
    counts: dict[str, Count]
    protocol: dict[str, Any]
    definitions: dict[str, Text]
    versions: dict[str, Name]
    hashes: dict[str, Text]
    run: dict[str, Any]
    missing: dict[str, Text] = {}
    skipped: dict[str, Text] = {}
    baselines: dict[str, dict[str, Any]] = {}
    model: dict[str, Any] = {}
    objects: list[Row] = []
    images: list[Row] = []
    columns: dict[str, Column] = {}
    distances: dict[str, Distance] = {}

    @property
    def metrics(self) -> list[str]:
        """Column names in the order they are printed."""
        return list(self.mean)

    def column(self, metric: str) -> Column:
        """What a column means."""
        return column(metric, self.columns)

    def ranked(self) -> list[dict[str, Any]]:
        """The objects from best to worst mean PSNR; ties by name."""
        return sorted(self.objects, key=lambda entry: (-entry["psnr"], entry["object"]))

    def save(self, folder: Path) -> None:
        """Write ``results.json``, atomically."""
        write_bytes(folder / RESULTS, (json.dumps(to_builtins(self), indent=1, allow_nan=False) + "\n").encode())


def load_results(folder: Path | str) -> Results:
    """Read the ``results.json`` of an evaluation folder. Raises UserError if there is none, it is not ours, or its
    means are not those of its images."""
    path = Path(folder) / RESULTS
    if not path.is_file():
        raise UserError(f"{folder}: no {RESULTS} here; give the --out folder of a finished vcgen evaluate")
    results = read_json(path, Results, ADVICE, MAX_BYTES)
    means, intervals = average(_scores(results.images, path)), results.interval95
    wrong = [name for name, value in means.items() if not _close(value, getattr(results, name))]
    if intervals.keys() != results.mean.keys() or any(ends and ends[0] > ends[1] for ends in intervals.values()):
        wrong.append("interval95")
    if not {"protocol", "data"} <= results.hashes.keys():
        wrong.append("hashes")
    if wrong:
        raise UserError(one_line(f"{path}: {' and '.join(wrong)} cannot be those of its images", ADVICE))
    try:
        for row in results.images:
            check_values({name: row[name] for name in results.mean}, results.columns)
    except ValueError as error:
        raise UserError(one_line(f"{path}: {error}", ADVICE)) from error
    return results


def _scores(images: Sequence[Row], path: Path) -> list[ObjectScore]:
    """The records that results were collected from, but for their times. Raises UserError for what is no image."""
    objects: dict[Any, dict[str, Any]] = {}
    for row in images:
        place = [row.get(name) for name in PLACE]
        score = objects.setdefault(place[0], {"object": place[0], "group": place[1], "seconds": 1.0, "images": []})
        metrics = {name: value for name, value in row.items() if name not in PLACE}
        score["images"].append({"view": place[2], "name": place[3], "metrics": metrics})
    columns = {frozenset(row.keys() - {*PLACE}) for row in images}
    if len(columns) != 1 or "psnr" not in columns.pop():
        raise UserError(f"{path}: holds no image, or images that differ in their metrics or have no psnr; {ADVICE}")
    return check(list(objects.values()), list[ObjectScore], f"{path}, images", ADVICE)


def _close(first: Any, second: Any) -> bool:
    """Equal up to rounding, which differs between machines."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_close(first[name], second[name]) for name in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_close, first, second))
    numbers = all(isinstance(value, int | float) for value in (first, second))
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-9) if numbers else first == second


def average(scores: Sequence[ObjectScore]) -> dict[str, Any]:
    """The fields of :class:`Results` that follow from the scores alone: mean, counts, objects, images, in the order of
    (object, view).
    """
    metrics = list(scores[0].images[0].metrics)
    objects: list[Row] = []
    images: list[Row] = []
    for score in sorted(scores, key=lambda score: score.object):
        where: Row = {"object": score.object, "group": score.group}
        ordered = sorted(score.images, key=lambda image: image.view)
        images += [where | {"view": image.view, "view_name": image.name} | image.metrics for image in ordered]
        means = {metric: mean([image.metrics[metric] for image in ordered]) for metric in metrics}
        objects.append(where | {"views": len(ordered)} | means)
    counts = {
        "objects": len(objects),
        "groups": len({entry["group"] for entry in objects}),
        "images": len(images),
        "psnr_capped": sum(image["psnr"] >= PSNR_CAP for image in images),
    }
    columns = {metric: mean([entry[metric] for entry in objects]) for metric in metrics}
    return {"mean": columns, "counts": counts, "objects": objects, "images": images}


def collect(
    name: str, scores: Sequence[ObjectScore], protocol: Protocol, columns: Mapping[str, Column] = {}, **provenance: Any
) -> Results:
    """Average records: mean over an object's views, then over objects, in the order of (object, view), in float64.

    provenance: the fields of :class:`Results` that do not follow from the scores (versions, hashes, run, missing,
        skipped, model).
    """
    averages = average(scores)
    objects = averages["objects"]
    groups = [entry["group"] for entry in objects]
    intervals = {
        metric: bootstrap_interval([entry[metric] for entry in objects], groups) for metric in averages["mean"]
    }
    return Results(
        name=name,
        **averages,
        interval95=intervals,
        protocol=protocol.record(),
        definitions=definitions(list(intervals), columns) | rules(protocol),
        columns=dict(columns),
        **provenance,
    )


def definitions(metrics: Sequence[str], columns: Mapping[str, Column] = {}) -> dict[str, str]:
    """What each column means, and how averages and intervals are formed."""
    return {metric: column(metric, columns).definition for metric in metrics} | {
        "pixels": "renderings are clamped to [0, 1] and rounded to 8 bit, as are the true images",
        "mean": "over an object's predicted views, then over objects",
        "interval95": (
            f"percentile bootstrap over groups of objects that share a model, {RESAMPLES} resamples, seed {SEED}"
        ),
        "psnr_cap": f"identical images count as {PSNR_CAP:g} dB; counts.psnr_capped says how many there are",
    }


def compare(results: Results, others: Sequence[Results]) -> dict[str, dict[str, Any]]:
    """The ``baselines`` entry: other methods' means beside this one's paired differences (this minus other, same
    objects and views).

    Raises UserError when another method was scored under another protocol or on other data, and for two of one name.
    """
    names = [other.name for other in others]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two of the results to compare with are named {twice[0]}; rows need names of their own")
    groups = {entry["object"]: entry["group"] for entry in results.objects}
    table = {}
    for other in others:
        for item in ("protocol", "data"):
            if other.hashes[item] != results.hashes[item]:
                raise UserError(
                    f"{other.name}: used another {item} than {results.name}, so they cannot be compared; score it again"
                )
        if _column(other, "psnr").keys() != groups.keys():
            raise UserError(
                f"{other.name}: scored other objects than {results.name}; score both with the same --on_error to"
                " compare them"
            )
        shared = [metric for metric in results.metrics if metric in other.mean]
        differences = {
            metric: asdict(
                paired_difference(
                    _column(results, metric), _column(other, metric), groups, results.column(metric).higher_is_better
                )
            )
            for metric in shared
        }
        table[other.name] = {"mean": other.mean, "interval95": other.interval95, "difference": differences}
    return table


def told_apart(found: Mapping[str, Results], taken: Sequence[str]) -> list[Results]:
    """Results by their folders; a name that several have, or that is ``taken``, is followed by the folder: most models
    lie in a folder called ``model``.
    """
    names = [*taken, *(results.name for results in found.values())]
    return [
        results if names.count(results.name) == 1 else structs.replace(results, name=_in_folder(results.name, folder))
        for folder, results in found.items()
    ]


def _in_folder(name: str, folder: str) -> str:
    return f"{name} ({printable(folder)[-120:]})"[-200:]


def _column(results: Results, metric: str) -> Mapping[str, float]:
    return {entry["object"]: entry[metric] for entry in results.objects}
