"""``vcgen evaluate``: measure a model folder on a shard folder under a protocol file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import getdoc
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Literal

from vcgen.cli import usage
from vcgen.errors import UserError
from vcgen.terminal import say, unstyled

if TYPE_CHECKING:
    from vcgen.evaluation.protocol import Protocol
    from vcgen.evaluation.results import Results
    from vcgen.evaluation.runner import Origin, Settings
    from vcgen.systems.distillation.distilled import Distilled
    from vcgen.types import FieldModel

EXAMPLE = r"""example:
  vcgen evaluate --model outputs/cars/model --data data/cars64/test \
    --protocol configs/protocols/cars64_view0.json --out outputs/cars/eval

An interrupted evaluation goes on where it stopped when the same command is
given again. To share the work among n processes, give each --shard 0/n, 1/n,
... and the same --out; when all are done, --merge instead of --shard writes the
report."""


def main(arguments: list[str]) -> None:
    """Entry point of ``vcgen evaluate``."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import DefaultHelpFormatter

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keeps the lines of the example whole, so that it can be copied."""

    about = fill((getdoc(evaluate) or "").split("\n\n")[0], 78)
    usage.run(
        evaluate,
        arguments,
        "vcgen evaluate",
        flags={"--distill": "default"},
        description=about,
        epilog=EXAMPLE,
        formatter_class=Formatter,
    )


def evaluate(
    model: str,
    data: str,
    protocol: str,
    out: str,
    lpips: list[Literal["vgg", "squeeze", "alex", "none"]] = ["vgg"],
    offline: bool = False,
    device: str = "auto",
    views_per_call: int = 8,
    shard: str = "0/1",
    merge: bool = False,
    overwrite: bool = False,
    baselines: bool = False,
    train: str | None = None,
    compare: list[str] | None = None,
    distill: str | None = None,
    together: int = 1,
    seed: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
    plugins: list[str] | None = None,
    metrics: list[str] | None = None,
) -> None:
    """Measure a model: PSNR, SSIM and LPIPS of its novel views, with intervals; writes results.json, report.md and
    report.html.

    Args:
        model: the model folder, written by vcgen export.
        data: a shard folder, written by vcgen data pack (the folder that holds index.json).
        protocol: the protocol file; those shipped lie in configs/protocols.
        out: the folder for the results.
        lpips: networks to compute LPIPS with, one column each; published tables use vgg. none leaves LPIPS out.
        offline: never download LPIPS weights (as VCGEN_OFFLINE=1 does).
        device: cpu, cuda, or auto, which takes a GPU if there is one.
        views_per_call: views rendered together; lower it if memory runs out.
        shard: i/n scores every n-th object from the i-th on, counted from 0, and leaves the report to --merge.
        merge: score nothing; write the report of what the shards have scored.
        overwrite: replace the results of an earlier evaluation in out.
        baselines: also score copying the input, of several inputs by place and by direction, and with --train the mean
            training image.
        train: the training shards, for the mean training image of the baselines.
        compare: --out folders of other methods to set beside this one; rows of one name are told apart by them.
        distill: distill every object's field by the model's prior before it is scored, with the model part of a
            configuration such as configs/distill.yaml; nothing for the same settings.
        together: objects distilled at the same time, as far as memory allows: faster on a GPU.
        seed: of the distillation's noise.
        on_error: stop at an object that cannot be read, or skip it: the report names it, and more than 5 % are refused.
        metrics: further columns, or FID and KID, by their names in docs/evaluation.md; or a metric of yours by the
            short name under which an installed package registers it or by the import path of its class, see
            docs/plugins.md.
        plugins: packages of your own whose classes the model may name, as VCGEN_PLUGINS does; see docs/security.md.
    """
    from vcgen.checkpoints import model_folder as folder
    from vcgen.evaluation.protocol import load_protocol
    from vcgen.evaluation.results import load_results, told_apart
    from vcgen.evaluation.runner import Origin, Settings, evaluate_system
    from vcgen.evaluation.sharing import parse_shard
    from vcgen.metrics.named import by_name

    check_sharing(share := parse_shard(shard), merge, overwrite, baselines)
    usage.within("--views-per-call", views_per_call, 1)
    check_companions(together, distill, seed, train, baselines)
    networks, device = tuple(network for network in lpips if network != "none"), usage.choose_device(device)
    settings = Settings(networks, offline, device, views_per_call, share, overwrite, merge, on_error, *by_name(metrics))
    loaded_protocol = load_protocol(protocol)
    system = folder.load(model, settings.device, plugins or ())
    loaded_protocol.check_views(model, 1 if distill else system.most_views)
    places = Places(Path(data), Path(out), Path(train) if train else None)
    others = {other: load_results(other) for other in compare or []}
    simple = score_baselines(places, loaded_protocol, replace(settings, merge=False)) if baselines else []
    origin = Origin(Path(model).resolve().name, folder.hashes(model), system.config)
    scored: FieldModel | Distilled = system
    if distill:
        scored, origin = finetuned(system, origin, distill, seed, places.out / "fields", plugins or ())
        if together > 1 and not merge:
            distill_in_groups(scored, places.data, loaded_protocol, settings, together)
    where = places.data, loaded_protocol, places.out
    rows = told_apart(others, [origin.name, *(results.name for results in simple)]) + simple
    _announce(evaluate_system(scored, *where, origin, settings, rows, told(simple)), places.out)


def finetuned(
    system: "FieldModel", origin: "Origin", config: str, seed: int, keep: Path, plugins: Sequence[str]
) -> "tuple[Distilled, Origin]":
    """A model whose fields are distilled before they are scored, and what its results say of it. config, seed: see
    :func:`evaluate`; keep: the folder of finished fields."""
    from vcgen.systems.distillation.distilled import distilled

    made = distilled(system, config, seed, keep, plugins=plugins)
    hashes = {**origin.hashes, "distillation": made.settings}
    return made, replace(origin, name=f"{origin.name}, distilled", hashes=hashes)


def distill_in_groups(
    system: "Distilled", data: Path, protocol: "Protocol", settings: "Settings", together: int
) -> None:
    """Distill the objects that these settings score, ``together`` at a time; their fields are kept for the scoring."""
    from rich.progress import track

    from vcgen.data.shards.faults import fault_in
    from vcgen.data.shards.files import read_index
    from vcgen.data.views import stack_views
    from vcgen.evaluation.runner import views_of
    from vcgen.evaluation.scope import tasks_of
    from vcgen.evaluation.sharing import objects_of

    index = read_index(data, check=settings.on_error == "stop")
    numbers = [number for _, number in objects_of(index, settings.shard)]
    numbers = [number for number in numbers if settings.on_error == "stop" or fault_in(index, number) is None]
    inputs = [(number, task.context) for number in numbers for task in tasks_of(index, number, protocol)]
    groups = [inputs[i : i + together] for i in range(0, len(inputs), together)]
    for group in track(groups, f"distilling, {together} at a time"):
        views = [views_of(index.read(number), context, protocol, settings.device)[0] for number, context in group]
        system.distill_together(stack_views(views))


@dataclass(frozen=True)
class Places:
    """The folders of an evaluation. train: training shards, or None."""

    data: Path
    out: Path
    train: Path | None


def score_baselines(places: Places, protocol: "Protocol", settings: "Settings") -> "list[Results]":
    """Score copying the input, the nearest of several, and, where training shards are given, the mean training image,
    into OUT/baselines.
    """
    from vcgen.evaluation.baselines import CopyInput, CopyNearest, MeanImage
    from vcgen.evaluation.runner import Origin, evaluate_system

    systems: dict[str, CopyInput | MeanImage] = {"copy_input": CopyInput()}
    if protocol.most_context > 1:
        systems["copy_nearest"] = CopyNearest()
    if places.train is not None:
        systems["mean_image"] = MeanImage.of(places.train, protocol)
    folder = places.out / "baselines"
    found: list[Results] = []
    for name, system in systems.items():
        origin = Origin(system.name, system.hashes)
        results = evaluate_system(system, places.data, protocol, folder / name, origin, settings, told=told(found))
        found += [] if results is None else [results]
    return found


def told(found: "Sequence[Results]") -> set[str]:
    """Why metrics are missing from results, which was said when these were made."""
    return {reason for results in found for reason in results.missing.values()}


def check_sharing(shard: tuple[int, int], merge: bool, overwrite: bool, baselines: bool) -> None:
    """Refuse what cannot be combined."""
    if merge and shard != (0, 1):
        raise UserError("--merge joins all shards: give it without --shard")
    if baselines and shard[1] > 1:
        raise UserError("--baselines cannot be given with --shard; give it with --merge")
    if overwrite and (merge or shard[1] > 1):
        # A task that is run again would throw away what it has, and what others have written meanwhile.
        raise UserError("--overwrite cannot be given with --shard or --merge; choose another --out, or remove it first")


def check_companions(together: int, distill: str | None, seed: int, train: str | None, baselines: bool) -> None:
    """Refuse an option without the one that it is for, and a seed that is none."""
    usage.within("--together", together, 1)
    if together > 1 and not distill:
        raise UserError("--together says how many objects are distilled at the same time: give --distill, too")
    if train and not baselines:
        raise UserError("--train is for the mean training image of --baselines: give that, too")
    usage.within("--seed", seed, 0, usage.LARGEST_SEED)


def _announce(results: "Results | None", out: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    if results is None:
        say(f"{out}: this shard is done; when all are, --merge instead of --shard writes the report")
        return
    from vcgen.evaluation.report.table import distance_rows, rows

    heading, *body = rows(results)
    title = f"{results.protocol['name']}, {results.counts['objects']} objects, {results.counts['images']} images"
    # intervals below means
    cells = [[unstyled(*cell.replace(" [", "\n[").split("\n")) for cell in row] for row in body]
    console, table = Console(), Table(title=unstyled(title), box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column(heading[0], overflow="fold")
    # Where all cannot stand in whole lines, lines end between words.
    columns = [[name, *(str(row[place]) for row in cells)] for place, name in enumerate(heading)]
    lines = sum(max(len(line) for text in column for line in text.split("\n")) for column in columns[1:])
    words = max(len(word) for text in columns[0] for word in text.split())
    crowded = min(words, 24) + lines + len(heading) > console.width
    for name, column in zip(heading[1:], columns[1:], strict=True):
        width = max(len(word) for text in column for word in text.split()) if crowded else None
        table.add_column(name, justify="right", width=width)
    for row in cells:
        table.add_row(*row)
    console.print(table)
    for name, value, predicted, true in distance_rows(results)[1:]:
        say(f"{name}: {value} (all images together: {predicted} predicted, {true} true)")
    say(f"{out / 'report.html'}, report.md, results.json")
