"""The main job on the bundled cars. The best comes first: one car by the shipped model, from one image, as a turntable
and a colored mesh, its field as it is beside the distilled one. Then the way there: train, export, measure, render. Run
by `make demo` (four minutes on two cores) and `make demo-full`.

Writes outputs/demo/: turntable.gif, turntable.mp4 and mesh.glb (the shipped model's), shipped.png (its views of the
car, above the distilled ones), shipped/, distilled/; loss.png (the training's loss over its steps), results.json,
report.md, report.html (its evaluation), contact_sheet.png (the car by the model just trained), car/, run/ (config.yaml,
run.json, TensorBoard, checkpoints), model/ (what `vcgen.load` opens) and log.txt.

`--full` trains for ten minutes, measures every view of the test cars, and then trains field and diffusion prior
together for two minutes to see the prior's loss fall: joint.png, joint/. `--quick` trains for seconds: it shows that
everything works, not what is learned. `--file` also files the figures among the benchmarks' results."""

import argparse
import codecs
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, command_line, days, hardware, save_results, weights_environment
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views

#: What the demo promises to write.
WRITTEN = (
    "shipped.png",
    "turntable.gif",
    "turntable.mp4",
    "mesh.glb",
    "distilled/turntable.gif",
    "loss.png",
    "report.html",
    "results.json",
    "contact_sheet.png",
    "run/config.yaml",
    "log.txt",
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
#: Steps a minute of the field's training, on two cores of an AMD EPYC without other work.
USUAL = 190


def main() -> None:
    options = parsed()
    minutes = 0.2 if options.quick else options.minutes or (9.5 if options.full else 2.0)
    started = time.time()
    out = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    image = write_input(out / "input_car.png")
    render_shipped(out, image)
    train_and_measure(out, minutes, options.full)
    render_trained(out, image)
    losses = train_jointly(out, 0.1 if options.quick else 2.0) if options.full else None
    figures = report(out, losses, time.time() - started)
    if options.file:
        save_results("demo", figures, table(figures["rows"]), options.quick)
    print(json.dumps(figures))


def parsed() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--full", action="store_true", help="train longer, measure all views, train the prior, too")
    parser.add_argument("--minutes", type=float, help="training time of the field (default: 2; with --full 9.5)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "demo")
    parser.add_argument("--file", action="store_true")
    return parser.parse_args()


def render_shipped(out: Path, image: Path) -> None:
    """One car by the shipped model: turntable and mesh; its views as they are above those of the distilled field."""
    shipped = "render --model data/pretrained/cars64 --as_is true --elevation 20 --image"
    run(out, shipped, image, "--out", out / "shipped")
    keep(out, "shipped", "turntable.gif", "turntable.mp4", "mesh.glb")
    distilled = ("--distill", "configs/distill.yaml", "--mesh-resolution", 0)
    run(out, shipped, image, "--out", out / "distilled", *distilled)
    stack([out / "shipped" / "contact_sheet.png", out / "distilled" / "contact_sheet.png"], out / "shipped.png")
    print(
        f"\nlook: {os.path.relpath(out)}/turntable.gif, mesh.glb, shipped.png (as it is, above distilled)", flush=True
    )


def train_and_measure(out: Path, minutes: float, full: bool) -> None:
    """out/run, out/model, out/loss.png, and the evaluation of that model."""
    protocol = f"configs/protocols/cars64_view0{'' if full else '_sparse'}.json"
    run(out, "fit -c configs/cars64.yaml --trainer.max_time", days(minutes), "--trainer.default_root_dir", out / "run")
    losses = scalars(out / "run", "train/loss")
    draw_curve(losses, out / "loss.png", "the training's loss")
    if (steps := losses[-1][0]) < USUAL / 3 * minutes:
        found = f"\nonly about {steps} steps in {minutes:g} minutes, where two free cores take {USUAL} a minute"
        print(
            f"{found}: the model is unfinished; train it longer with --minutes, or when the machine is free", flush=True
        )
    run(out, "export --checkpoint", out / "run" / "checkpoints" / "last.ckpt", "--out", out / "model")
    measured = f"evaluate --data data/cars64/test --protocol {protocol} --lpips squeeze"
    run(out, f"{measured} --baselines --train data/cars64/train --model", out / "model", "--out", out)


def render_trained(out: Path, image: Path) -> None:
    """The car by the model that was just trained."""
    run(out, "render --as_is true --elevation 20 --model", out / "model", "--image", image, "--out", out / "car")
    keep(out, "car", "contact_sheet.png")


def keep(out: Path, folder: str, *names: str) -> None:
    """What a rendering has made, where one looks first."""
    for name in names:
        if (out / folder / name).exists():
            shutil.copy(out / folder / name, out / name)


def train_jointly(out: Path, minutes: float) -> list[tuple[int, float]]:
    """Field and prior together, from that model on; returns and draws the prior's loss."""
    command = "fit -c configs/cars64.yaml -c configs/cars64_prior.yaml --model.train_field true"
    command += f" --model.optimizer.warmup_steps 20 --trainer.log_every_n_steps 1 --trainer.max_time {days(minutes)}"
    run(out, f"{command} --model.pretrained", out / "model", "--trainer.default_root_dir", out / "joint")
    losses = scalars(out / "joint", "train/denoising")
    draw_curve(losses, out / "joint.png", "the prior's loss")
    return losses


def scalars(run: Path, name: str, parts: int = 12) -> list[tuple[int, float]]:
    """(step, value) from a run's TensorBoard files, in means over parts of the run: single batches are noisy."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    points = [(event.step + 1, event.value) for event in events.Scalars(name)]
    size = -(-len(points) // parts)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[len(group) // 2][0], sum(value for _, value in group) / len(group)) for group in groups]


def draw_curve(
    points: list[tuple[int, float]], path: Path, what: str, size: tuple[int, int] = (480, 240), margin: int = 40
) -> None:
    """A line through the points, from zero up."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    width, height = (side - 2 * margin for side in size)
    right, top = max(x for x, _ in points), max(y for _, y in points)
    pen.rectangle((margin, margin, margin + width, margin + height), outline="gray")
    pen.line(
        [(margin + width * x / right, margin + height * (1 - y / top)) for x, y in points], fill=(0, 90, 200), width=2
    )
    pen.text((margin, margin - 16), f"{what}, 0 to {top:.2g}, over {right} steps", fill="black")
    image.save(path)


def stack(sheets: list[Path], path: Path) -> None:
    """Images of equal size, one below the other."""
    from PIL import Image

    images = [Image.open(sheet) for sheet in sheets]
    width, height = images[0].size
    whole = Image.new("RGB", (width, height * len(images)))
    for number, image in enumerate(images):
        whole.paste(image, (0, number * height))
    whole.save(path)


def run(out: Path, command: str, *more: object) -> None:
    """Run a vcgen command from the repository's root; what it says goes to the terminal as it comes, and into
    out/log.txt.

    command: words between spaces. more: words that may hold spaces, as paths do."""
    arguments, log = [*command.split(), *map(str, more)], out / "log.txt"
    print(f"\n$ vcgen {' '.join(arguments)}", flush=True)
    environment = {**os.environ, **weights_environment(), "COLUMNS": os.environ.get("COLUMNS", "120")}
    if sys.stdout.isatty():
        environment |= {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "1"}  # rich draws its bars through the pipe, too
    with log.open("a") as file:
        file.write(f"$ vcgen {' '.join(arguments)}\n")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "bufsize": 0}
        process = subprocess.Popen([sys.executable, "-m", "vcgen", *arguments], cwd=ROOT, env=environment, **pipes)
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode  # a piece may end inside a character
        while piece := process.stdout.read(256):
            text = decode(piece)
            sys.stdout.write(text)
            sys.stdout.flush()
            file.write(ESCAPES.sub("", text))
    if process.wait():
        sys.exit(f"demo: `vcgen {arguments[0]}` failed with status {process.returncode}; see {log}")


def write_input(path: Path) -> Path:
    """Image 0 of the first test car, as a PNG with alpha."""
    import numpy as np
    from PIL import Image

    rgb, alpha = decode_views(read_index(ROOT / "data" / "cars64" / "test").read(0), [0])
    pixels = np.concatenate([rgb, alpha], 1)[0].transpose(1, 2, 0)
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(path)
    return path


def report(out: Path, losses: list[tuple[int, float]] | None, seconds: float) -> dict:
    """Print the table and the paths; returns the figures."""
    results = {"vcgen": out, **{name: out / "baselines" / name for name in ("copy_input", "mean_image")}}
    results = {name: json.loads((folder / "results.json").read_text()) for name, folder in results.items()}
    rows = {name: found["mean"] for name, found in results.items()}
    print("\n" + "\n".join(table(rows)))
    if losses:
        (start, first), (end, last) = losses[0], losses[-1]
        print(f"\njoint training, the prior's loss: {first:.3f} at step {start}, {last:.3f} at step {end}")
    print(f"\n{seconds / 60:.1f} minutes. Written to {os.path.relpath(out)}/:")
    for name in WRITTEN:
        print(f"  {name}" if (out / name).exists() else f"  {name}: missing")
    return {
        "program": "demo",
        "hardware": hardware(),
        "minutes": round(seconds / 60, 2),
        "images": results["vcgen"]["counts"]["images"],
        "rows": rows,
        "interval95": {name: found["interval95"] for name, found in results.items()},
        "denoising": losses,
    }


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Markdown that reads well in a terminal, too."""
    metrics = [name for name in rows["vcgen"] if name in ("psnr", "ssim") or name.startswith("lpips")]
    lines = [f"| {'test cars, input view 0':<24}" + "".join(f"| {name:>14} " for name in metrics) + "|"]
    lines.append(f"| {'-' * 23} " + f"| {'-' * 13}: " * len(metrics) + "|")
    for name, means in rows.items():
        lines.append(
            f"| {name:<24}" + "".join(f"| {format(means[m], '.3f') if m in means else '-':>14} " for m in metrics) + "|"
        )
    return lines


if __name__ == "__main__":
    main()
