"""Scenes made of texts: fitted in processes of their own, by processor time, and looked at from all sides."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from common import ROOT, days
from vcgen.checkpoints import model_folder
from vcgen.data.captions import sentence
from vcgen.data.input_camera import InputCamera
from vcgen.evaluation.retrieval import AMBIENT
from vcgen.meshes.buffers import buffers
from vcgen.meshes.draw import draw, drawable
from vcgen.meshes.parts import read_surface
from vcgen.rendering.shading import Kind
from vcgen.rendering.volume import render_image

#: What toys64 was trained on, by the names of its captions.
CATEGORIES = "car", "seat", "fish", "spaceship", "food item", "tree", "piece of furniture", "building"
#: How captions, and so prompts, begin.
PHOTO = "a photo of "
#: Faces of a mesh that is looked at, at most.
MOST_FACES = 1_000_000


@dataclass(frozen=True)
class System:
    """How a scene is fitted. name: of its folders. configs: stems of files in configs/. options: on top of them, for
    `vcgen fit`. guide: the CLIP model that guides it, if one does. coarse: the system whose scene it refines.
    """

    name: str
    configs: tuple[str, ...]
    options: tuple[str, ...] = ()
    guide: str | None = None
    coarse: "System | None" = None

    def changed(self, name: str, *options: str) -> "System":
        """The same with more options, under another name."""
        return replace(self, name=name, options=(*self.options, *options))


DREAMFUSION = System("dreamfusion", ("dreamfusion",))
SJC = System("sjc", ("dreamfusion", "sjc"))
DREAMFIELDS = System("dreamfields", ("dreamfusion", "dreamfields"), guide="clip64_guide")
PROLIFICDREAMER = System("prolificdreamer", ("dreamfusion", "prolificdreamer"))
SYSTEMS = {system.name: system for system in (DREAMFUSION, SJC, DREAMFIELDS, PROLIFICDREAMER)}
#: A mesh, of which nothing is written but the mesh itself.
MAGIC3D = System("magic3d", ("magic3d",), ("--model.outcome.mesh_resolution", "64"), coarse=DREAMFUSION)


@dataclass(frozen=True)
class Budget:
    """What a scene's fit may take. seconds: of processor time, for its training; quick: a few steps instead."""

    seconds: float
    prior: Path
    out: Path
    quick: bool = False

    def folder(self, system: System, thing: str) -> Path:
        """Of a scene."""
        length = "few" if self.quick else f"{self.seconds:g}s"
        return self.out / f"{system.name}_{length}" / thing.replace(" ", "_")

    @property
    def limits(self) -> list[str]:
        """For `vcgen fit`."""
        if self.quick:
            return ["--trainer.max_steps", "3", "--trainer.val_check_interval", "3"]
        time = days(self.seconds / 60)
        return ["--trainer.max_steps", "-1", "--trainer.val_check_interval", "1000000", "--trainer.max_time", time]


@dataclass(frozen=True)
class Scene:
    """A scene of a system, and what fitting it cost: processor seconds with start and images, steps, peak bytes."""

    system: str
    thing: str
    folder: Path
    seconds: float
    steps: int
    peak: int

    @property
    def prompt(self) -> str:
        """As the judge is asked."""
        return PHOTO + self.thing


def thing(category: str, color: str) -> str:
    """What a run is told: "a red car"."""
    return sentence(category, color).removeprefix(PHOTO)


def fit(system: System, name: str, budget: Budget) -> Scene:
    """Fit a scene that is not there yet, in a process of its own on one core, by its processor time."""
    folder = budget.folder(system, name)
    record = folder / "record.json"
    if not record.is_file():
        if system.coarse:
            fit(system.coarse, name, budget)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{system.name}: {name}", file=sys.stderr, flush=True)
        record.write_text(json.dumps(fitted(system, name, budget)))
    return Scene(system.name, name, folder, **json.loads(record.read_text()))


def fitted(system: System, name: str, budget: Budget) -> dict[str, float]:
    """Run it; returns its cost. The program ends with a line where it fails."""
    folder = budget.folder(system, name)
    command = [sys.executable, "benchmarks/processor_time.py"]
    command += [word for stem in system.configs for word in ("-c", f"configs/{stem}.yaml")]
    command += ["--data.prompt", name, "--trainer.default_root_dir", str(folder), *budget.limits]
    command += [] if system.guide else ["--model.prior", str(budget.prior)]
    command += ["--model.coarse", str(budget.folder(system.coarse, name))] if system.coarse else []
    command += ["--model.outcome.frames", "0", "--model.outcome.mesh_resolution", "0", *system.options]
    command += ["--trainer.accelerator", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    log = folder / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"fitting {name} by {system.name} failed; see {log}")
    steps = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["global_step"]
    return {"seconds": used.ru_utime + used.ru_stime, "steps": steps, "peak": used.ru_maxrss * 1024}


@torch.no_grad()
def looks(folder: Path, azimuths: Sequence[float], size: int) -> tuple[Tensor, Tensor]:
    """A fitted field from sides: straight color (n, 3, size, size) in [0, 1] and opacity (n, 1, size, size)."""
    system = model_folder.load(folder / "field")
    camera = InputCamera.of(system.config)
    around = camera.cameras(list(azimuths), camera.elevation)
    seen = [
        render_image(system.encoder.scene(), around[i : i + 1][None], (size, size), system.render_eval)
        for i in range(len(azimuths))
    ]
    alpha = torch.cat([one.alpha[0] for one in seen])
    color = torch.cat([one.rgb[0] for one in seen]) - (1 - alpha)
    return (color / alpha.clamp(min=1e-3)).clamp(0, 1), alpha


def mesh_looks(
    mesh: Path, camera: InputCamera, azimuths: Sequence[float], size: int, kind: Kind = "albedo"
) -> tuple[Tensor, Tensor]:
    """The same of an .obj file as vcgen writes it. "textureless": white, lit from the camera, as fields are judged."""
    scenery = drawable(read_surface(mesh, "z", MOST_FACES), None)
    cameras, colors, alphas = camera.cameras(list(azimuths), camera.elevation), [], []
    for number in range(len(azimuths)):
        rgba = draw(scenery, cameras[number], (size, size)).float() / 255
        color = rgba[..., :3]
        if kind == "textureless":
            light = F.normalize(cameras[number].centers, dim=-1)
            cosine = (buffers(scenery, cameras[number], (size, size))[1].float() @ light).clamp(min=0)
            color = (AMBIENT + (1 - AMBIENT) * cosine)[..., None].expand_as(color)
        colors.append(color.movedim(-1, 0))
        alphas.append(rgba[..., 3:].movedim(-1, 0))
    return torch.stack(colors), torch.stack(alphas)


def over_white(color: Tensor, alpha: Tensor) -> Tensor:
    """(n, 3, H, W) in [0, 1]."""
    return color * alpha + 1 - alpha
