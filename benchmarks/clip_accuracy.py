"""A CLIP model on objects that it was not trained on: does it find what they are, and which color they have?

Each object is shown over white by eight of its views, whose embeddings are averaged; the model chooses among the
categories, among the eleven colors of the true category, and among all categories in all colors. Objects of no category
are left out; an object's color is the word for most of its pixels (vcgen/data/color_names.py). With --part the other
parts of the training data are shown, whose objects a model trained with `data.part` has not seen: hundreds, where
its run validates on a few dozen.

  python benchmarks/clip_accuracy.py --clip outputs/judge/clip --part 0 2 --test data/kits64/test
  python benchmarks/clip_accuracy.py --quick           the shipped CLIP on a few test objects: shows that it works
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.nn import functional as F

from common import ROOT, answered, cell, command_line, hardware, save_results
from vcgen.data.captions import Thing, read_things, sentence
from vcgen.data.color_names import COLORS, color_words
from vcgen.data.shards.files import ShardIndex, read_index
from vcgen.data.shards.joining import held_out, parted
from vcgen.data.shards.overlap import read_families
from vcgen.data.views import scene_views
from vcgen.diffusion.clip import Clip
from vcgen.errors import UserError
from vcgen.evaluation.statistics import bootstrap_interval, mean
from vcgen.metrics.retrieval import ranks
from vcgen.types import Views

HEADINGS = {"category": "category", "color": "color", "recall_1": "R@1", "recall_5": "R@5"}


@dataclass(frozen=True)
class Outcome:
    """Of an object: its group, the places of its category and of that found, and what was right."""

    group: str
    category: int
    found: int
    right: dict[str, bool]


def main() -> None:
    """Measure, print and file the table. Raises UserError for folders and parts that cannot be used."""
    chosen = arguments()
    data, model = settings(chosen.configs)
    clip = Clip.from_folder(str(chosen.clip))
    things, categories = read_things(ROOT / model["captions"]), model["categories"]
    texts = embedded(clip, categories)
    rows, outcomes = [], []
    for name, index in folders(chosen, data).items():
        found = list(judged(clip, texts, shown(index, chosen), things, categories))
        rows += [row(name, found)] if found else []
        outcomes += found
    if not outcomes:
        raise UserError(f"nothing here has a category and a color: {', '.join(folders(chosen, data))}")
    rows.append(row("all", outcomes))
    lines = [*table(rows), "", *confusion(outcomes, categories)]
    print("\n".join(lines))
    result = {"program": "clip_accuracy", "clip": chosen.clip.name, "hardware": hardware(), "rows": rows}
    save_results("clip_accuracy", result, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("--clip", type=Path, default=ROOT / "data" / "pretrained" / "clip64_guide")
    parser.add_argument("--configs", type=Path, nargs="+", default=[ROOT / "configs" / "clip.yaml"], help="of its run")
    parser.add_argument("--part", type=int, nargs=2, metavar=("NUMBER", "PARTS"), help="that it was not trained on")
    parser.add_argument("--test", nargs="*", default=["data/kits64/test"], help="folders without training objects")
    parser.add_argument("--views", type=int, default=8, help="of an object, averaged")
    return parser.parse_args()


def settings(configs: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the data and the model of a run are told, later configurations first."""
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    for path in configs:
        read = yaml.safe_load(path.read_text())
        data |= read["data"]["init_args"]
        model |= read["model"]["init_args"]
    return data, model


def folders(chosen: argparse.Namespace, data: dict[str, Any]) -> dict[str, ShardIndex]:
    """What is shown, by name."""
    found = {folder: read_index(ROOT / folder) for folder in chosen.test}
    if chosen.part:
        number, parts = chosen.part
        if not 0 <= number < parts:
            raise UserError(f"--part {number} {parts}: give the number of the part, from 0, and how many there are")
        families = read_families(*(ROOT / path for path in data["families"]))
        for folder, count in zip(data["train"], data["hold_out"], strict=True):
            name = f"{Path(folder).parent.name} {Path(folder).name}"
            trained, found[f"{name}, held out"] = held_out([read_index(ROOT / folder)], [count], families)
            (found[f"{name}, part {number}"],) = parted(trained, number, parts, families)
    return found


def shown(index: ShardIndex, chosen: argparse.Namespace) -> Iterator[tuple[str, str, Views]]:
    """Key, group and views (1, n) of each object, of each variant; of two objects with --quick."""
    for number in range(min(len(index.samples), 2 if chosen.quick else len(index.samples))):
        record = index.read(number)
        count = len(record.views)
        seen = scene_views(record, [place * count // chosen.views for place in range(min(chosen.views, count))])
        yield record.key, record.group or record.key, seen[None]


@torch.no_grad()
def embedded(clip: Clip, categories: Sequence[str]) -> torch.Tensor:
    """Of the categories without a color and in each color: (categories, 1 + colors, d)."""
    texts = [sentence(name, color) for name in categories for color in ("", *COLORS)]
    return clip.embed_texts(texts).unflatten(0, (len(categories), -1))


@torch.no_grad()
def judged(
    clip: Clip,
    texts: torch.Tensor,
    objects: Iterator[tuple[str, str, Views]],
    things: dict[str, Thing],
    categories: Sequence[str],
) -> Iterator[Outcome]:
    """What the model makes of each object that has a category and a color."""
    for key, group, views in objects:
        if key not in things:
            raise UserError(f"scene {key} has no caption: give --configs whose captions name it")
        category = next((n for n, name in enumerate(categories) if name in things[key].names), None)
        word = color_words(views)[0]
        if category is None or not word:
            continue
        color = list(COLORS).index(word)
        embedding = clip.embed_images(views.on(1.0)[0].movedim(1, -1)).mean(0)
        scores = texts @ F.normalize(embedding, dim=-1)
        plain, colored = scores[:, 0], scores[:, 1:]

        def rank(among: torch.Tensor, truth: int) -> int:
            return int(ranks(among.reshape(1, -1), torch.tensor([truth])))

        place = rank(colored, category * len(COLORS) + color)
        right = {"category": rank(plain, category) < 1, "color": rank(colored[category], color) < 1}
        yield Outcome(group, category, int(plain.argmax()), {**right, "recall_1": place < 1, "recall_5": place < 5})


def row(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Fractions of objects, with 95 % bootstrap intervals over groups of variants."""
    groups = [outcome.group for outcome in outcomes]
    found: dict[str, Any] = {"name": name, "objects": len(set(groups)), "shown": len(outcomes)}
    for score in HEADINGS:
        values = [float(outcome.right[score]) for outcome in outcomes]
        found |= {score: mean(values), f"{score}_interval": bootstrap_interval(values, groups)}
    return found


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """In Markdown."""
    lines = [f"| objects | number | {' | '.join(HEADINGS.values())} |", "| --- " * (2 + len(HEADINGS)) + "|"]
    for one in rows:
        cells = (cell(one[score], one[f"{score}_interval"], 2) for score in HEADINGS)
        lines.append(f"| {one['name']} | {one['objects']} | {' | '.join(cells)} |")
    return lines


def confusion(outcomes: Sequence[Outcome], categories: Sequence[str]) -> list[str]:
    """How often each category is found for each, in Markdown."""
    counts = torch.zeros(len(categories), len(categories), dtype=torch.int64)
    for outcome in outcomes:
        counts[outcome.category, outcome.found] += 1
    lines = [f"| is, found as | {' | '.join(categories)} |", "| --- " * (1 + len(categories)) + "|"]
    return lines + [
        f"| {name} | {' | '.join(map(str, own.tolist()))} |" for name, own in zip(categories, counts, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(answered(main))
