"""A scene of the RealFusion benchmark, refined as a mesh: by configs/magic3d.yaml, with the prior that it had."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import trimesh
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from common import ROOT
from objects import KnownObject
from oracle import Told
from realfusion_fit import CHANGES, told_by, train
from vcgen.checkpoints.build import instantiate
from vcgen.io import replacing
from vcgen.systems.mesh_refine.system import MeshRefine, solid
from vcgen.systems.realfusion.system import RealFusion
from vcgen.types import Finetunable

#: Guidance that knows the true images only refines what is there.
EXACT = {"class_path": "SDS", "init_args": {"start": 0.5, "end": 0.02}}


class Refined(MeshRefine):
    """MeshRefine that is handed scene and prior by :func:`refine`, and is looked at where it is."""

    def setup(self, stage: str) -> None:
        """Nothing is left to do."""

    def on_train_end(self) -> None:
        """Nothing is written."""

    @property
    def surface(self) -> trimesh.Trimesh:
        """The mesh as it is now."""
        return solid(self.scene)


class RefinedWithTruth(Told, Refined):
    """The same with the oracle."""


def refine(
    system: RealFusion,
    known: KnownObject,
    method: str,
    prior: Path,
    steps: int,
    personal_steps: int | None,
    folder: Path,
) -> tuple[Refined, float]:
    """The scene of ``system`` after so many steps of refinement, and the seconds that these took. Raises UserError
    where it has no surface.

    folder: of the scene's method, for what personalization has left there, and for the mesh: one that is there already
    is read, not refined again.
    """
    start, path = time.perf_counter(), folder / f"refined_{steps}.safetensors"
    told, subject = (None, known.noun) if path.is_file() else told_by(known, method, prior, personal_steps, folder)
    made = unrefined(system, method, subject)
    if path.is_file():
        made.load_state_dict(load_file(path))
        with safe_open(path, "pt") as file:
            return made.eval(), float(file.metadata()["seconds"])
    made.use_prior(told)
    if isinstance(made, Told):
        made.known = known
    train(made, system.reference, known.name, steps)
    seconds = time.perf_counter() - start
    with replacing(path) as temporary:
        save_file(made.state_dict(), temporary, {"seconds": str(seconds)})
    return made, seconds


def unrefined(system: RealFusion, method: str, subject: str) -> Refined:
    """The mesh before its first step: by configs/magic3d.yaml, but for the oracle, which knows shape and colors."""
    init_args: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "magic3d.yaml").read_text())["model"]["init_args"]
    if method == "oracle":
        init_args |= {"guidance": EXACT, "consistency": 0.01}
        init_args["options"] = {"render_size": 64, "noise_end": None, "grid_lr": 0.1} | CHANGES[method]["options"]
    init_args["prompt"] |= {"template": system.prompt.template, "subject": subject}
    pl.seed_everything(0, verbose=False)
    made = instantiate(RefinedWithTruth if method == "oracle" else Refined, init_args)
    whole = system.whole_field
    assert isinstance(whole, Finetunable)
    made.scene.start_from(whole)
    made.use_reference(system.reference)
    return made
