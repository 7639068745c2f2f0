"""The model folder: what a trained model is when it leaves training.

``model.safetensors`` holds the weights, ``config.json`` how to build the model and how to photograph its input. A diffusion prior's U-Net
and schedule lie in ``unet/`` and ``scheduler/`` as diffusers writes them, so that its ``from_pretrained`` opens them. Nothing is unpickled.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vcgen.errors import UserError, naming

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
#: The names that diffusers looks for. The weights of the U-Net are in its file alone, by their names in it.
UNET_WEIGHTS, UNET_CONFIG = "unet/diffusion_pytorch_model.safetensors", "unet/config.json"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
#: What the names of the U-Net's weights begin with in the system.
UNET_PREFIX = "prior.unet."

#: The keys that config.json must have, with the type of each. camera: ``focal`` (normalised by the width), ``distance``, ``near``, ``far``
#: (world units) and ``elevation`` (degrees) assumed of a picture without pose. background: grey level in [0, 1] behind every view.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "class_path": str, "init_args": dict, "image_size": list, "camera": dict, "background": (int, float),
}
CAMERA_FIELDS = ("focal", "distance", "elevation", "near", "far")


def save(
    folder: Path | str, weights: Mapping[str, Tensor], config: Mapping[str, Any], prior: nn.Module | None = None, half: bool = False
) -> Path:
    """Write a model folder, all or nothing: it appears under its name only when complete. An older model folder is replaced.

    config: the keys of FIELDS, and whatever else JSON can hold. prior: the system's ViewPrior, whose ``unet`` and ``schedule`` are to be
    written for diffusers; only their configurations are taken from it. half: store float16. Raises UserError when ``folder`` exists and
    holds something else, or when a weight is too large for float16.
    """
    folder = Path(folder)
    if folder.exists() and not _is_model(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not a model folder: choose another --out, or remove it")
    content = {"format": FORMAT, **config, "dtype": "float16" if half else "float32", "diffusers": prior is not None}
    _check_config(content, folder / CONFIG)
    stored = _halved(weights) if half else dict(weights)
    own = [] if prior is None else [name for name in stored if name.startswith(UNET_PREFIX)]
    unet = {name.removeprefix(UNET_PREFIX): stored.pop(name) for name in own}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with naming(folder, temporary):
            temporary.mkdir()
            _write_tensors(stored, temporary / WEIGHTS)
            if prior is not None:
                prior.unet.save_config(temporary / Path(UNET_CONFIG).parent)
                _write_tensors(unet, temporary / UNET_WEIGHTS)
                prior.schedule.save_pretrained(temporary / Path(SCHEDULER_CONFIG).parent)
            (temporary / CONFIG).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
            _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load(folder: Path | str, device: torch.device | str = "cpu") -> LightningModule:
    """The system of a model folder, with its weights, in eval mode on ``device``; ``.config`` holds the parsed config.json.

    Raises UserError in one line for a folder that is missing, foreign, damaged, or does not fit the model it names.
    """
    from vcgen.systems.build import build_system

    folder = Path(folder)
    config = read_config(folder)
    weights = read_weights(folder)
    try:
        system = build_system(config["class_path"], config["init_args"])
    except UserError as error:
        raise UserError(f"{folder / CONFIG}, exported by vcgen {config.get('vcgen')}: {error}") from error
    if difference := mismatch(system.state_dict(), weights):
        raise UserError(f"the weights of {folder} do not fit {config['class_path']}: {difference}; export the checkpoint again")
    system.load_state_dict(weights)
    system.config = config
    return system.to(_device(device)).eval()


def read_config(folder: Path | str) -> dict[str, Any]:
    """The checked config.json of a model folder; UserError when it is missing, not JSON, of another format or incomplete."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} is not a model folder (it has no {CONFIG}): make one with vcgen export --checkpoint CKPT --out FOLDER")
    config = _read_json(path)
    _check_config(config, path)
    return config


def mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps ``given`` from loading strictly into ``expected``, in a few words with the first names; "" when it fits."""
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected if name in given and given[name].shape != expected[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names)


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _check_config(config: Any, path: Path) -> None:
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise UserError(f"{path} is not of vcgen's model format {FORMAT} (found {found!r}): export the checkpoint with this version")
    wrong = [name for name, kind in FIELDS.items() if not isinstance(config.get(name), kind)]
    wrong += [f"camera.{name}" for name in CAMERA_FIELDS if not isinstance((config.get("camera") or {}).get(name), (int, float))]
    wrong += ["diffusers"] if not isinstance(config.get("diffusers", False), bool) else []
    if wrong:
        raise UserError(f"{path} lacks or misstates {', '.join(wrong)}: export the checkpoint again")


def read_weights(folder: Path | str) -> dict[str, Tensor]:
    """All weights of a model folder by their names in the system, the U-Net's from ``unet/`` among them; float16 becomes float32.

    Raises UserError in one line when a file of the folder is missing or damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    weights = _read_tensors(folder / WEIGHTS)
    if config.get("diffusers"):
        # vcgen builds both from config.json; a folder without them would still not be the one that was exported.
        for name in (UNET_CONFIG, SCHEDULER_CONFIG):
            _read_json(folder / name)
        weights |= {UNET_PREFIX + name: tensor for name, tensor in _read_tensors(folder / UNET_WEIGHTS).items()}
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in weights.items()}


def hashes(folder: Path | str) -> dict[str, str]:
    """SHA-256 of a model folder's files: "weights", "config", and of a folder with a diffusion prior "unet", the U-Net's weights."""
    from vcgen.data.shards import file_sha256

    files = {"weights": WEIGHTS, "config": CONFIG}
    if (Path(folder) / UNET_WEIGHTS).is_file():
        files["unet"] = UNET_WEIGHTS
    return {name: file_sha256(Path(folder) / file) for name, file in files.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path} is missing: give a model folder that `vcgen export` wrote")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or not safetensors ({error}): copy it again or export the checkpoint again") from error


def _write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Tied parameters share memory, which safetensors refuses: every name gets its own copy. Readers of the Hugging Face kind want "format".
    # save_file would keep the file from other users, whatever the umask.
    path.write_bytes(save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, {"format": "pt"}))


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    largest = torch.finfo(torch.float16).max
    if lost := [name for name, tensor in weights.items() if tensor.dtype == torch.float32 and bool((tensor.abs() > largest).any())]:
        raise UserError(f"{_first(lost)} exceed {largest:.0f}, the largest number of half precision: export without --half")
    return {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in weights.items()}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: copy the model folder again or export the checkpoint again") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): copy the model folder again or export the checkpoint again") from error


def _is_model(folder: Path) -> bool:
    """Whether vcgen wrote the folder: others have a config.json, too, such as those of diffusers."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "format" in config


def _device(device: torch.device | str) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {device!r} cannot be used ({reason}): use cpu, or cuda on a machine with a GPU") from error
    return chosen


def _put_in_place(temporary: Path, folder: Path) -> None:
    # A folder cannot be replaced in one step unless it is empty, so the old one steps aside first.
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, aside)
    os.replace(temporary, folder)
    shutil.rmtree(aside, ignore_errors=True)
