"""The model folder: what a trained model is when it leaves training.

``model.safetensors`` holds the weights, ``config.json`` how to build the model and how to photograph its input. A
diffusion prior's U-Net and schedule lie in ``unet/`` and ``scheduler/`` as diffusers writes them, so that its
``from_pretrained`` opens them. Nothing is unpickled."""

import inspect
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from vcgen import provenance
from vcgen.data.familiar import Familiar
from vcgen.data.input_camera import InputCamera
from vcgen.errors import UserError
from vcgen.folders import replacing_folder
from vcgen.io import check, read_json
from vcgen.schema import ModelSide, Unit
from vcgen.tensors import TensorsWithin, all_finite, first_names, misfit, mismatch, read_tensors, write_tensors
from vcgen.terminal import one_line
from vcgen.types import FieldModel

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
#: The names that diffusers looks for. The weights of the U-Net are in its file alone, by their names in it.
UNET_WEIGHTS, UNET_CONFIG = "unet/diffusion_pytorch_model.safetensors", "unet/config.json"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
#: What the names of the U-Net's weights begin with in the system.
UNET_PREFIX = "prior.unet."

ADVICE = "export the checkpoint again"
#: A weight that priors did not have before, and what to do about it.
NEW_WEIGHT = "mid_block.attentions.0.group_norm"
OLD_PRIOR = f'a prior without it needs "middle_norm": false in its init_args in {CONFIG}'
#: Of one tensor of a model: 1 GB in float32, more than any layer has.
MOST_ELEMENTS = 1 << 28


class Config(Struct):
    """The entries of config.json that loading needs; there may be others.

    class_path, init_args: the system and its arguments. image_size: (height, width) in pixels. background: gray level
    behind every view. dtype: of the stored weights. diffusers: whether a prior's network lies in ``unet/``. familiar:
    what the training images are like."""

    format: Literal[1]
    class_path: Annotated[str, Meta(max_length=200)]
    init_args: dict[str, Any]
    image_size: tuple[ModelSide, ModelSide]
    camera: InputCamera
    background: Unit
    dtype: Literal["float32", "float16"] | None = None
    diffusers: bool = False
    familiar: Familiar | None = None
    vcgen: str | None = None


def save(
    folder: Path | str, weights: Mapping[str, Tensor], config: Mapping[str, Any], prior: Any = None, half: bool = False
) -> Path:
    """Write a model folder, all or nothing: it appears under its name only when complete. An older model folder is
    replaced.

    config: the entries of :class:`Config`, and whatever else JSON can hold. prior: the system's ViewPrior, whose
    ``unet`` and ``schedule`` are to be written for diffusers; only their configurations are taken from it. half: store
    float16. Raises UserError when ``folder`` exists and holds something else, when a weight is NaN or infinite, or too
    large for float16."""
    folder = Path(folder)
    if folder.exists() and not _is_model(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not a model folder: choose another --out, or remove it")
    content = {"format": FORMAT, **config, "dtype": "float16" if half else "float32", "diffusers": prior is not None}
    content["versions"] = provenance.versions()
    check(content, Config, str(folder / CONFIG), ADVICE)
    if odd := [name for name, tensor in weights.items() if not all_finite(tensor)]:
        raise UserError(
            f"{first_names(odd)}: NaN or infinite weights, the training has diverged: export an earlier checkpoint"
        )
    stored = _halved(weights) if half else dict(weights)
    own = [] if prior is None else [name for name in stored if name.startswith(UNET_PREFIX)]
    unet = {name.removeprefix(UNET_PREFIX): stored.pop(name) for name in own}
    with replacing_folder(folder) as temporary:
        write_tensors(stored, temporary / WEIGHTS)
        if prior is not None:
            prior.unet.save_config(temporary / Path(UNET_CONFIG).parent)
            write_tensors(unet, temporary / UNET_WEIGHTS)
            prior.schedule.save_pretrained(temporary / Path(SCHEDULER_CONFIG).parent)
        (temporary / CONFIG).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return folder


def load(folder: Path | str, device: torch.device | str = "cpu", plugins: Sequence[str] = ()) -> FieldModel:
    """The system of a model folder, with its weights, in eval mode on ``device``; ``.config`` holds the parsed
    config.json.

    plugins: packages of the user's own whose classes config.json may name, beside vcgen's and those in VCGEN_PLUGINS.
    Raises UserError in one line for a folder that is missing, foreign, damaged, or does not fit the model it names.
    """
    folder = Path(folder)
    config = read_config(folder)
    system = assembled(config, read_weights(folder), folder, plugins)
    if system.prior is not None and config.get("diffusers"):
        _refuse_other_prior(system.prior, folder)
    return system.to(_device(device)).eval()


def assembled(
    config: dict[str, Any], weights: Mapping[str, Tensor], place: Path, plugins: Sequence[str] = ()
) -> FieldModel:
    """The system of a checked configuration with its weights, on the CPU; ``.config`` is the configuration. place:
    where they come from. Raises UserError in one line where they do not fit.
    """
    from vcgen.checkpoints.build import build_system

    def build() -> FieldModel:
        return build_system(config["class_path"], config["init_args"], plugins)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without elements: the weights say whether they belong
            difference = misfit(build, weights)
            if not difference:
                with TensorsWithin(MOST_ELEMENTS):
                    system = build()
                difference = mismatch(system.state_dict(), weights)
    except UserError as error:
        raise UserError(
            one_line(f"{place / CONFIG}, exported by vcgen {str(config.get('vcgen'))[:40]}: {error}")
        ) from error
    if difference:
        advice = OLD_PRIOR if NEW_WEIGHT in difference else ADVICE
        raise UserError(f"the weights of {place} do not fit {config['class_path']}: {difference}; {advice}")
    system.load_state_dict(weights)
    system.config = config
    return system


def read_config(folder: Path | str) -> dict[str, Any]:
    """The checked config.json of a model folder; UserError when it is missing, not JSON, of another format or
    incomplete.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder} is not a model folder (it has no {CONFIG}): make one with vcgen export --checkpoint CKPT --out"
            " FOLDER"
        )
    config = read_json(path, dict[str, Any], ADVICE)
    if config.get("format") != FORMAT:
        found = f"{path} is not of vcgen's model format {FORMAT} (found {config.get('format')!r})"
        raise UserError(one_line(found, "export the checkpoint with this version"))
    check(config, Config, str(path), ADVICE)
    return config


def read_weights(folder: Path | str) -> dict[str, Tensor]:
    """All weights of a model folder by their names in the system, the U-Net's from ``unet/`` among them; float16
    becomes float32.

    Raises UserError in one line when a file of the folder is missing or damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    weights = read_tensors(folder / WEIGHTS)
    if config.get("diffusers"):
        # vcgen builds both from config.json; a folder without them would still not be the one that was exported.
        for name in (UNET_CONFIG, SCHEDULER_CONFIG):
            read_json(folder / name, dict[str, Any], ADVICE)
        weights |= {UNET_PREFIX + name: tensor for name, tensor in read_tensors(folder / UNET_WEIGHTS).items()}
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in weights.values() if tensor.is_floating_point()}
    if config.get("dtype") and kinds - {config["dtype"]}:
        raise UserError(
            f"{folder}: holds weights of {' and '.join(sorted(kinds))}, {CONFIG} says {config['dtype']}; {ADVICE}"
        )
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in weights.items()}


def start_from(system: nn.Module, folder: Path) -> None:
    """Copy the weights of a model folder into the parts (direct children), and own parameters, of ``system`` that the
    folder has, too.

    Raises UserError when the folder is missing or damaged, or a part's weights do not fit.
    """
    weights = read_weights(folder)
    found = {name.split(".")[0] for name in weights}
    for part, module in system.named_children():
        if part not in found:
            continue
        stored = {
            name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")
        }
        if difference := mismatch(module.state_dict(), stored):
            raise UserError(f"model.pretrained {folder}: its {part} does not fit this configuration: {difference}")
        module.load_state_dict(stored)
    own = {name: parameter for name, parameter in system.named_parameters(recurse=False) if name in weights}
    if difference := mismatch(own, {name: weights[name] for name in own}):
        raise UserError(f"model.pretrained {folder}: does not fit this configuration: {difference}")
    for name, parameter in own.items():
        parameter.data.copy_(weights[name])


def _refuse_other_prior(prior: Any, folder: Path) -> None:
    """vcgen builds the prior from config.json, diffusers from the files beside it: both must say the same."""
    for name, part in ((UNET_CONFIG, prior.unet), (SCHEDULER_CONFIG, prior.schedule)):
        own, found = json.loads(part.to_json_string()), read_json(folder / name, dict[str, Any], ADVICE)
        known = inspect.signature(type(part).__init__).parameters
        stated = {
            key: found.get(key, known[key].default if key in known else None)
            for key in own
            if key != "_diffusers_version"
        }
        if differing := [key for key, value in stated.items() if not _same(value, own[key])]:
            raise UserError(f"{folder / name}: another {first_names(differing)} than {CONFIG} says; {ADVICE}")


def _same(first: Any, second: Any) -> bool:
    """Equal, in lists of numbers up to rounding, which differs between machines."""
    if (
        isinstance(first, list)
        and isinstance(second, list)
        and all(isinstance(value, float) for value in (*first, *second))
    ):
        return len(first) == len(second) and all(map(math.isclose, first, second))
    return first == second


def hashes(folder: Path | str) -> dict[str, str]:
    """SHA-256 of a model folder's files: "weights", "config", and of a folder with a diffusion prior "unet", the
    U-Net's weights.
    """
    from vcgen.io import file_sha256

    files = {"weights": WEIGHTS, "config": CONFIG}
    if (Path(folder) / UNET_WEIGHTS).is_file():
        files["unet"] = UNET_WEIGHTS
    return {name: file_sha256(Path(folder) / file) for name, file in files.items()}


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    largest = torch.finfo(torch.float16).max
    if lost := [
        name
        for name, tensor in weights.items()
        if tensor.dtype == torch.float32 and bool((tensor.abs() > largest).any())
    ]:
        raise UserError(
            f"{first_names(lost)} exceed {largest:.0f}, the largest number of half precision: export without --half"
        )
    return {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in weights.items()}


def _is_model(folder: Path) -> bool:
    """Whether vcgen wrote the folder: others have a config.json, too, such as those of diffusers."""
    try:
        return "format" in read_json(folder / CONFIG, dict[str, Any])
    except UserError:
        return False


def _device(device: torch.device | str) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device {device!r} cannot be used ({reason}): use cpu, or cuda on a machine with a GPU"
        ) from error
    return chosen
