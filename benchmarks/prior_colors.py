"""At which noise levels does a text prior follow its text, and at which what is there already?

Balls of several colors over white are noised to a level and denoised under "a photo of a red car, side view". Measured:
how red the clean image is, the mean over pixels of red minus the mean of green and blue, relative to that of the red
ball itself; mean over draws of noise. A prior that follows its text gives the same from every ball.

  python benchmarks/prior_colors.py --quick      one draw: shows only that the program works

See benchmarks/README.md.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from common import ROOT, command_line, hardware, save_results
from vcgen.diffusion.base import to_signed, to_unit
from vcgen.diffusion.schedule import signal_and_noise, timestep
from vcgen.diffusion.text_prior import TextCondition, TextPrior
from vcgen.evaluation.statistics import mean

BALLS = {"gray": (0.5, 0.5, 0.5), "blue": (0.2, 0.5, 0.9), "red": (0.9, 0.2, 0.1)}
LEVELS = 0.98, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.1
SCALES = 1.0, 4.0, 10.0


def main() -> None:
    """Measure, then print and file the table."""
    parser = command_line(__doc__)
    parser.add_argument("--prior", type=Path, default=ROOT / "data" / "pretrained" / "toys64", help="a text prior")
    parser.add_argument("--text", default="a photo of a red car, side view")
    parser.add_argument("--draws", type=int, default=8, help="of noise, for each ball and level")
    chosen = parser.parse_args()
    draws = 1 if chosen.quick else chosen.draws
    prior = TextPrior.load(chosen.prior).eval().requires_grad_(False)
    rows = [row(prior, name, scale, chosen.text, draws) for scale in SCALES for name in BALLS]
    lines = [
        f"{chosen.prior.name}, {chosen.text!r}, {draws} draws: redness of the clean image, 1 is that of the red ball.",
        "",
        "| guidance | ball | " + " | ".join(map(str, LEVELS)) + " |",
        "| --- " * (len(LEVELS) + 2) + "|",
    ]
    for one in rows:
        values = " | ".join(f"{value:.2f}" for value in one["redness"])
        lines += [f"| {one['scale']:g} | {one['name']} | {values} |"]
    print("\n".join(lines))
    figures = {"program": "prior_colors", "hardware": hardware(), "levels": LEVELS, "draws": draws, "rows": rows}
    save_results("prior_colors", figures, lines, chosen.quick)
    print(json.dumps(figures))


@torch.no_grad()
def row(prior: TextPrior, name: str, scale: float, text: str, draws: int) -> dict:
    """Redness at every noise level, of one ball under one guidance scale."""
    images = ball(BALLS[name], prior.size).expand(draws, -1, -1, -1)
    latents = prior.encode(to_signed(images))
    condition = TextCondition(prior.embed([text]).expand(draws, -1, -1), prior.embed([""]))
    own, found = float(redness(ball(BALLS["red"], prior.size))), []
    for level in LEVELS:
        times = torch.full((draws,), timestep(prior.schedule, level))
        alpha, sigma = signal_and_noise(prior.schedule, times, latents)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        clean = prior.denoise(alpha * latents + sigma * noise, times, condition, scale).image
        found.append(mean(redness(to_unit(prior.decode(clean))).tolist()) / own)
    return {"name": name, "scale": scale, "redness": found}


def ball(color: tuple[float, float, float], size: int) -> Tensor:
    """A soft disk over white, two fifths as wide as the image: (1, 3, size, size) in [0, 1]."""
    across = torch.linspace(-1, 1, size)
    alpha = ((0.4 - (across[:, None].square() + across.square()).sqrt()) * 12).sigmoid()
    return (torch.tensor(color)[:, None, None] * alpha + 1 - alpha)[None]


def redness(images: Tensor) -> Tensor:
    """(n, 3, H, W) -> (n,)."""
    return (images[:, 0] - images[:, 1:].mean(1)).mean((1, 2))


if __name__ == "__main__":
    main()
