"""What the fuzzer spoils of training and priors: checkpoints, distillations, personalizations, text priors, LPIPS."""

import copy
import functools
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("VCGEN_PLUGINS", "stand_in")

import torch
import yaml
from safetensors.torch import load as load_tensors, save as save_tensors
from torch import Tensor, nn

from fuzz_mutations import spoil_bytes, spoil_tensors, spoil_tree
from fuzz_specs import INPUT_CAMERA, NOTE, UNIT, any_of, anything, fixed, one_of, real, table, whole
from fuzz_subject import Files, Subject, by_rule, spoil_one
from scenes import listing
from stand_in import BallSystem
from text_folder import tiny_prior
from training import state_of_training
from vcgen.checkpoints import model_folder
from vcgen.checkpoints.files import CheckpointFiles
from vcgen.cli.export import export_checkpoint
from vcgen.data.datamodules.sampler import resume_position
from vcgen.data.input_camera import InputCamera
from vcgen.diffusion.text_prior import TextPrior
from vcgen.metrics.lpips import stored_name
from vcgen.metrics.weights import fill
from vcgen.personalization.base import EMBEDDINGS, NOTE as NOTE_FILE, load_personal
from vcgen.personalization.lora import LoRA
from vcgen.systems.distillation.distilled import read_distillation
from vcgen.training.callbacks.training_state import check_state

CAMERA = {"focal": 1.0254, "distance": 1.3, "elevation": 20, "near": 0.8, "far": 1.8}
BALL = {"class_path": "stand_in.BallSystem", "init_args": {"density": 50.0}, "image_size": [16, 16], "camera": CAMERA}
BALL["version"] = "0.1.0"
POSITIVE, COUNT = real(1e-6, 1e6), whole(1, 1 << 31)


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them. folder: to make the whole files in."""
    torch.manual_seed(0)
    yield from checkpoints()
    yield from learned(folder / "learned")
    yaml_file = (Path(__file__).parents[1] / "configs" / "distill.yaml").read_bytes()
    yield Subject(
        "distillation yaml",
        {"d.yaml": yaml_file},
        spoil_one("d.yaml", spoil_yaml),
        lambda found: read_distillation(str(found / "d.yaml")),
        distillation_holds,
    )
    network = small_network()
    buffer = io.BytesIO()
    torch.save({name.replace("slice1", "features"): value for name, value in network.state_dict().items()}, buffer)
    lpips = functools.partial(filled, network)
    yield Subject(
        "weights of LPIPS", {"w.pth": buffer.getvalue()}, spoil_one("w.pth", spoil_bytes), lpips, fraction=0.5
    )


def checkpoints() -> Iterator[Subject]:
    """Their bytes, and what they say, to go on from and to export."""
    content = state_of_training(BallSystem(50.0)) | {
        "format": 2,
        "pytorch-lightning_version": "2.6.6",
        "ShardData": {"epoch": 1, "scenes": 8, "seed": 0, "data": "0" * 64, "ranks": 1, "batch_size": 8},
        "vcgen": BALL,
    }
    files = {"last.ckpt": saved(content)}
    resumed = functools.partial(go_on, content["ShardData"], content["loops"]["fit_loop"])
    yield Subject("checkpoint bytes", files, spoil_one("last.ckpt", spoil_bytes), resumed)
    spoil = functools.partial(spoil_content, content)
    yield Subject("checkpoint entries, to go on", files, spoil, resumed, functools.partial(content_holds, True), 1.5)
    yield Subject("checkpoint entries, to export", files, spoil, export, functools.partial(content_holds, False), 1.5)


def saved(content: Any) -> bytes:
    """As a checkpoint."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def spoil_content(content: Any, random: Random, files: Files) -> Files:
    """Another checkpoint, whole as a file."""
    return {"last.ckpt": saved(spoil_tree(random, content))}


def go_on(here: dict, loop: dict, folder: Path) -> Any:
    """What training goes on from."""
    content = CheckpointFiles(BallSystem(50.0), BALL).load_checkpoint(folder / "last.ckpt")
    check_state(content, loop)
    return {**content, "position": resume_position(content["ShardData"], here, 24)}


def export(folder: Path) -> Any:
    """The model folder that is exported."""
    out = export_checkpoint(folder / "last.ckpt", folder / "out" / "model")
    try:
        system = model_folder.load(out)
        InputCamera.of(system.config)
        return {**system.config, "training": None}, dict(system.state_dict())
    finally:
        shutil.rmtree(folder / "out")


def content_holds(resume: bool, files: Files) -> bool:
    """Numbers of a run in their ranges, tensors of the right shapes; entries that nothing reads may be anything."""
    content = torch.load(io.BytesIO(files["last.ckpt"]), weights_only=True)
    about, average = content["vcgen"], content["callbacks"].get("EMA") or {"weights": {}}
    model = table(
        others=True,
        class_path=one_of("stand_in.BallSystem"),
        init_args=table(density_=real(-1e308, 1e308), size_=anything, tint_=anything),
        image_size=fixed(whole(1, 4096), whole(1, 4096)),
        background_=UNIT,
        camera=INPUT_CAMERA,
    )
    whole_weights = dict(BallSystem(50.0).state_dict().items())
    fits = all(
        isinstance(v, Tensor) and v.shape == whole_weights[k].shape
        for k, v in (*content["state_dict"].items(), *average["weights"].items())
    )
    if resume:
        numbers = [content["epoch"], content["global_step"], average.get("updates", 0)]
        return fits and all(type(n) is int and 0 <= n <= 1 << 40 for n in numbers)
    return fits and model(about)


def learned(folder: Path) -> Iterator[Subject]:
    """Embeddings, low-rank changes, the note beside them, and the prior itself."""
    prior = tiny_prior().requires_grad_(False)
    note = {NOTE_FILE: json.dumps({"phrase": "<e> <e>_1", "method": "TextualInversion", "prior": "new"}).encode()}
    vectors = {EMBEDDINGS: save_tensors({"<e>": torch.randn(2, 32)}, {"format": "pt"}), **note}
    load = functools.partial(personal, prior)
    yield Subject("learned embeddings", vectors, spoil_one(EMBEDDINGS, spoil_tensors), load, embeddings_hold)
    yield Subject("personal.json", vectors, spoil_one(NOTE_FILE), load, by_rule(NOTE_FILE, NOTE), 0.5)
    method, copied = LoRA(noun="car", rank=1), copy.deepcopy(prior)
    method.attach(copied, torch.rand(1, 3, 16, 16))
    (folder / "lora").mkdir(parents=True)
    method.save(copied, folder / "lora")
    files = listing(folder / "lora")
    yield Subject(
        "low-rank changes", files, spoil_one("pytorch_lora_weights.safetensors", spoil_tensors), load, lora_holds, 0.3
    )
    prior.save(folder / "prior")
    files = listing(folder / "prior")
    names = [name for name in files if name.endswith(".json")]
    yield Subject("text prior", files, functools.partial(spoil_some, names), described, lambda found: True, 0.3)


def personal(prior: TextPrior, folder: Path) -> Any:
    """What a prior knows afterwards."""
    own = copy.deepcopy(prior)
    phrase = load_personal(own, folder)
    parts = [dict(own.unet.state_dict()), own.text_encoder.get_input_embeddings().weight.detach()]
    if not all(bool(torch.isfinite(value).all()) for value in (*parts[0].values(), parts[1])):
        raise AssertionError("weights that are no numbers")
    return phrase, parts, own.tokens([f"a photo of a {phrase}"])


def embeddings_hold(files: Files) -> bool:
    """Diffusers' file has no checksum: other numbers, of as many words, or another name."""
    found = load_tensors(files[EMBEDDINGS])
    ((name, vectors),) = found.items()
    words = name.split() == [name] and name.isprintable()
    return words and vectors.is_floating_point() and vectors.shape[-1] == 32 and bool(torch.isfinite(vectors).all())


def lora_holds(files: Files) -> bool:
    """No checksum either: other numbers in whole pairs."""
    found = load_tensors(files["pytorch_lora_weights.safetensors"])
    halves = [[name for name in found if half in name] for half in (".down.", ".up.")]
    return all(value.is_floating_point() and bool(torch.isfinite(value).all()) for value in found.values()) and len(
        halves[0]
    ) == len(halves[1])


def spoil_some(names: list[str], random: Random, files: Files) -> Files:
    """Spoil one of several files."""
    return spoil_one(random.choice(names))(random, files)


def described(folder: Path) -> Any:
    """A prior, whose files are diffusers' and transformers' to judge; that nothing runs, and nothing else than a line
    comes of it.
    """
    prior = TextPrior.load(folder)
    return (
        {name: list(value.shape) for name, value in prior.state_dict().items()},
        prior.tokens(["a red car"]),
        prior.size,
        prior.latent_shape,
    )


def spoil_yaml(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """Spoil the part of a configuration that is read, or any bytes."""
    if random.random() < 0.3:
        return spoil_bytes(random, data, others)
    tree = yaml.safe_load(data)
    model = tree["model"]
    model["init_args"]["options"] |= {"scene_lr": 0.01}
    return yaml.safe_dump({**tree, "model": spoil_tree(random, model)}).encode()


def distillation_holds(files: Files) -> bool:
    """Settings in their ranges."""
    model = yaml.safe_load(files["d.yaml"])["model"]
    fraction, rate = real(0, 1), any_of(one_of(None), real(1e-320, 1e12))
    guidance = table(
        gamma_=any_of(one_of(None), real(0, 1e12)),
        max_weight_=real(0, 1e12),
        start_=fraction,
        end_=fraction,
        eta_=fraction,
        rounds_=COUNT,
        updates_=COUNT,
        draws_=COUNT,
    )
    options = table(
        views_=COUNT,
        rays_=COUNT,
        scene_lr_=rate,
        decoder_lr_=rate,
        condition_=one_of("current", "first"),
        guidance_scale_=real(0, 1e12),
        elevations_=fixed(real(-90, 90), real(-90, 90)),
        input_rays_=whole(0, 1 << 53),
        samples_=any_of(one_of(None), COUNT),
        input_weight_=real(0, 1e12),
    )
    arguments = model.get("init_args", {})
    given = arguments.get("guidance", {"class_path": "NGD"})
    return (
        set(given) <= {"class_path", "init_args"}
        and guidance(given.get("init_args", {}))
        and options(arguments.get("options", {}))
    )


class Sliced(nn.Module):
    """Named as the networks of LPIPS are."""

    def __init__(self):
        super().__init__()
        self.slice1 = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))


def small_network() -> nn.Module:
    """With random weights."""
    return Sliced()


def filled(network: nn.Module, folder: Path) -> Any:
    """The weights of a network after a file was read into it."""
    own = copy.deepcopy(network)
    fill(own, folder / "w.pth", stored_name)
    return dict(own.state_dict())
