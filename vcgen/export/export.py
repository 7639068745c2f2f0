"""``vcgen export``: a training checkpoint becomes a model folder."""

from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vcgen.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from torch import Tensor


def main(arguments: list[str]) -> None:
    """Entry point of ``vcgen export``."""
    from jsonargparse import auto_cli

    from vcgen.export.render import plain_words

    words = plain_words(arguments, lists=("--plugins",), flags={"--half": "true"})
    auto_cli(export, args=words, prog="vcgen export", as_positional=False, description=getdoc(export).split("Args:")[0])


def export(
    checkpoint: str, out: str, weights: Literal["ema", "raw"] = "ema", half: bool = False, plugins: list[str] | None = None,
) -> None:
    """Turn a training checkpoint into a model folder: model.safetensors and config.json, without optimiser state.

    A diffusion prior's network and noise schedule go to unet/ and scheduler/, where diffusers opens them by itself.

    Args:
        checkpoint: the .ckpt file that training wrote.
        out: the model folder to write; an older model folder there is replaced.
        weights: ema takes the moving average of the weights, which is what validation measured; raw takes the last step's weights.
        half: store the weights in half precision (float16), in half the space; the model still computes in float32.
        plugins: packages of your own whose classes the checkpoint may name, as VCGEN_PLUGINS does; see docs/security.md.
    """
    folder = export_checkpoint(Path(checkpoint), Path(out), weights, half, plugins or ())
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    kind = f"{weights} weights{' in half precision' if half else ''}"
    print(f"{folder}: {kind}, {size / 1e6:.1f} MB; use it with vcgen render --model {folder} --image PNG --out DIR")


def export_checkpoint(
    checkpoint: Path, out: Path, weights: Literal["ema", "raw"] = "ema", half: bool = False, plugins: Sequence[str] = (),
) -> Path:
    """Write the model folder ``out`` and return it. Raises UserError when the checkpoint is unreadable, foreign, or has no EMA weights."""
    from vcgen.export import folder
    from vcgen.export.fitting import mismatch

    content = read_checkpoint(checkpoint)
    entry = content["vcgen"]
    system = _build(entry, checkpoint, plugins)
    state = dict(content["state_dict"])
    if difference := mismatch(system.state_dict(), state):
        raise UserError(f"{checkpoint} does not fit {entry['class_path']}: {difference}; export it with vcgen {entry.get('version')}")
    if weights == "ema":
        state.update(_ema_weights(content, system, checkpoint))
    return folder.save(out, state, _config(content, weights), getattr(system, "prior", None), half)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A Lightning checkpoint of vcgen, read without unpickling code; UserError says what is wrong with anything else."""
    import torch

    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'missing'}: --checkpoint takes the .ckpt file that training wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can break the reader in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as a checkpoint ({reason}): it is damaged, cut short, or another kind of file") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} is not a training checkpoint (it has no state_dict): use the .ckpt file that vcgen fit wrote")
    entry = content.get("vcgen")
    absent = [name for name in ("class_path", "init_args", "image_size", "camera") if name not in (entry or {})]
    if absent:
        raise UserError(f"{path} was not written by vcgen fit (no vcgen entry with {', '.join(absent)}): use a checkpoint that was")
    return content


def _build(entry: dict[str, Any], path: Path, plugins: Sequence[str]) -> "LightningModule":
    from vcgen.systems.build import build_system

    try:
        return build_system(entry["class_path"], entry["init_args"], plugins)
    except UserError as error:
        raise UserError(f"{path}, trained with vcgen {entry.get('version')}: {error}") from error


def _ema_weights(content: dict[str, Any], system: "LightningModule", path: Path) -> "dict[str, Tensor]":
    from vcgen.export.fitting import mismatch

    average = content.get("callbacks", {}).get("EMA", {}).get("weights")
    if not average:
        raise UserError(f"{path} has no EMA weights: add --weights raw, or train with the EMA callback")
    trained = {name: tensor for name, tensor in system.named_parameters() if tensor.requires_grad}
    if difference := mismatch(trained, average):
        raise UserError(f"the EMA weights of {path} do not cover the model: {difference}; add --weights raw")
    return average


def _config(content: dict[str, Any], weights: str) -> dict[str, Any]:
    from vcgen.systems.build import without_starting_weights

    entry = content["vcgen"]
    return {
        "class_path": entry["class_path"],
        "init_args": without_starting_weights(entry["init_args"]),
        "image_size": list(entry["image_size"]),
        "camera": entry["camera"],
        "background": entry.get("background", 1.0),
        "vcgen": entry.get("version"),
        "git": entry.get("git"),
        "training": {
            "step": content.get("global_step"), "data": entry.get("data"), "weights": weights, "metrics": _best_scores(content),
        },
    }


def _best_scores(content: dict[str, Any]) -> dict[str, float]:
    """Lightning's ModelCheckpoint callbacks keep the monitored metric of the checkpoint that they write."""
    states = [state for state in content.get("callbacks", {}).values() if isinstance(state, dict)]
    return {
        state["monitor"]: float(state["current_score"])
        for state in states if state.get("monitor") and state.get("current_score") is not None
    }
