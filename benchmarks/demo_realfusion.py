"""One image becomes a turntable and a mesh: RealFusion on the bundled taxi, start to end. Run by `make
demo-realfusion`.

The shipped text prior first learns the taxi by textual inversion; then a scene is fitted to the image and, from other
sides, to what that prior makes of it. Writes outputs/demo_realfusion/: word/ (the learned word), scene/ (turntable,
normals, depth, mesh.glb, mesh.obj, field/, TensorBoard, checkpoints), and log.txt."""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

from common import ROOT
from demo import run

IMAGE, ELEVATION = "data/images/taxi.png", 26


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--word-steps", type=int, default=200, help="steps of textual inversion (default: 200)")
    parser.add_argument("--steps", type=int, default=400, help="steps of the scene (default: 400)")
    parser.add_argument("--prior", default="data/pretrained/toys64", help="text prior (default: the shipped one)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "demo_realfusion")
    options = parser.parse_args()
    started, out = time.time(), options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    photo = f"--data.image {IMAGE} --data.elevation {ELEVATION} --trainer.max_steps"
    run(
        out,
        f"fit -c configs/textual_inversion.yaml --model.method.initial taxi {photo} {options.word_steps}",
        *("--trainer.val_check_interval", options.word_steps, "--model.prior", options.prior),
        *("--trainer.default_root_dir", out / "word"),
    )
    run(
        out,
        f"fit -c configs/realfusion.yaml {photo} {options.steps} --model.prior",
        *(options.prior, "--model.learned", out / "word", "--trainer.default_root_dir", out / "scene"),
    )
    report(out, time.time() - started)


def report(out: Path, seconds: float) -> None:
    """The paths, and one line of JSON."""
    print(f"\n{seconds / 60:.1f} minutes. Written to {os.path.relpath(out)}/:")
    files = sorted(
        path.relative_to(out)
        for path in (out / "scene").iterdir()
        if path.suffix in (".gif", ".png", ".mp4", ".glb", ".obj")
    )
    print("\n".join(f"  {name}" for name in files))
    print(
        json.dumps(
            {"program": "demo_realfusion", "minutes": round(seconds / 60, 2), "files": [str(name) for name in files]}
        )
    )


if __name__ == "__main__":
    main()
