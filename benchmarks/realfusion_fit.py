"""One object of the RealFusion benchmark: fitted by a method from one image, and measured against what is known of
it.
"""

import logging
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from common import ROOT
from objects import KnownObject
from oracle import Oracle, OracleFusion
from shaded import draw
from vcgen.cameras import Cameras
from vcgen.checkpoints.build import instantiate
from vcgen.data.datamodules.single import Same
from vcgen.data.viewpoints import around
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.io import replacing
from vcgen.metrics.geometry import compare
from vcgen.metrics.image import Metrics
from vcgen.metrics.janus import AZIMUTHS, janus
from vcgen.metrics.sharpness import sharpness
from vcgen.personalization.base import load_personal
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.systems.realfusion.system import RealFusion
from vcgen.systems.text_to_3d.system import TextTo3D
from vcgen.types import Example, Views

#: Half the edge of the volume and the radius of the sphere that is fitted: the objects' own radius is 0.5.
SPACE = {"half_size": 0.6, "radius": 0.6}
#: Side in pixels of the three sides that sharpness is measured on.
SHARP = 128
#: What differs from configs/realfusion.yaml. The oracle's images are lit as they are, so the field shows color alone,
#: and it needs no regularizer that costs normals.
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "reference": {"weights": {"sds": 0.0}},
    "oracle": {
        "weights": {"smoothness": 0.0, "orientation": 0.0},
        "options": {"albedo_only": 1.0, "background": "white", "guidance_scale": [1.0, 1.0]},
    },
}


class Given(RealFusion):
    """RealFusion that is handed photo and prior by :func:`fit`, and is looked at where it is."""

    def setup(self, stage: str) -> None:
        """Nothing is left to do."""

    def on_train_end(self) -> None:
        """Nothing is written."""


class WithTruth(OracleFusion, Given):
    """The same with the oracle."""


def fit(
    known: KnownObject, method: str, prior: Path, steps: int, personal_steps: int | None, folder: Path
) -> tuple[RealFusion, float]:
    """A scene from the reference view of ``known``, and the seconds it took. prior: the text prior's folder, not looked
    at by "reference" and "oracle". personal_steps: of personalization; None: as its configuration has it. folder: for
    what personalization leaves behind, and for the scene: one that is there already is read, not fitted again."""
    start, path = time.perf_counter(), folder / "scene.safetensors"
    photo = known.views[[known.reference()]][None]
    if path.is_file():
        system = untrained(method, "none", known.noun, photo)
        system.load_state_dict(load_file(path))
        with safe_open(path, "pt") as file:
            return system.eval(), float(file.metadata()["seconds"])
    told, subject = told_by(known, method, prior, personal_steps, folder)
    system = untrained(method, str(prior), subject, photo)
    if told is not None:
        system.use_prior(told)
    if method == "oracle":
        system.known = known
    train(system, photo, known.name, steps)
    seconds = time.perf_counter() - start
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(system.state_dict(), temporary, {"seconds": str(seconds)})
    return system, seconds


def untrained(method: str, prior: str, subject: str, photo: Views) -> RealFusion:
    """The scene before its first step."""
    init_args = yaml.safe_load((ROOT / "configs" / "realfusion.yaml").read_text())["model"]["init_args"]
    for part, changes in CHANGES.get(method, {}).items():
        init_args[part] = {**init_args.get(part, {}), **changes}
    init_args["scene"] |= SPACE
    init_args |= {"prior": prior, "prompt": {**init_args.get("prompt", {}), "subject": subject}}
    pl.seed_everything(0, verbose=False)
    system = instantiate(WithTruth if method == "oracle" else Given, init_args)
    system.use_reference(photo)
    return system


def told_by(known: KnownObject, method: str, prior: Path, steps: int | None, folder: Path) -> tuple[Any, str]:
    """The prior of a method, None for none, and what names the object in its prompts."""
    if method == "reference":
        return None, known.noun
    if method == "oracle":
        return Oracle(known.views.size[0]), known.noun
    told = TextPrior.load(prior)
    if method == "sds":
        return told, known.noun
    return told, load_personal(told, personalize(known, method, prior, steps, folder))


def train(system: TextTo3D, photo: Views, name: str, steps: int) -> None:
    """As ``vcgen fit`` trains, without files."""
    example = Example(photo, photo, (name,))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="auto",
            devices=1,
            gradient_clip_val=10.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(system, DataLoader(Same(example, 1 << 40), batch_size=None))
    system.eval()


@torch.no_grad()
def measure(system: TextTo3D, known: KnownObject, metrics: Metrics) -> tuple[dict[str, float | None], Tensor]:
    """All numbers of one fitted scene or refined mesh, and its images (views, 3, H, W) over white, the reference view
    first. None: not to be had.
    """
    order = view_order(known)
    truth = known.views[order].on(1.0)
    images = render(system, known.views[order].cameras, known.views.size)[0]
    scores = metrics(images, truth)
    record: dict[str, float | None] = {f"ref_{name}": value for name, value in scores[0].items()}
    record |= {f"novel_{name}": float(np.mean([score[name] for score in scores[1:]])) for name in metrics.names}
    camera = known.views[order[:1]].cameras
    sides = around(camera, system.scene.center, torch.tensor(AZIMUTHS))
    color, alpha = render(system, sides, known.views.size)
    record["janus"] = janus(straight(color, alpha), alpha)
    color, alpha = render(system, sides[1:], (SHARP, SHARP))
    record["sharpness"] = sharpness(straight(color, alpha), alpha)
    if known.triangles is not None:
        record["janus_truth"] = janus(*draw(known.triangles, known.corner_rgb, sides, known.views.size[0]))
        record["sharpness_truth"] = sharpness(*draw(known.triangles, known.corner_rgb, sides[1:], SHARP))
        record |= shape(system, known)
    return record, images


def straight(color: Tensor, alpha: Tensor) -> Tensor:
    """Colors (n, 3, H, W) over white without the white, where alpha (n, 1, H, W) is above 0."""
    return ((color - 1 + alpha) / alpha.clamp(min=1e-6)).clamp(0, 1)


def shape(system: TextTo3D, known: KnownObject) -> dict[str, float | None]:
    """Shape metrics of the extracted mesh, or of the system's own ``surface``; without one nothing is shared with the
    truth's volume, and the distance is not defined.
    """
    try:
        own = getattr(system, "surface", None)
        found = compare(extract_mesh(system.whole_field).mesh if own is None else own, known.mesh)
    except UserError:
        return {"chamfer": None, "fscore": 0.0, "iou": 0.0}
    return {"chamfer": found.chamfer, "fscore": found.fscore, "iou": found.iou}


def view_order(known: KnownObject) -> list[int]:
    """The reference view, then all others."""
    reference = known.reference()
    return [reference, *(i for i in range(len(known.views.images)) if i != reference)]


def render(system: TextTo3D, cameras: Cameras, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images over white and opacities of cameras (n,)."""
    field = system.field(None)
    seen = [system.render(field, cameras[i : i + 1].reshape(1, 1), size) for i in range(len(cameras.near))]
    return torch.cat([s.rgb[0] for s in seen]).clamp(0, 1), torch.cat([s.alpha[0] for s in seen])


def personalize(known: KnownObject, method: str, prior: Path, steps: int | None, folder: Path) -> Path:
    """Teach a prior the object from its reference view, by configs/METHOD.yaml in its own number of steps or in
    ``steps``; done once. Returns the run's folder."""
    run, done = folder / "personal", folder / "personal" / "done"
    if done.is_file():
        return run
    folder.mkdir(parents=True, exist_ok=True)
    view = known.views[known.reference()]
    pixels = torch.cat([view.images, view.alpha]).mul(255).round().byte().movedim(0, -1).numpy()
    Image.fromarray(pixels).save(folder / "photo.png")
    short = [] if steps is None else ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps)]
    words = [] if method == "textual_inversion" else ["--model.method.noun", known.noun]
    if words and short:  # a class image is seen about four times
        words += ["--model.preservation.count", str(max(1, steps // 4))]
    command = [
        sys.executable,
        "-m",
        "vcgen",
        "fit",
        "-c",
        f"configs/{method}.yaml",
        "--trainer.default_root_dir",
        run.resolve(),
        "--data.image",
        (folder / "photo.png").resolve(),
        "--data.size",
        view.size[0],
        "--model.prior",
        prior.resolve(),
        *words,
        *short,
    ]
    words = [str(word) for word in command]
    finished = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode:
        reason = next((line for line in reversed(finished.stderr.splitlines()) if line.strip()), "no message")
        raise UserError(f"{known.name}, {method}: personalization failed: {reason}")
    done.touch()
    return run
