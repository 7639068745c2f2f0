"""``vcgen export``: a training checkpoint becomes a model folder."""

from collections.abc import Iterator, Sequence
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from msgspec import Meta, Struct

from vcgen.cli import usage
from vcgen.errors import UserError
from vcgen.io import check
from vcgen.redaction import hide_word
from vcgen.schema import Count, ModelSide, Name, Unit
from vcgen.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

    from vcgen.types import FieldModel


def main(arguments: list[str]) -> None:
    """Entry point of ``vcgen export``."""
    usage.run(export, arguments, "vcgen export", description=(getdoc(export) or "").split("Args:")[0])


def export(
    checkpoint: str,
    out: str,
    weights: Literal["ema", "raw"] = "ema",
    half: bool = False,
    data: list[str] | None = None,
    plugins: list[str] | None = None,
) -> None:
    """Turn a training checkpoint into a model folder: model.safetensors and config.json, without optimizer state.

    A diffusion prior's network and noise schedule go to unet/ and scheduler/, where diffusers opens them by itself.
    config.json also says in a few numbers what the training images are like, so that vcgen render can warn of an image
    that is far from them.

    Args:
        checkpoint: the .ckpt file that training wrote.
        out: the model folder to write; an older model folder there is replaced.
        weights: ema takes the moving average of the weights, which is what validation measured; raw takes the last
            step's weights.
        half: store the weights in half precision (float16), in half the space; the model still computes in float32.
        data: the shard folders that it was trained on, where they lie now; by default where the checkpoint says.
        plugins: packages of your own whose classes the checkpoint may name, as VCGEN_PLUGINS does; see
            docs/security.md.
    """
    from vcgen.checkpoints.model_folder import read_config

    folder = export_checkpoint(Path(checkpoint), Path(out), weights, half, plugins or (), data)
    if read_config(folder).get("familiar") is None:
        say(
            "vcgen render will not know images that are far from the training data: the shards that the checkpoint"
            " names are not here, or are too few; say where they are with --data"
        )
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    kind = f"{weights} weights{' in half precision' if half else ''}"
    say(f"{folder}: {kind}, {size / 1e6:.1f} MB; use it with vcgen render --model {folder} --image PNG --out DIR")


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    weights: Literal["ema", "raw"] = "ema",
    half: bool = False,
    plugins: Sequence[str] = (),
    data: Sequence[str] | None = None,
) -> Path:
    """Write the model folder ``out`` and return it. data: the training shards, by default those that the checkpoint
    names.

    Raises UserError when the checkpoint is unreadable, foreign, or has no EMA weights, and when ``data`` is given and
    cannot be read.
    """
    from vcgen.checkpoints import model_folder as folder
    from vcgen.checkpoints.reader import read_checkpoint, rename_weights
    from vcgen.tensors import misfit, mismatch

    content = read_checkpoint(checkpoint)
    entry = _entry(content, checkpoint)
    rename_weights(content, [])
    state = content["state_dict"]

    def build() -> "FieldModel":
        return _build(entry, checkpoint, plugins)

    if difference := misfit(build, state) or mismatch((system := build()).state_dict(), state):
        raise UserError(
            f"{checkpoint} does not fit {entry['class_path']}: {difference}; export it with vcgen"
            f" {entry.get('version')}"
        )
    if weights == "ema":
        state.update(_ema_weights(content, system, checkpoint))
    config = {**_config(content, weights), "familiar": _familiar(entry.get("data") or "", data)}
    return folder.save(out, state, config, system.prior, half)


def _familiar(named: str, folders: Sequence[str] | None) -> dict[str, Any] | None:
    """What the training images are like; None where the data that the checkpoint names is not here."""
    from dataclasses import asdict

    from vcgen.data.familiar_statistics import familiar
    from vcgen.data.shards.files import read_index
    from vcgen.data.shards.joining import joined

    if not folders and not named:
        return None
    try:
        return asdict(familiar(joined([read_index(path) for path in folders or named.split(", ")])))
    except UserError:
        if folders:
            raise
        return None


def _entry(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """What the model was built from, and the camera of its images: the ``vcgen`` entry, checked."""
    from vcgen.data.input_camera import InputCamera

    class Entry(Struct):
        class_path: Annotated[str, Meta(max_length=200)]
        init_args: dict[str, Any]
        image_size: tuple[ModelSide, ModelSide]
        camera: InputCamera
        background: Unit = 1.0
        data: str | None = None
        version: Name | None = None
        git: Name | None = None

    absent = [name for name in ("class_path", "init_args", "image_size", "camera") if name not in content["vcgen"]]
    if absent:
        raise UserError(
            f"{path} was not written by vcgen fit (no vcgen entry with {', '.join(absent)}): use a checkpoint that was"
        )
    check(content["vcgen"], Entry, str(path), "export another checkpoint")
    return content["vcgen"]


def _build(entry: dict[str, Any], path: Path, plugins: Sequence[str]) -> "FieldModel":
    from vcgen.checkpoints.build import build_system

    try:
        return build_system(entry["class_path"], entry["init_args"], plugins)
    except UserError as error:
        raise type(error)(f"{path}, trained with vcgen {entry.get('version')}: {error}") from error.__cause__


def _ema_weights(content: dict[str, Any], system: "FieldModel", path: Path) -> "dict[str, Tensor]":
    from torch import Tensor

    from vcgen.tensors import mismatch

    states = content.get("callbacks", {}).get("EMA")
    average = states.get("weights") if isinstance(states, dict) else None
    if not isinstance(average, dict) or not average or not all(isinstance(value, Tensor) for value in average.values()):
        raise UserError(f"{path} has no EMA weights: add --weights raw, or train with the EMA callback")
    trained = {name: tensor for name, tensor in system.named_parameters() if tensor.requires_grad}
    if difference := mismatch(trained, average):
        raise UserError(f"the EMA weights of {path} do not cover the model: {difference}; add --weights raw")
    return average


def _config(content: dict[str, Any], weights: str) -> dict[str, Any]:
    from vcgen.checkpoints.build import without_starting_weights

    entry = content["vcgen"]
    step = check(content.get("global_step"), cast(Any, Count | None), "global_step", "export another checkpoint")
    return {
        "class_path": entry["class_path"],
        "init_args": without_starting_weights(entry["init_args"]),
        "image_size": list(entry["image_size"]),
        "camera": entry["camera"],
        "background": entry.get("background", 1.0),
        "vcgen": entry.get("version"),
        "git": entry.get("git"),
        "training": {
            "step": step,
            "data": hide_word(entry.get("data") or "") or None,
            "weights": weights,
            "metrics": _best_scores(content),
        },
    }


def _best_scores(content: dict[str, Any]) -> dict[str, float]:
    """The monitored metric of the checkpoint, which those callbacks keep that write checkpoints."""
    states = [state for state in content.get("callbacks", {}).values() if isinstance(state, dict)]
    pairs: Iterator[tuple[Any, Any]] = ((state.get("monitor"), state.get("current_score")) for state in states)
    found = (
        (name, score.item() if getattr(score, "ndim", 1) == 0 else score)
        for name, score in pairs
        if isinstance(name, str)
    )
    return {
        name: float(score) for name, score in found if isinstance(score, (int, float)) and abs(score) < float("inf")
    }
