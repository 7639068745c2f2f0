"""From per-image records to the numbers that are printed, and the file that keeps both."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vcgen.data.shards import write_atomically
from vcgen.errors import UserError
from vcgen.evaluation.metrics import DEFINITIONS, HIGHER_IS_BETTER, PSNR_CAP, family
from vcgen.evaluation.protocol import Protocol
from vcgen.evaluation.records import ObjectScore
from vcgen.evaluation.statistics import RESAMPLES, SEED, bootstrap_interval, mean, paired_difference

RESULTS = "results.json"


@dataclass(frozen=True)
class Results:
    """Everything ``results.json`` holds.

    name: the model. mean, interval95: metric -> mean over objects, and its bootstrap interval (None for fewer than two groups).
    objects: per object its name, group, number of views and metric means. images: per image its object, group, view, view_name, metrics.
    counts: objects, groups, images, and psnr_capped, the number of identical images. missing: metric -> why it could not be computed.
    skipped: object -> why it could not be read and is in no number (``--on_error skip``).
    protocol, definitions, versions, hashes, run (command, time, hardware), model (its config.json): provenance.
    baselines: name -> mean, interval95, and this model's paired difference to it by metric.
    """

    name: str
    mean: dict[str, float]
    interval95: dict[str, tuple[float, float] | None]
    counts: dict[str, int]
    protocol: dict[str, Any]
    definitions: dict[str, str]
    versions: dict[str, str]
    hashes: dict[str, str]
    run: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    objects: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """Column names in the order they are printed."""
        return list(self.mean)

    def ranked(self) -> list[dict[str, Any]]:
        """The objects from best to worst mean PSNR; ties by name."""
        return sorted(self.objects, key=lambda entry: (-entry["psnr"], entry["object"]))

    def save(self, folder: Path) -> None:
        """Write ``results.json``, atomically."""
        write_atomically(folder / RESULTS, (json.dumps(asdict(self), indent=1, allow_nan=False) + "\n").encode())


def load_results(folder: Path | str) -> Results:
    """Read the ``results.json`` of an evaluation folder. Raises UserError if there is none or it is not ours."""
    path = Path(folder) / RESULTS
    if not path.is_file():
        raise UserError(f"{folder}: no {RESULTS} here; give the --out folder of a finished vcgen evaluate")
    try:
        return Results(**json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not a result of this version ({error}); evaluate again") from error


def collect(name: str, scores: Sequence[ObjectScore], protocol: Protocol, **provenance: Any) -> Results:
    """Average records: mean over an object's views, then over objects, in the order of (object, view), in float64.

    provenance: the fields of :class:`Results` that do not follow from the scores (versions, hashes, run, missing, skipped, model).
    """
    scores = sorted(scores, key=lambda score: score.object)
    metrics = list(scores[0].images[0].metrics)
    objects, images = [], []
    for score in scores:
        where = {"object": score.object, "group": score.group}
        ordered = sorted(score.images, key=lambda image: image.view)
        images += [where | {"view": image.view, "view_name": image.name} | image.metrics for image in ordered]
        means = {metric: mean([image.metrics[metric] for image in ordered]) for metric in metrics}
        objects.append(where | {"views": len(ordered)} | means)
    groups = [entry["group"] for entry in objects]
    columns = {metric: [entry[metric] for entry in objects] for metric in metrics}
    return Results(
        name=name,
        mean={metric: mean(values) for metric, values in columns.items()},
        interval95={metric: bootstrap_interval(values, groups) for metric, values in columns.items()},
        counts={
            "objects": len(objects),
            "groups": len(set(groups)),
            "images": len(images),
            "psnr_capped": sum(image["psnr"] >= PSNR_CAP for image in images),
        },
        protocol=asdict(protocol),
        definitions=definitions(metrics),
        objects=objects,
        images=images,
        **provenance,
    )


def definitions(metrics: Sequence[str]) -> dict[str, str]:
    """What each column means, and how averages and intervals are formed."""
    return {metric: DEFINITIONS[family(metric)] for metric in metrics} | {
        "pixels": "renderings are clamped to [0, 1] and rounded to 8 bit, as are the true pictures",
        "mean": "over an object's predicted views, then over objects",
        "interval95": f"percentile bootstrap over groups of objects that share a model, {RESAMPLES} resamples, seed {SEED}",
        "psnr_cap": f"identical pictures count as {PSNR_CAP:g} dB; counts.psnr_capped says how many there are",
    }


def compare(results: Results, others: Sequence[Results]) -> dict[str, dict[str, Any]]:
    """The ``baselines`` entry: other methods' means beside this one's paired differences (this minus other, same objects and views).

    Raises UserError when another method was scored under another protocol or on other data.
    """
    groups = {entry["object"]: entry["group"] for entry in results.objects}
    table = {}
    for other in others:
        for item in ("protocol", "data"):
            if other.hashes[item] != results.hashes[item]:
                raise UserError(f"{other.name}: used another {item} than {results.name}, so they cannot be compared; score it again")
        if _column(other, "psnr").keys() != groups.keys():
            raise UserError(f"{other.name}: scored other objects than {results.name}; score both with the same --on_error to compare them")
        shared = [metric for metric in results.metrics if metric in other.mean]
        differences = {
            metric: asdict(
                paired_difference(_column(results, metric), _column(other, metric), groups, HIGHER_IS_BETTER[family(metric)])
            )
            for metric in shared
        }
        table[other.name] = {"mean": other.mean, "interval95": other.interval95, "difference": differences}
    return table


def _column(results: Results, metric: str) -> Mapping[str, float]:
    return {entry["object"]: entry[metric] for entry in results.objects}
