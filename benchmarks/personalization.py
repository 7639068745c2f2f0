"""How fast does a text prior learn a photo, beside diffusers' own example scripts on the same prior and batch?

  python benchmarks/personalization.py                       ours alone
  python benchmarks/personalization.py --scripts EXAMPLES    beside the scripts of a checkout of diffusers, in turns
  python benchmarks/personalization.py --quick               a smaller prior and too few steps for its figures to mean
  much

Both are run as their users run them, as programs, twice: the difference of a long and a short run is the time of the
steps between them, and starting, reading and saving fall out. The prior has random weights, and the sizes of
configs/text2image.yaml. On a machine with other work, the processor time is the one to trust."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from common import ROOT, command_line, hardware, save_results

#: Method -> the scripts' name and its images per step, as in our configurations.
SCRIPTS = {
    "textual_inversion": ("textual_inversion.py", 4),
    "lora": ("train_dreambooth_lora.py", 1),
    "dreambooth": ("train_dreambooth.py", 1),
}
#: Of the photo and the prior's images, in pixels.
SIZE = 64


@dataclass(frozen=True)
class Cost:
    """Seconds: on the clock, and of the processor."""

    wall: float
    processor: float


def prepare(folder: Path, quick: bool) -> None:
    """A prior and a photo."""
    from omegaconf import OmegaConf

    from vcgen.diffusion.text_networks import TextPriorOptions, new_text_prior

    sizes = dict(OmegaConf.load(ROOT / "configs" / "text2image.yaml").model.init_args.sizes)
    if quick:
        sizes |= {"autoencoder": [16, 16, 16], "channels": [16, 32, 32], "width": 48, "heads": 2, "depth": 1}
    captions = [f"a photo of a car, {view} view" for view in ("front", "side", "back")]
    new_text_prior(captions, TextPriorOptions(**sizes)).save(folder / "prior")
    image = Image.new("RGB", (SIZE, SIZE), "white")
    ImageDraw.Draw(image).ellipse((8, 16, 56, 48), fill=(200, 30, 30))
    (folder / "photos").mkdir()
    image.save(folder / "photos" / "photo.png")


def ours(method: str, folder: Path, steps: int) -> list[str]:
    """``vcgen fit`` with the shipped configuration; without preservation, validation and images."""
    noun = "initial" if method == "textual_inversion" else "noun"
    options = {
        "data.image": folder / "photos" / "photo.png",
        "data.size": SIZE,
        "model.prior": folder / "prior",
        f"model.method.{noun}": "car",
        "model.images.rows": 0,
        "trainer.max_steps": steps,
        "trainer.val_check_interval": 10 * steps,
        "trainer.accelerator": "auto",
        "trainer.default_root_dir": folder / f"ours_{method}_{steps}",
    }
    if method != "textual_inversion":
        options["model.preservation"] = "null"
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["-m", "vcgen", "fit", "-c", str(ROOT / "configs" / f"{method}.yaml"), *words]


def theirs(script: Path, method: str, folder: Path, steps: int) -> list[str]:
    """The script with the same prior, photo, batch and learning rate."""
    options = {
        "pretrained_model_name_or_path": folder / "prior",
        "resolution": SIZE,
        "train_batch_size": SCRIPTS[method][1],
        "max_train_steps": steps,
        "output_dir": folder / f"theirs_{method}_{steps}",
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
    }
    if method == "textual_inversion":
        options |= {
            "train_data_dir": folder / "photos",
            "placeholder_token": "<e>",
            "initializer_token": "car",
            "save_steps": 10**9,
        }
    else:
        options |= {
            "instance_data_dir": folder / "photos",
            "instance_prompt": "a photo of sks car",
            "checkpointing_steps": 10**9,
        }
    return [str(script), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def run(words: list[str]) -> Cost:
    """What a program costs. Raises RuntimeError with its last lines where it fails."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            output.seek(0)
            raise RuntimeError(f"{' '.join(words[:4])} ... failed:\n{output.read()[-2000:]}")
        return Cost(time.perf_counter() - start, used.ru_utime + used.ru_stime)


def per_step(make, steps: tuple[int, int]) -> Cost:
    """Of one step: the long run's cost beyond the short one's."""
    short, long = (run(make(count)) for count in steps)
    count = steps[1] - steps[0]
    return Cost((long.wall - short.wall) / count, (long.processor - short.processor) / count)


def measure(scripts: Path | None, folder: Path, quick: bool, rounds: int) -> dict[str, dict[str, float]]:
    """Steps per second by method, ours and theirs in turns; medians over the rounds."""
    steps, found = (1, 3) if quick else (5, 85), {}
    for method, (name, batch) in SCRIPTS.items():
        sides = {"vcgen": lambda count, method=method: ours(method, folder, count)}
        if scripts is not None:
            (script,) = scripts.rglob(name)
            sides["diffusers"] = lambda count, method=method, script=script: theirs(script, method, folder, count)
        costs = {side: [] for side in sides}
        for _ in range(rounds):
            for side, make in sides.items():
                costs[side].append(per_step(make, steps))
        row = {"batch": batch}
        for side, values in costs.items():
            row[f"{side}_ms"] = 1000 * statistics.median(value.wall for value in values)
            row[f"{side}_processor_ms"] = 1000 * statistics.median(value.processor for value in values)
        if scripts is not None:
            row["ratio"] = row["diffusers_processor_ms"] / row["vcgen_processor_ms"]
        found[method] = row
    return found


def report(found: dict[str, dict[str, float]]) -> list[str]:
    """The table, as Markdown."""
    head = "| method | images / step | vcgen ms / step (processor) | diffusers' script | processor time ratio |"
    lines = [head, "| --- | --- | --- | --- | --- |"]
    for method, row in found.items():
        ours_cell = f"{row['vcgen_ms']:.0f} ({row['vcgen_processor_ms']:.0f})"
        other = (
            f"{row['diffusers_ms']:.0f} ({row['diffusers_processor_ms']:.0f}) | {row['ratio']:.2f}"
            if "ratio" in row
            else " | "
        )
        lines.append(f"| {method} | {row['batch']} | {ours_cell} | {other} |")
    return lines


def main() -> None:
    """Measure, print, file."""
    parser = command_line(__doc__)
    parser.add_argument("--scripts", type=Path, help="folder with diffusers' example scripts")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options.quick)
        found = measure(options.scripts, Path(folder), options.quick, 1 if options.quick else options.rounds)
    table = report(found)
    print("\n".join(table))
    figures = {"methods": found, "rounds": options.rounds, "hardware": hardware()}
    save_results("personalization", figures, table, options.quick or options.scripts is None)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
