"""A text becomes a turntable and a mesh: ProlificDreamer with the shipped text prior, start to end. Run by `make
demo-text`.

Writes outputs/demo_text/: scene/ (turntable, views, normals, depth, mesh.glb, mesh.obj, field/, TensorBoard,
checkpoints), and log.txt."""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

from common import ROOT
from demo import run

#: What the run's folder must hold at the end.
WRITTEN = "turntable.gif", "turntable.mp4", "views.png", "normals.png", "depth.png", "mesh.glb", "mesh.obj"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="a red car", help="what the scene is (default: a red car)")
    parser.add_argument("--steps", type=int, default=400, help="of the scene (default: 400)")
    parser.add_argument("--prior", default="data/pretrained/toys64", help="text prior (default: the shipped one)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "demo_text")
    options = parser.parse_args()
    started, out = time.time(), options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    run(
        out,
        f"fit -c configs/dreamfusion.yaml -c configs/prolificdreamer.yaml --trainer.max_steps {options.steps}",
        *("--data.prompt", options.prompt, "--trainer.val_check_interval", min(100, options.steps)),
        *("--model.prior", options.prior, "--trainer.default_root_dir", out / "scene"),
    )
    report(out, options.prompt, time.time() - started)


def report(out: Path, prompt: str, seconds: float) -> None:
    """The paths, and one line of JSON."""
    print(f'\n"{prompt}" in {seconds / 60:.1f} minutes. Written to {os.path.relpath(out)}/scene/:')
    files = [name for name in WRITTEN if (out / "scene" / name).exists()]
    for name in WRITTEN:
        print(f"  {name}" if name in files else f"  {name}: missing")
    print(json.dumps({"program": "demo_text", "prompt": prompt, "minutes": round(seconds / 60, 2), "files": files}))


if __name__ == "__main__":
    main()
