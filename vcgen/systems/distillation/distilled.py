"""What evaluation and rendering see of a distillation: a system whose fields are distilled before they are shown."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from jsonargparse import get_loader
from msgspec import Struct
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.checkpoints.build import instantiate
from vcgen.errors import UserError
from vcgen.guidance.base import Guidance
from vcgen.guidance.ngd import NGD
from vcgen.io import check, read_bytes, replacing
from vcgen.systems.distillation.loop import Distillation, DistillOptions, distill
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.tensors import mismatch, read_tensors, write_tensors
from vcgen.terminal import one_line
from vcgen.types import Behind, FieldModel, Finetunable, Rendering, Scene, Views

ADVICE = "no configuration of a distillation; see configs/distill.yaml"
#: Bytes of such a file, which has a page of settings.
MAX_CONFIG = 1 << 16
#: What to do with a kept field that cannot be used.
KEPT = "delete it, and its object will be distilled again"


class StageModel(Struct):
    """The model part of a configuration file."""

    class_path: str
    init_args: dict[str, Any] = {}


class StageFile(Struct):
    """A configuration file, of which only that part is used."""

    model: StageModel


class Distilled:
    """A trained system with the contract ``field``, ``render``, whose fields are distilled.

    seed: of the noise; every object gets the same. keep: folder that finished fields are kept in, and found again; None
        keeps none.
    last: the state of the latest distillation, for whoever wants to look into it; None when fields were found.
    """

    def __init__(
        self, system: NerfDiff, guidance: Guidance, options: DistillOptions, seed: int = 0, keep: Path | None = None
    ):
        self.system, self.guidance, self.options, self.seed, self.keep = system, guidance, options, seed, keep
        self.last: Distillation | None = None
        guidance.attach(system.prior)

    @property
    def config(self) -> dict[str, Any]:
        """The model folder's."""
        return self.system.config

    @property
    def device(self) -> torch.device:
        """The system's."""
        return self.system.device

    @property
    def settings(self) -> str:
        """What determines the result besides system and image, as one line of JSON."""
        return json.dumps({"guidance": self.guidance.settings(), "options": asdict(self.options), "seed": self.seed})

    def field(self, context: Views) -> Finetunable:
        """(batch, 1) views -> their distilled fields; under a minute each on one CPU core at 64 px, unless they have
        been kept.
        """
        path = self.path_of(context)
        if path is not None and path.is_file():
            return self.restored(context, path)
        self.last = distill(self.system, context, self.guidance, self.options, self.seed)
        field = self.last.result
        if path is not None:
            store(field, path)
        return field

    def distill_together(self, context: Views) -> None:
        """Distill the fields of (batch, 1) views at the same time, which suits a GPU, and keep each; those kept already
        are left out.

        An object's random rays depend on its place in the batch, and so does fresh noise; the noise that views share
        does not. Raises UserError where objects cannot share a batch."""
        views = [context[i : i + 1] for i in range(len(context.images))]
        paths = [self.path_of(view) for view in views]
        missing = {number: path for number, path in enumerate(paths) if path is not None and not path.is_file()}
        if not missing:
            return
        fields = distill(self.system, context[list(missing)], self.guidance, self.options, self.seed).result
        for place, path in enumerate(missing.values()):
            store(fields[place : place + 1], path)

    def path_of(self, context: Views) -> Path | None:
        """The file that keeps the field of an input view; None where none is kept."""
        return None if self.keep is None else self.keep / f"{self.name_of(context)}.safetensors"

    def restored(self, context: Views, path: Path) -> Finetunable:
        """A kept field. Raises UserError when its file is damaged."""
        stored = read_tensors(path, KEPT)
        with torch.no_grad():
            field = cast(Finetunable, self.system.field(context))
        weights = field.weights().requires_grad_(False)  # a copy: the system's own stay as they are
        if difference := mismatch(weights.state_dict(), stored):
            raise UserError(f"{path}: {difference}; {KEPT}")
        weights.load_state_dict(stored)
        return field.with_weights(weights)

    def name_of(self, context: Views) -> str:
        """A file name for what determines the result: settings, the model, images and cameras."""
        cameras, alpha = context.cameras, () if context.alpha is None else (context.alpha,)
        shown = digest((context.images, *alpha, cameras.c2w, cameras.K, cameras.near, cameras.far))
        built = [self.config[name] for name in ("class_path", "init_args", "background")]
        parts = self.settings, self.weights, json.dumps(built, sort_keys=True), shown
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the system's weights."""
        return digest(self.system.state_dict().values())

    def render(self, field: Scene, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """See :meth:`vcgen.systems.base.FieldSystem.render`."""
        return self.system.render(field, cameras, size, background)

    def behind(self, truth: Views, background: float = 1.0) -> Behind:
        """See :meth:`vcgen.types.FieldModel.behind`."""
        return self.system.behind(truth, background)


def store(field: Finetunable, path: Path) -> None:
    """Write what distillation changes of a field."""
    with replacing(path) as temporary:
        write_tensors(field.weights().state_dict(), temporary)


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the values of tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def distilled(
    system: FieldModel,
    config: str,
    seed: int = 0,
    keep: Path | None = None,
    rounds: int | None = None,
    plugins: Sequence[str] = (),
) -> Distilled:
    """``--distill CONFIG``: the ``model`` part of a configuration of ``vcgen fit`` whose class is Distill; "default":
    the settings of configs/distill.yaml, which are those of the code.

    rounds: of the guidance, instead of the configuration's. plugins: see :func:`vcgen.checkpoints.build.build_system`.
    Raises UserError for a file that is missing or of another kind, for rounds below 1 or a seed below 0, and for a
    model without a prior.
    """
    if not isinstance(system, NerfDiff) or system.prior is None:
        raise UserError(
            "this model has no diffusion prior to distill: train one with model.prior, or do without distillation"
        )
    guidance, options = (NGD(), DistillOptions()) if config == "default" else read_distillation(config, plugins)
    if rounds is not None:
        if rounds < 1:
            raise UserError(f"a distillation takes at least 1 step, not {rounds}")
        guidance = guidance.with_rounds(rounds)
    if seed < 0:
        raise UserError(f"the seed of a distillation is at least 0, not {seed}")
    return Distilled(system, guidance, options, seed, keep)


def read_distillation(config: str, plugins: Sequence[str] = ()) -> tuple[Guidance, DistillOptions]:
    """Guidance and options of a configuration file. Nothing in it is resolved, and no class is built but those of a
    distillation.
    """
    where = f"--distill {config}"
    try:
        text = read_bytes(config, MAX_CONFIG).decode()
        # a few of them can stand for any number of values
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("it refers to its own parts")
        refuse_names_twice(yaml.compose(text, yaml.SafeLoader))
        content = get_loader("yaml")(text)  # as `vcgen fit` reads it: 1e-3 is a number
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, UserError) as error:
        raise UserError(one_line(f"{where}: {' '.join(str(error).split())}", ADVICE)) from error
    model = check(content, StageFile, where, ADVICE).model
    kind, arguments = model.class_path.rpartition(".")[2], model.init_args
    if kind != "Distill":
        raise UserError(one_line(f"{where}: its model is {kind}, not Distill", ADVICE))
    from vcgen.systems.distillation.system import Distill  # which needs what this module has

    stage = instantiate(Distill, {**arguments, "model": "."}, plugins)
    return stage.guidance, stage.options


def refuse_names_twice(node: Any) -> None:
    """Raise ValueError where a part of a YAML file gives a name twice."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if sum(other.value == key.value for other, _ in node.value) > 1:
            raise ValueError(f"{key.value} is given twice")
        refuse_names_twice(value)
    for value in node.value if isinstance(node, yaml.SequenceNode) else ():
        refuse_names_twice(value)
