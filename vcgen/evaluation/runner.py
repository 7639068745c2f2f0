"""Score a system object by object: render the target views of a protocol, compare, keep every number, write the
report.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol as TypingProtocol

import torch
from msgspec import structs
from torch import Tensor

from vcgen import provenance
from vcgen.cameras import Cameras
from vcgen.data.shards.faults import faults_among
from vcgen.data.shards.files import INDEX, ShardIndex, read_index
from vcgen.data.shards.record import SceneRecord
from vcgen.data.views import scene_views
from vcgen.errors import UserError
from vcgen.evaluation.distances import Networks, distances, joined
from vcgen.evaluation.pixels import by_alpha_rule, compared
from vcgen.evaluation.protocol import Protocol
from vcgen.evaluation.records import Fingerprint, ImageScore, ObjectScore, RecordFolder
from vcgen.evaluation.results import Results, collect, compare
from vcgen.evaluation.scope import scored, tasks_of
from vcgen.evaluation.selection import Task
from vcgen.evaluation.sharing import merged, note_count, objects_of
from vcgen.io import file_sha256
from vcgen.metrics.base import Metric
from vcgen.metrics.distribution import DISTANCES
from vcgen.metrics.image import Metrics
from vcgen.metrics.lpips import Network
from vcgen.metrics.named import further, load
from vcgen.terminal import complain, printable
from vcgen.types import Behind, Rendering, Views


class Renderer(TypingProtocol):
    """The part of a system's contract that evaluation uses; see vcgen.types for the shapes."""

    def field(self, context: Views) -> Any:
        """(batch, n) input views -> the field of each scene."""

    def render(self, field: Any, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """The fields seen from (batch, V) cameras at size (height, width)."""


@dataclass(frozen=True)
class Origin:
    """What is being scored. name: the label of its row. hashes: of its files (or any text that changes when the
    predictor does), by what they are. config: its config.json, copied into the results."""

    name: str
    hashes: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How to score; none of it changes what the numbers mean.

    lpips: networks to add LPIPS columns for. offline: never download weights. device: where to render. views_per_call:
    views rendered together, which bounds memory. shard: (i, n) scores every n-th object from the i-th on, 0-based, and
    leaves the report to a later merge. overwrite: replace older results. merge: score nothing, report what all shards
    have scored.
    on_error: "stop" at an object that cannot be read, or "skip" it, which changes the mean: the report then names it.
    further: metrics of the user's own. named: further columns of vcgen's by name, beside those of the protocol.
    """

    lpips: tuple[Network, ...] = ("vgg",)
    offline: bool = False
    device: str = "cpu"
    views_per_call: int = 8
    shard: tuple[int, int] = (0, 1)
    overwrite: bool = False
    merge: bool = False
    on_error: Literal["stop", "skip"] = "stop"
    further: tuple[Metric, ...] = ()
    named: tuple[str, ...] = ()


def evaluate_system(
    system: Renderer,
    data: Path,
    protocol: Protocol,
    out: Path,
    origin: Origin,
    settings: Settings = Settings(),
    others: Sequence[Results] = (),
    told: Collection[str] = (),
) -> Results | None:
    """Score ``system`` on a shard folder and write results.json, report.md and report.html into ``out``.

    Objects already scored in ``out`` by the same model, protocol, data and metrics are not rendered again. others:
    results of methods to compare with, on the same objects. told: why metrics are missing, where that has been said
    before. Returns None after scoring one of several shards (see
    Settings.shard), which writes no results. Raises UserError for data that does not fit the protocol, for foreign
    results in ``out``, and for a merge with objects missing."""
    started = time.perf_counter()
    protocol.check_views(origin.name, getattr(system, "most_views", None))
    index = read_index(data, check=settings.on_error == "stop")
    protocol.check_data(index.image_size, index.split, data)
    if index.split == "train":
        complain(f"{data} is of split train: what a model was trained on does not measure it", "warning")
    chosen = objects_of(index, settings.shard)
    skipped = faults_among(index, [number for _, number in chosen]) if settings.on_error == "skip" else {}
    chosen = scored(index, [(key, number) for key, number in chosen if key not in skipped], protocol)
    metrics, networks, missing = _metrics(settings, protocol, told)
    hashes = {**origin.hashes, "protocol": protocol.sha256, "data": file_sha256(data / INDEX)}
    hashes |= (weights := {**metrics.weights, **networks.weights})
    parts = " ".join(origin.hashes.values()), protocol.sha256, hashes["data"]
    fingerprint = Fingerprint(*parts, tuple(metrics.names), tuple(networks), weights)
    records = RecordFolder(out / "records", fingerprint, settings.overwrite)
    if isinstance(system, torch.nn.Module):
        system.to(settings.device).eval()
    if not settings.merge:
        note_count(out, settings.shard[1])
        _score_all(system, index, chosen, protocol, metrics, networks, records, settings, origin.name)
    if settings.shard[1] > 1:
        return None
    scores = merged(out, records, [key for key, _ in chosen], dealt=[key for key, _ in objects_of(index)])
    for score, (key, number) in zip(scores, chosen, strict=True):
        tasks = tasks_of(index, number, protocol)
        _check_record(score, index.scenes[number].group, tasks, records.folder / f"{key}.json")
    run = run_summary(settings, scores, time.perf_counter() - started)
    facts = {"versions": provenance.versions(), "hashes": hashes, "model": origin.config, "run": run}
    results = collect(origin.name, scores, protocol, metrics.others, **facts, missing=missing, skipped=skipped)
    apart = [name for name in further(settings.named) if name in DISTANCES and name not in missing]
    features = joined(map(records.read_features, scores)) if apart else {}
    results = structs.replace(results, baselines=compare(results, others), distances=distances(apart, features))
    results.save(out)

    from vcgen.evaluation.report.report import write_report

    write_report(results, out, lambda key, views: images(system, index, key, views, protocol, settings.device))
    return results


def _check_record(score: ObjectScore, group: str, tasks: list[Task], path: Path) -> None:
    views = [image.view for image in score.images]
    if score.group != group or views != sorted(view for task in tasks for view in task.targets):
        raise UserError(
            f"{path}: is of other views, or of another group, than {score.object} has; delete it and run again"
        )


def run_summary(settings: Settings, scores: Sequence[ObjectScore], seconds: float) -> dict[str, Any]:
    """When, where and how fast; nothing in here is part of a number."""
    facts, views = provenance.record(), sum(len(score.images) for score in scores)
    return {
        "command": facts["command"],
        "finished": facts["date"],
        "seconds": round(seconds, 2),
        "seconds_per_view": round(sum(score.seconds for score in scores) / views, 4),
        **facts["hardware"],
        "device": settings.device,
        "views_per_call": settings.views_per_call,
    }


def _metrics(settings: Settings, protocol: Protocol, told: Collection[str]) -> tuple[Metrics, Networks, dict[str, str]]:
    """The metrics that can be computed, the networks of distances, and why others cannot."""
    found: list[Metric] = []
    networks = Networks()
    missing: dict[str, str] = {}
    for name in further([*(f"lpips_{network}" for network in settings.lpips), *protocol.metrics, *settings.named]):
        try:
            if name in DISTANCES:
                networks.add(name, settings.device, settings.offline)
            else:
                found.append(load(name, settings.device, settings.offline))
        except UserError as error:
            missing[name] = str(error)
            if str(error) not in told:
                complain(f"{error}; going on without it", "warning")
    return Metrics([*found, *settings.further]), networks, missing


def _score_all(
    system: Renderer,
    index: ShardIndex,
    samples: list[tuple[str, int]],
    protocol: Protocol,
    metrics: Metrics,
    networks: Networks,
    records: RecordFolder,
    settings: Settings,
    name: str,
) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    name_column = TextColumn("{task.description}", markup=False)
    columns = (
        name_column,
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(printable(f"{name}: objects"), total=len(samples))
        for key, number in samples:
            if settings.overwrite or records.read(key) is None:
                records.write(*score_object(system, index.read(number), protocol, metrics, networks, settings))
            progress.advance(task)


def score_object(
    system: Renderer, record: SceneRecord, protocol: Protocol, metrics: Metrics, networks: Networks, settings: Settings
) -> tuple[ObjectScore, dict[str, Tensor]]:
    """Render all target views of one scene and measure each of them; with the features of these images and of all
    true ones.
    """
    started = time.perf_counter()
    where, images, features = f"object {record.key}", [], []
    with torch.no_grad():  # not inference_mode: a distillation needs gradients inside
        for task in protocol.tasks(record.key, len(record.images), record.views):
            scene = system.field(views_of(record, task.context, protocol, settings.device))
            for start in range(0, len(task.targets), settings.views_per_call):
                chunk = task.targets[start : start + settings.views_per_call]
                truth = views_of(record, chunk, protocol, settings.device)
                rendering = system.render(scene, truth.cameras, truth.size, behind(system, truth, protocol))
                _check_rendering(rendering.rgb, truth, record.key, chunk)
                predicted, true = compared(rendering.rgb[0], truth[0], protocol, where)
                values = zip(chunk, metrics(predicted, true), strict=True)
                images += [ImageScore(view, record.views[view], value) for view, value in values]
                features.append(networks.features(predicted, "predicted"))
        for start in range(0, len(record.images) if networks else 0, settings.views_per_call):
            every = range(start, min(start + settings.views_per_call, len(record.images)))
            truth = views_of(record, every, protocol, settings.device)[0]
            features.append(networks.features(compared(truth.images, truth, protocol, where)[1], "true"))
    images.sort(key=lambda image: image.view)
    score = ObjectScore(record.key, record.group, time.perf_counter() - started, tuple(images))
    return score, joined(features)


def images(
    system: Renderer, index: ShardIndex, key: str, views: Sequence[int], protocol: Protocol, device: str
) -> tuple[Tensor, Tensor, Rendering]:
    """For a report: first input image (V, 3, H, W) and true images (V, 3, H, W) of chosen views, whole, and Rendering
    (V, ...), on CPU.
    """
    number = [entry.key for _, entry in index.samples].index(key)
    record, tasks = index.read(number), tasks_of(index, number, protocol)
    inputs: dict[int, Tensor] = {}
    drawn: dict[int, tuple[Tensor, ...]] = {}
    for task in tasks:
        chosen = [view for view in views if view in task.targets]
        if not chosen:
            continue
        with torch.no_grad():
            context, truth = (views_of(record, some, protocol, device) for some in (task.context, chosen))
            rendering = system.render(system.field(context), truth.cameras, truth.size, behind(system, truth, protocol))
        parts = zip(truth.on(protocol.background)[0].cpu(), *(part[0].float().cpu() for part in rendering), strict=True)
        drawn |= dict(zip(chosen, parts, strict=True))
        inputs |= dict.fromkeys(chosen, context.on(protocol.background)[0, 0].cpu())
    true, *rendered = (torch.stack(parts) for parts in zip(*(drawn[view] for view in views), strict=True))
    return torch.stack([inputs[view] for view in views]), true, Rendering(*rendered)


def behind(system: Renderer, truth: Views, protocol: Protocol) -> Behind:
    """The background of a rendering: the protocol's, or what a model has learned to be behind opaque images."""
    return getattr(system, "behind", lambda _, background: background)(truth, protocol.background)


def views_of(record: SceneRecord, indices: Sequence[int], protocol: Protocol, device: str) -> Views:
    """Chosen views of a scene as (1, n) Views. Raises UserError if the images carry a backdrop other than the
    protocol's background.
    """
    painted = {"white": 1.0, "black": 0.0}.get(record.background, protocol.background)
    if painted != protocol.background:
        raise UserError(
            f"object {record.key}: its images lie on {record.background}, protocol {protocol.name} scores on gray level"
            f" {protocol.background:g}; pack images with alpha, or use another protocol"
        )
    return by_alpha_rule(scene_views(record, indices)[None], protocol).to(device)


def _check_rendering(rgb: Tensor, truth: Views, key: str, views: Sequence[int]) -> None:
    if rgb.shape != truth.images.shape:
        shapes = f"{tuple(rgb.shape)}, expected {tuple(truth.images.shape)}"
        raise UserError(f"object {key}: the model rendered {shapes}; its render() is at fault")
    finite = torch.isfinite(rgb[0]).all(dim=(1, 2, 3)).tolist()
    if not all(finite):
        view = views[finite.index(False)]
        raise UserError(
            f"object {key}, view {view}: the rendering has NaN or infinite pixels; check the model's weights"
        )
