"""Text to 3D: after equal processor time, whose scenes show their texts, on the shipped prior?

Prompts are categories in colors. Each system is its configuration as it ships, but for the time, which ends a run in
place of its number of steps. A CLIP model judges eight views of a scene: R-precision, colored and textureless, among
all categories in eleven colors, as `vcgen evaluate-text` does, and whether the textureless views are nearest to their
category among all of them (shape). Beside it the Janus score of four sides, and what it cost. Ceiling: as many samples
of the prior as there are views; floor: the scene before training. A system that was guided by the judge is marked: its
row says nothing of what its scenes look like.

  python benchmarks/text_to_3d.py                         24 prompts, a minute of one core each by 4 systems: 2 hours
  python benchmarks/text_to_3d.py --categories car seat --colors red blue --seconds 30
  python benchmarks/text_to_3d.py --quick                 one prompt, a few steps: shows only that the program works

What has been fitted is kept in --out and not done again. See benchmarks/README.md.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import ROOT, answered, cell, command_line, hardware, save_results
from text_scenes import CATEGORIES, SYSTEMS, Budget, Scene, fit, looks, over_white, thing
from vcgen.checkpoints import model_folder
from vcgen.data.captions import sentence
from vcgen.data.color_names import COLORS
from vcgen.diffusion.clip import Clip
from vcgen.diffusion.text_prior import TextPrior
from vcgen.evaluation.retrieval import Score, score, untrained, views_of
from vcgen.evaluation.statistics import bootstrap_interval, mean
from vcgen.metrics.janus import AZIMUTHS, janus
from vcgen.visualization.images import contact_sheet, to_uint8

#: Side in pixels of what is judged.
SIZE = 64
HEADINGS = ("system", "R-precision", "textureless", "shape", "CLIP similarity", "janus", "s / scene", "steps", "GB")


def main() -> None:
    """Fit what is missing, judge, then print and file the table. Raises UserError for a folder that is no prior, or no
    CLIP model.
    """
    chosen = arguments()
    things = [thing(category, color) for category in chosen.categories for color in chosen.colors]
    clip, prior = Clip.from_folder(str(chosen.judge)), TextPrior.load(chosen.prior)  # before hours of fits
    budget = Budget(chosen.seconds, chosen.prior, chosen.out, chosen.quick)
    scenes = [fit(SYSTEMS[system], name, budget) for system in chosen.systems for name in things]
    known = [sentence(category, color) for category in CATEGORIES for color in COLORS]
    known += [prompt for prompt in dict.fromkeys(scene.prompt for scene in scenes) if prompt not in known]
    rows = [row(name, [s for s in scenes if s.system == name], known, clip, chosen) for name in chosen.systems]
    rows += bounds(scenes, known, clip, prior, chosen)
    lines = table(rows, len(things), len(known), chosen)
    print("\n".join(lines))
    figures = {"program": "text_to_3d", "seconds": chosen.seconds, "prompts": things, "judge": chosen.judge.name}
    figures |= {"prior": chosen.prior.name, "hardware": hardware(), "rows": rows}
    save_results("text_to_3d", figures, lines, chosen.quick or chosen.unfiled)
    if chosen.sheet:  # last: where it cannot be written, what took hours is filed
        write_sheet(scenes, things[:: len(chosen.colors)], chosen)
    print(json.dumps(figures))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--categories", nargs="+", default=list(CATEGORIES))
    parser.add_argument("--colors", nargs="+", choices=list(COLORS), default=["red", "blue", "yellow"])
    parser.add_argument("--seconds", type=float, default=60, help="of processor time for a scene's training")
    parser.add_argument("--views", type=int, default=8, help="of a scene that are judged")
    parser.add_argument("--prior", type=Path, default=ROOT / "data" / "pretrained" / "toys64", help="a text prior")
    parser.add_argument(
        "--judge", type=Path, default=ROOT / "data" / "pretrained" / "clip64_judge", help="a CLIP model's folder"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "text_to_3d")
    parser.add_argument("--sheet", type=Path, help="an image: per category in the first color, two sides of each scene")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.categories, chosen.colors, chosen.views = chosen.categories[:1], chosen.colors[:1], 2
        chosen.systems, chosen.out = chosen.systems[:2], chosen.out / "quick"
    return chosen


def row(name: str, scenes: Sequence[Scene], known: list[str], clip: Clip, chosen: argparse.Namespace) -> dict:
    """The figures of a system."""
    found = [judged(scene, known, clip, chosen.views) for scene in scenes]
    faces = [janus(*looks(scene.folder, AZIMUTHS, SIZE)) for scene in scenes]
    prompts = [scene.prompt for scene in scenes]
    shapes = [float(one["shape"].found) for one in found]
    return {
        "name": name,
        **summary("", [one["colored"] for one in found]),
        **summary("_textureless", [one["textureless"] for one in found]),
        "shape": mean(shapes),
        "shape_interval": bootstrap_interval(shapes, prompts),
        "janus": mean(faces),
        "janus_interval": bootstrap_interval(faces, prompts),
        "seconds": mean([scene.seconds for scene in scenes]),
        "steps": mean([float(scene.steps) for scene in scenes]),
        "peak_gb": max(scene.peak for scene in scenes) / 1e9,
        "guided_by_judge": SYSTEMS[name].guide == chosen.judge.name,
        "scenes": {
            scene.thing: {kind: value.found for kind, value in one.items()}
            for scene, one in zip(scenes, found, strict=True)
        },
    }


def judged(scene: Scene, known: list[str], clip: Clip, views: int) -> dict[str, Score]:
    """Of a scene, by kind: "colored" and "textureless" among the known prompts; "shape": textureless, its category
    among all of them.
    """
    system, category = model_folder.load(scene.folder / "field"), sentence(scene.thing.split(maxsplit=2)[2])
    colored, bare = (views_of(system, kind, views, SIZE) for kind in ("albedo", "textureless"))
    return {
        "colored": score(clip, colored, scene.prompt, known),
        "textureless": score(clip, bare, scene.prompt, known),
        "shape": score(clip, bare, category, list(dict.fromkeys([*map(sentence, CATEGORIES), category]))),
    }


@torch.no_grad()
def write_sheet(scenes: Sequence[Scene], things: Sequence[str], chosen: argparse.Namespace) -> None:
    """Rows are the prompts, columns two sides of each system's scene: the front, and what is a quarter turn on."""
    folders = {(scene.system, scene.thing): scene.folder for scene in scenes}
    sides = [looks(folders[system, name], (0.0, 90.0), SIZE) for name in things for system in chosen.systems]
    images = np.stack([to_uint8(image) for color, alpha in sides for image in over_white(color, alpha)])
    Image.fromarray(contact_sheet(images, 2 * len(chosen.systems))).save(chosen.sheet)


def bounds(
    scenes: Sequence[Scene], known: list[str], clip: Clip, prior: TextPrior, chosen: argparse.Namespace
) -> list[dict]:
    """Rows of the prior's samples, and of the first system's scenes before their training."""
    ceiling, floor = [], []
    for scene in scenes:
        if scene.system != scenes[0].system:
            continue
        drawn = prior.sample([scene.prompt] * chosen.views, torch.Generator().manual_seed(0))
        ceiling.append(score(clip, drawn.movedim(1, -1), scene.prompt, known))
        before = views_of(untrained(model_folder.load(scene.folder / "field")), "albedo", chosen.views, SIZE)
        floor.append(score(clip, before, scene.prompt, known))
    return [{"name": name, **summary("", found)} for name, found in (("ceiling", ceiling), ("floor", floor))]


def summary(suffix: str, scores: Sequence[Score]) -> dict:
    """Means and 95 % bootstrap intervals over prompts."""
    prompts, found = [score.prompt for score in scores], [float(score.found) for score in scores]
    return {
        f"r_precision{suffix}": mean(found),
        f"r_precision{suffix}_interval": bootstrap_interval(found, prompts),
        f"similarity{suffix}": mean([score.similarity for score in scores]),
    }


def table(rows: list[dict], things: int, known: int, chosen: argparse.Namespace) -> list[str]:
    """In Markdown."""
    length = "a few steps" if chosen.quick else f"{chosen.seconds:g} processor seconds"
    lines = [
        (
            f"{things} prompts, {length} of training for each scene; judge: {chosen.judge.name}; R-precision among"
            f" {known} prompts (chance {1 / known:.3f}); 95 % bootstrap intervals over prompts; seconds with start and"
            " images."
        ),
        "",
        f"| {' | '.join(HEADINGS)} |",
        "| --- " * len(HEADINGS) + "|",
    ]
    for one in rows:
        name = f"{one['name']} (guided by the judge)" if one.get("guided_by_judge") else one["name"]
        cells = [cell(one["r_precision"], one["r_precision_interval"], 2)]
        textureless = one.get("r_precision_textureless")
        cells.append(cell(textureless, one.get("r_precision_textureless_interval"), 2))
        cells.append(cell(one.get("shape"), one.get("shape_interval"), 2))
        cells.append(cell(one["similarity"], None, 3))
        cells.append(cell(one.get("janus"), one.get("janus_interval"), 2))
        cells += [cell(one.get("seconds"), None, 0), cell(one.get("steps"), None, 0), cell(one.get("peak_gb"), None, 1)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(answered(main))
