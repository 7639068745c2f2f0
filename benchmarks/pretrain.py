"""The model folder that is shipped, data/pretrained/cars64: field, then prior, exported in half precision, measured,
with its model card.

  python benchmarks/pretrain.py --field-minutes 60 --prior-minutes 90
  python benchmarks/pretrain.py --field outputs/learning/vcgen_60min/model --prior
  outputs/cars64_prior/checkpoints/last.ckpt

The second form takes parts that are trained already.
"""

import argparse
import json
import shutil
from datetime import date
from pathlib import Path

from common import ROOT, days, hardware, vcgen

CARD = """# cars64: a small NerfDiff of low-poly cars, 64 x 64 pixels

One image of a car in; a radiance field, novel views, samples and a distilled field out. For trying vcgen, not for \
production.

    vcgen render --model data/pretrained/cars64 --image car.png --out outputs/car --distill configs/distill.yaml

| | |
| --- | --- |
| data | `data/cars64/train`: {objects} scenes of {groups} models (CC0), 20 views each; three models held out \
for validation |
| field | `vcgen fit -c configs/cars64.yaml{field_time}`, {field} |
| prior | `vcgen fit -c configs/cars64.yaml -c configs/cars64_prior.yaml --model.pretrained \
FIELD{prior_time}`, {prior} |
| hardware | {hardware} |
| weights | moving averages, float16; {size:.1f} MB |
| amortized field | {amortized} |
| date | {date} |

Measured on the 15 test cars (five models), input view 0, the other 39 views each, by `vcgen evaluate`; LPIPS with \
SqueezeNet. What
distillation adds is measured by `benchmarks/distillation.py`. It knows cars like those it was trained on, from 1.3 \
units away, on white or with alpha.
Licence: as vcgen's; the training images are CC0 (`data/cars64/LICENSE.md`).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--field-minutes", type=float, default=60)
    parser.add_argument("--prior-minutes", type=float, default=90)
    parser.add_argument("--field", type=Path, help="a model folder whose field is taken instead of training one")
    parser.add_argument(
        "--prior", type=Path, help="a checkpoint of cars64_prior.yaml on that field, instead of training one"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "pretrain")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "pretrained" / "cars64")
    chosen = parser.parse_args()
    field = chosen.field or train_field(chosen.work / "field", chosen.field_minutes)
    prior = chosen.prior or train_prior(chosen.work / "prior", field, chosen.prior_minutes)
    model = chosen.work / "model"
    vcgen("export", "--checkpoint", prior, "--out", model, "--half")
    vcgen(
        "evaluate",
        "--model",
        model,
        "--data",
        "data/cars64/test",
        "--protocol",
        "configs/protocols/cars64_view0.json",
        "--out",
        chosen.work / "evaluation",
        "--lpips",
        "squeeze",
        "--offline",
        "--overwrite",
    )
    times = None if chosen.field else chosen.field_minutes, None if chosen.prior else chosen.prior_minutes
    write_card(model, field, chosen.work / "evaluation", times)
    shutil.rmtree(chosen.out, ignore_errors=True)
    shutil.copytree(model, chosen.out)
    print(
        json.dumps({"program": "pretrain", "hardware": hardware(), "mean": results(chosen.work / "evaluation")["mean"]})
    )


def train_field(run: Path, minutes: float) -> Path:
    """The field's model folder."""
    vcgen("fit", "-c", "configs/cars64.yaml", "--trainer.default_root_dir", run, "--trainer.max_time", days(minutes))
    vcgen("export", "--checkpoint", run / "checkpoints" / "last.ckpt", "--out", run / "model")
    return run / "model"


def train_prior(run: Path, field: Path, minutes: float) -> Path:
    """The checkpoint of prior and field."""
    vcgen(
        "fit",
        "-c",
        "configs/cars64.yaml",
        "-c",
        "configs/cars64_prior.yaml",
        "--model.pretrained",
        field.resolve(),
        "--trainer.default_root_dir",
        run,
        "--trainer.max_time",
        days(minutes),
    )
    return run / "checkpoints" / "last.ckpt"


def write_card(model: Path, field: Path, evaluation: Path, minutes: tuple[float | None, float | None]) -> None:
    """README.md of the folder. minutes: that field and prior were trained here; None for a part that was given, whose
    time is not known.
    """
    index = json.loads((ROOT / "data" / "cars64" / "train" / "index.json").read_text())
    samples = [sample for shard in index["shards"] for sample in shard["samples"]]
    mean = results(evaluation)["mean"]
    trained = [json.loads((folder / "config.json").read_text())["training"] for folder in (field, model)]
    machine = hardware()
    times = ["" if time is None else f" --trainer.max_time {days(time)}" for time in minutes]
    card = CARD.format(
        objects=len(samples),
        groups=len({sample["group"] for sample in samples}),
        date=date.today(),
        field=f"{trained[0]['step']} steps",
        prior=f"{trained[1]['step']} steps",
        field_time=times[0],
        prior_time=times[1],
        size=sum(path.stat().st_size for path in model.rglob("*.safetensors")) / 1e6,
        hardware=machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}",
        amortized=", ".join(
            f"{name} {mean[key]:.3f}"
            for name, key in (("PSNR", "psnr"), ("SSIM", "ssim"), ("LPIPS", "lpips_squeeze"))
            if key in mean
        ),
    )
    (model / "README.md").write_text(card)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


if __name__ == "__main__":
    main()
