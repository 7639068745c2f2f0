"""Settings of a distillation, compared on cars held out of the training set: how those of configs/distill.yaml were
chosen.

Each setting is a JSON object of what differs from the configuration, by the names of the guidance's and the options'
fields; with "guidance": "SDS" it is score distillation with as many rounds and updates. The test cars are not looked
at. "best guess" is what the prior makes of pure noise, which is near the mean of all that it could draw: the PSNR that
can be hoped for, and none of the sharpness.

  python benchmarks/distill_sweep.py data/pretrained/cars64 '{}' '{"gamma": 0.5}' '{"guidance": "SDS", "guidance_scale":
  1.05}'
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from common import ROOT, answered, command_line, hardware, save_results, weights_environment
from vcgen.checkpoints import model_folder as folder
from vcgen.cli.usage import choose_device
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.diffusion.base import to_unit
from vcgen.diffusion.schedule import timestep
from vcgen.errors import UserError
from vcgen.guidance.base import Guidance
from vcgen.guidance.sds import SDS
from vcgen.metrics.image import psnr, quantise
from vcgen.metrics.lpips import PerceptualDistance, load_lpips
from vcgen.metrics.ssim import ssim
from vcgen.systems.distillation.distilled import read_distillation
from vcgen.systems.distillation.loop import DistillOptions, distill
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Example

#: Of configs/cars64.yaml: the cars that neither field nor prior of the shipped model was trained on.
TRAIN, HOLD_OUT = ROOT / "data" / "cars64" / "train", 3


def main() -> None:
    """Score the settings in turn; prints and files the table."""
    parser = command_line(__doc__)
    parser.add_argument("model", type=Path, help="a model folder with a prior")
    parser.add_argument("settings", nargs="+", help="JSON objects")
    parser.add_argument("--config", default="configs/distill.yaml", help="the NGD from which they differ")
    parser.add_argument("--scenes", type=int, default=5, help="held-out scenes, evenly spaced among 15 (default: 5)")
    parser.add_argument("--views", type=int, default=19, help="of each, besides the input view (default: all 19)")
    parser.add_argument("--device", default="auto")
    run(parser.parse_args())


def run(chosen: argparse.Namespace) -> None:
    """Raises UserError for settings that are none."""
    os.environ.update(weights_environment())
    device = choose_device(chosen.device)
    stages = {text: stage(text, str(ROOT / chosen.config), chosen.quick) for text in chosen.settings}
    held_out = read_index(TRAIN).hold_out(HOLD_OUT)[1]
    scenes = FixedScenes(held_out, 1, 2) if chosen.quick else FixedScenes(held_out, chosen.scenes, chosen.views)
    examples = [scenes[number].to(device) for number in range(len(scenes))]
    system, lpips = folder.load(chosen.model, device), load_lpips("squeeze", device, offline=True)
    lines = ["| setting | PSNR dB | SSIM | LPIPS-squeeze |", "| --- | --- | --- | --- |"]
    print("\n".join(lines), flush=True)
    rows = []
    references = {"amortized field": amortized, "best guess of the prior": best_guess}
    for name, show in {**references, **{text: distilled(*parts) for text, parts in stages.items()}}.items():
        scores = [score(show(system, example), example, lpips) for example in examples]
        means = torch.tensor(scores, dtype=torch.float64).mean(0).tolist()
        rows.append({"setting": name, **dict(zip(("psnr", "ssim", "lpips"), means, strict=True)), "scenes": scores})
        lines.append("| {} | {:.3f} | {:.4f} | {:.4f} |".format(name if name in references else f"`{name}`", *means))
        print(lines[-1], flush=True)
    figures = {
        "program": "distill_sweep",
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "config": chosen.config,
        "scenes": [example.keys[0] for example in examples],
        "views": examples[0].target.images.shape[1],
        "rows": rows,
    }
    save_results("distill_sweep", figures, lines, chosen.quick)
    print(json.dumps(figures))


def stage(text: str, config: str, quick: bool) -> tuple[Guidance, DistillOptions]:
    """Guidance and options of a setting. Raises UserError for text that is no JSON object, and for names that neither
    of them has.
    """
    try:
        changes = dict(json.loads(text))
        ngd, options = read_distillation(config)
        kinds = {"NGD": ngd, "SDS": SDS(rounds=ngd.rounds, updates=ngd.updates)}
        if (kind := changes.pop("guidance", "NGD")) not in kinds:
            raise ValueError(f"the guidances are {' and '.join(kinds)}")
        known = {field.name for field in fields(kinds[kind])}
        rounds = {"rounds": 2, "updates": 2} if quick else {}
        guidance = replace(kinds[kind], **{name: value for name, value in changes.items() if name in known} | rounds)
        return guidance, replace(options, **{name: value for name, value in changes.items() if name not in known})
    except (ValueError, TypeError) as error:
        raise UserError(f"{text}: not a setting ({' '.join(str(error).split())})") from error


@torch.no_grad()
def amortized(system: NerfDiff, example: Example) -> Tensor:
    """The target views as the field of the input view shows them: (views, 3, H, W) in [0, 1]."""
    return system.render(system.field(example.context), example.target.cameras, example.target.size).rgb[0]


@torch.no_grad()
def best_guess(system: NerfDiff, example: Example) -> Tensor:
    """The prior's clean images of pure noise, given what the field shows: (views, 3, H, W) in [0, 1]."""
    cameras, prior = example.target.cameras, system.prior
    seen = system.render_condition(system.field(example.context), cameras, example.target.size)
    condition = prior.condition(seen, example.context, cameras.near, cameras.far)
    noise = torch.randn(
        seen.rgb[0].shape, generator=torch.Generator(system.device).manual_seed(0), device=system.device
    )
    return to_unit(
        prior.denoise(
            noise, torch.full((len(noise),), timestep(prior.schedule, 1.0), device=system.device), condition
        ).image
    )


def distilled(guidance: Guidance, options: DistillOptions) -> Callable[[NerfDiff, Example], Tensor]:
    """Shows the target views as :func:`amortized` does, of a distilled field."""

    def show(system: NerfDiff, example: Example) -> Tensor:
        field = distill(system, example.context, guidance, options).result
        with torch.no_grad():
            return system.render(field, example.target.cameras, example.target.size).rgb[0]

    return show


def score(images: Tensor, example: Example, lpips: PerceptualDistance) -> list[float]:
    """PSNR, SSIM and LPIPS of images of the target views, means over views."""
    shown, truth = (quantise(images.float().clamp(0, 1)) for images in (images, example.target.on(1.0)[0]))
    return [
        float(psnr(shown, truth).mean()),
        float(ssim(shown.double(), truth.double()).mean()),
        float(lpips(shown, truth).mean()),
    ]


if __name__ == "__main__":
    sys.exit(answered(main))
