"""How far do the forms of SSIM lie apart on the same images?

``python benchmarks/which_ssim.py`` scores the shipped model's predictions of the bundled test cars;
``python benchmarks/which_ssim.py PREDICTION TRUTH`` two folders of images of the same names, such as those that another
program wrote, composited over white. Definitions are in docs/which_ssim.md.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import ROOT, hardware, save_results
from vcgen.checkpoints import model_folder
from vcgen.evaluation.protocol import load_protocol
from vcgen.evaluation.runner import Origin, Settings, evaluate_system
from vcgen.metrics.image import COLUMNS, FURTHER, Metrics

MODEL, DATA = ROOT / "data" / "pretrained" / "cars64", ROOT / "data" / "cars64" / "test"
FORMS = [name for name in COLUMNS if name.startswith("ssim")]
PSNRS = ["psnr", "psnr_unclamped"]
SHOWN = [name for name in FURTHER if name in (*PSNRS, *FORMS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="one view per car instead of 39")
    choice = parser.parse_args()
    rows = folders(*choice.folders) if choice.folders else shipped(choice.quick)
    values = {name: np.array([row[name] for row in rows]) for name in (*PSNRS, *FORMS)}
    lines, figures = table(values), {name: float(column.mean()) for name, column in values.items()}
    what = " and ".join(map(str, choice.folders)) or f"{MODEL.name} on {DATA.parent.name}/{DATA.name}, input view 0"
    head = [f"{len(rows)} images: {what}.", ""]
    print("\n".join([*head, *lines]))
    figures = {"program": "which_ssim", "images": len(rows), "hardware": hardware(), "mean": figures}
    save_results("which_ssim", figures, [*head, *lines], quick=choice.quick or bool(choice.folders))
    print(json.dumps(figures))


def shipped(quick: bool) -> list[dict[str, float]]:
    """The shipped model on the bundled test cars: the metrics of each image."""
    protocol = load_protocol(ROOT / "configs" / "protocols" / f"cars64_view0{'_sparse' if quick else ''}.json")
    settings = Settings(lpips=(), named=tuple(SHOWN))
    with tempfile.TemporaryDirectory() as out:
        origin = Origin(MODEL.name, model_folder.hashes(str(MODEL)))
        results = evaluate_system(model_folder.load(str(MODEL), "cpu"), DATA, protocol, Path(out), origin, settings)
    assert results is not None
    return results.images


def folders(prediction: Path, truth: Path) -> list[dict[str, float]]:
    """The metrics of each pair of images of one name."""
    metrics = Metrics([FURTHER[name] for name in SHOWN])
    names = [path.name for path in sorted(prediction.iterdir()) if (truth / path.name).is_file()]
    return [row for name in names for row in metrics(*(over_white(folder / name) for folder in (prediction, truth)))]


def over_white(path: Path) -> torch.Tensor:
    """An image (1, 3, height, width), float64 in [0, 1]; straight alpha."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGBA"))).permute(2, 0, 1)[None] / 255.0
    color, alpha = pixels.double().split([3, 1], 1)
    return color * alpha + (1 - alpha)


def table(values: dict[str, np.ndarray]) -> list[str]:
    """Means, and how far each form lies from scikit-image's default on the same image: mean, least, most."""
    lines = ["| column | mean | minus `ssim` | of single images |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {values[name].mean():.3f} dB | | |" for name in PSNRS]
    for name in FORMS:
        apart = values[name] - values["ssim"]
        spread = "" if name == "ssim" else f"{apart.mean():+.4f} | {apart.min():+.4f} to {apart.max():+.4f}"
        lines.append(f"| `{name}` | {values[name].mean():.4f} | {spread or '|'} |")
    return lines


if __name__ == "__main__":
    main()
