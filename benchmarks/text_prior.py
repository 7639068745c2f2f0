"""Do a text prior's samples show their texts? Several priors side by side, on the same noise.

Each prompt, a category in a color, is drawn eight times. A CLIP model judges among all categories in eleven colors:
whether a prompt is nearest to its samples, their similarities averaged (R-precision, as the ceiling of text_to_3d.py),
how many of the single samples are nearest to it, and their similarity to it. Differences to the first prior are of the
same prompts, with 95 % bootstrap intervals over prompts. Say which objects the judge and the priors were trained on.

  python benchmarks/text_prior.py data/pretrained/toys64 outputs/text2image/pipeline --sheet outputs/samples.png
  python benchmarks/text_prior.py --quick          the shipped prior, one prompt, two samples: shows that it works
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from common import ROOT, answered, cell, command_line, hardware, save_results
from text_scenes import CATEGORIES
from vcgen.data.captions import sentence
from vcgen.data.color_names import COLORS
from vcgen.diffusion.clip import Clip
from vcgen.diffusion.text_prior import TextPrior
from vcgen.evaluation.statistics import bootstrap_interval, mean, paired_difference
from vcgen.io import write_bytes
from vcgen.visualization.images import contact_sheet, png_bytes, to_uint8

#: What is measured of a prompt: name -> heading.
MEASURES = {"r_precision": "R-precision", "single": "single samples", "similarity": "CLIP similarity"}


def main() -> None:
    """Draw, judge, then print and file the table. Raises UserError for a folder that is no prior, or no CLIP model."""
    chosen = arguments()
    prompts = [sentence(category, color) for category in chosen.categories for color in chosen.colors]
    known = [sentence(category, color) for category in CATEGORIES for color in COLORS]
    known += [prompt for prompt in prompts if prompt not in known]
    clip, found, sheet = Clip.from_folder(str(chosen.judge)), {}, []
    for folder in chosen.priors:
        prior, scores = TextPrior.load(folder), {}
        for prompt in prompts:
            generator = torch.Generator().manual_seed(chosen.seed)
            images = prior.sample([prompt] * chosen.samples, generator, guidance_scale=chosen.guidance_scale)
            scores[prompt] = judged(clip, images, prompt, known)
            sheet += [to_uint8(image) for image in images]
        found[str(folder)] = scores
    rows = summary(found)
    lines = table(rows, len(prompts), len(known), chosen)
    print("\n".join(lines))
    figures = {"program": "text_prior", "hardware": hardware(), "judge": chosen.judge.name, "seed": chosen.seed}
    figures |= {"samples": chosen.samples, "guidance_scale": chosen.guidance_scale, "rows": rows}
    save_results("text_prior", figures, lines, chosen.quick or chosen.unfiled)
    if chosen.sheet:
        write_bytes(chosen.sheet, png_bytes(contact_sheet(np.stack(sheet), chosen.samples)))
    print(json.dumps(figures))


def arguments() -> argparse.Namespace:
    """The command line."""
    pretrained = ROOT / "data" / "pretrained"
    parser = command_line(__doc__, filed=True)
    parser.add_argument("priors", nargs="*", type=Path, default=[pretrained / "toys64"], help="folders of text priors")
    parser.add_argument("--judge", type=Path, default=pretrained / "clip64_judge", help="a CLIP model's folder")
    parser.add_argument("--categories", nargs="+", default=list(CATEGORIES))
    parser.add_argument("--colors", nargs="+", choices=list(COLORS), default=["red", "blue", "yellow"])
    parser.add_argument("--samples", type=int, default=8, help="of each prompt (default: 8)")
    parser.add_argument("--guidance-scale", type=float, default=7.5, help="of classifier-free guidance (default: 7.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="a PNG of all samples, a row for each prompt")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.categories, chosen.colors, chosen.samples = chosen.categories[:1], chosen.colors[:1], 2
    return chosen


@torch.no_grad()
def judged(clip: Clip, images: torch.Tensor, prompt: str, known: list[str]) -> dict[str, float]:
    """The measures of samples (n, 3, H, W) in [0, 1] of a prompt, one of ``known``."""
    similar = clip.embed_images(images.movedim(1, -1)) @ clip.embed_texts(known).T
    own = known.index(prompt)
    return {
        "r_precision": float(similar.mean(0).argmax() == own),
        "single": float((similar.argmax(1) == own).float().mean()),
        "similarity": float(similar[:, own].mean()),
    }


def summary(found: dict[str, dict[str, dict[str, float]]]) -> list[dict]:
    """Means and intervals of priors, and what they gain over the first; found: prior -> prompt -> measures."""
    first, rows = next(iter(found.values())), []
    for name, scores in found.items():
        row: dict = {"name": Path(name).name if Path(name).name != "pipeline" else Path(name).parent.name}
        for measure in MEASURES:
            own, before = ({prompt: one[measure] for prompt, one in part.items()} for part in (scores, first))
            row[measure] = mean(list(own.values()))
            row[f"{measure}_interval"] = bootstrap_interval(list(own.values()), list(own))
            if scores is not first:
                gained = paired_difference(own, before, {prompt: prompt for prompt in own})
                row[f"{measure}_gain"], row[f"{measure}_gain_interval"] = gained.mean, gained.interval
        rows.append(row | {"prompts": scores})
    return rows


def table(rows: list[dict], prompts: int, known: int, chosen: argparse.Namespace) -> list[str]:
    """In Markdown."""
    lines = [
        (
            f"{prompts} prompts, {chosen.samples} samples each, guidance {chosen.guidance_scale:g}; judge:"
            f" {chosen.judge.name}, among {known} prompts (chance {1 / known:.3f}); 95 % intervals over prompts."
        ),
        "",
        f"| prior | {' | '.join(MEASURES.values())} |",
        "| --- " * (len(MEASURES) + 1) + "|",
    ]
    for suffix, shown in (("", rows), ("_gain", rows[1:])):
        for row in shown:
            cells = [cell(row[m + suffix], row[f"{m}{suffix}_interval"], 3) for m in MEASURES]
            lines.append(f"| {row['name']}{suffix.replace('_', ', ')} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(answered(main))
