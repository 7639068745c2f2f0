"""Where does a step of RealFusion spend its time, and how does that change while the scene takes shape?

  python benchmarks/realfusion_step.py             a run of 200 steps on the bundled taxi, with configs/realfusion.yaml:
  minutes python benchmarks/realfusion_step.py --quick     ten steps

Processor time per step, of all threads: waiting for other programs is not in it. One step in ten refreshes the grid of
occupied cells, which is spread over all. "other" is the optimizer, the regularizers, clipping and what Lightning does.
"""

import json
import logging
import statistics
import time
import warnings
from collections import defaultdict
from pathlib import Path

import lightning.pytorch as pl
import torch
import yaml
from torch.utils.data import DataLoader

from common import ROOT, command_line, hardware, save_results
from timing import table
from vcgen.checkpoints.build import instantiate
from vcgen.data.datamodules.photo import PhotoData
from vcgen.data.datamodules.single import Same
from vcgen.diffusion.text_prior import TextPrior
from vcgen.systems.realfusion.system import RealFusion

#: Part of a step -> the method of RealFusion that does it. The prior's part is encoding, denoising and, in "backward",
#: the encoder's gradient.
PARTS = {"random view": "random_views", "prior": "distill", "photo": "photo_losses"}


class Timed(RealFusion):
    """RealFusion that keeps the seconds of its parts, step by step; photo and prior are handed to it."""

    def setup(self, stage: str) -> None:
        """Time every part."""
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for part, method in PARTS.items():
            setattr(self, method, self.timed(part, getattr(self, method)))
        refresh = self.timed("refresh", self.occupancy.refresh)
        object.__setattr__(self.occupancy, "refresh", refresh)

    def timed(self, part: str, function):
        """The same function, its seconds added to the present step's."""

        def wrapped(*arguments):
            start = time.process_time()
            result = function(*arguments)
            self.seconds[part][-1] += time.process_time() - start
            return result

        return wrapped

    def on_train_batch_start(self, batch, batch_index: int) -> None:
        """A step begins."""
        for part in (*PARTS, "refresh", "backward", "all", "occupied"):
            self.seconds[part].append(0.0)
        self.started = time.process_time()

    def on_before_backward(self, loss) -> None:
        """The losses are there."""
        self.before = time.process_time()

    def on_after_backward(self) -> None:
        """The gradients are there."""
        self.seconds["backward"][-1] = time.process_time() - self.before

    def on_train_batch_end(self, outputs, batch, batch_index: int) -> None:
        """A step ends."""
        self.seconds["all"][-1] = time.process_time() - self.started
        self.seconds["occupied"][-1] = float(self.occupancy.fraction())

    def on_train_end(self) -> None:
        """Nothing is written."""


def main() -> None:
    """Fit, print, file."""
    parser = command_line(__doc__)
    parser.add_argument("--steps", type=int, default=200, help="of the run, at least 10")
    parser.add_argument("--prior", type=Path, default=ROOT / "data" / "pretrained" / "toys64")
    options = parser.parse_args()
    steps = 10 if options.quick else options.steps
    system = fit(options.prior, steps)
    starts = sorted({first for first in (0, 10, steps // 4, steps // 2, steps - 10) if 0 <= first <= steps - 10})
    rows = [average(system.seconds, first, first + 10) for first in starts]
    columns = ["steps", *list(rows[0])[1:]]
    cells = [
        [row["steps"], *(f"{row[c]:.0%}" if c == "occupied" else f"{row[c]:.3f}" for c in columns[1:])] for row in rows
    ]
    size, prior = system.options.render_size, sum(p.numel() for p in system.text_prior.parameters())
    lines = table(
        f"Processor seconds per step; images of {size} px, a prior of {prior / 1e6:.0f} million parameters",
        columns,
        cells,
    )
    print("\n".join(lines))
    found = {
        "program": "realfusion_step",
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "steps": steps,
        "rows": rows,
    }
    save_results("realfusion_step", found, lines, options.quick)
    print(json.dumps(found))


def fit(prior: Path, steps: int) -> Timed:
    """The shipped configuration on the bundled taxi, without files."""
    config = yaml.safe_load((ROOT / "configs" / "realfusion.yaml").read_text())
    data = PhotoData(
        ROOT / "data" / "images" / "taxi.png",
        **{k: config["data"]["init_args"][k] for k in ("size", "fill", "fov", "distance")},
    )
    data.setup("validate")
    pl.seed_everything(0, verbose=False)
    system = instantiate(Timed, config["model"]["init_args"] | {"prior": str(prior)})
    system.use_reference(data.example.context)
    system.use_prior(TextPrior.load(str(prior)))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            devices=1,
            gradient_clip_val=config["trainer"]["gradient_clip_val"],
            logger=False,
            precision=config["trainer"]["precision"],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(system, DataLoader(Same(data.example, 1 << 40), batch_size=None))
    return system


def average(seconds: dict[str, list[float]], first: int, end: int) -> dict[str, float | str]:
    """Means over steps first ... end - 1."""
    means = {part: statistics.fmean(values[first:end]) for part, values in seconds.items()}
    whole, occupied = means.pop("all"), means.pop("occupied")
    return {
        "steps": f"{first} to {end - 1}",
        "all": whole,
        **means,
        "other": whole - sum(means.values()),
        "occupied": occupied,
    }


if __name__ == "__main__":
    main()
