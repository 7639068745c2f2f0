"""The system of every shipped configuration that trains, and a batch for it: what memory_table.py measures."""

import json
import tempfile
from pathlib import Path
from random import Random
from types import SimpleNamespace

import torch
from jsonargparse import ArgumentParser
from omegaconf import OmegaConf
from torch import nn

from common import ROOT
from fake_gpu import to_gpu
from vcgen.cameras import focal_from_fov, orbit, pinhole
from vcgen.checkpoints import model_folder
from vcgen.data.viewpoints import VIEWS
from vcgen.diffusion.schedule import noise_schedule
from vcgen.diffusion.text_prior import TextPrior
from vcgen.encoders.auto_decoder import AutoDecoder
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.fields.hashgrid import HashGrid
from vcgen.systems.base import System
from vcgen.systems.clip.system import ClipTraining
from vcgen.systems.distillation.loop import Distillation
from vcgen.systems.distillation.system import Distill
from vcgen.systems.mesh_refine.system import MeshRefine
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.systems.personalize import Personalize
from vcgen.systems.text2image import TextToImage
from vcgen.systems.text_to_3d.system import TextTo3D
from vcgen.terminal import counted
from vcgen.training import fit  # noqa: F401  (makes the classes known by short names)
from vcgen.types import Example, Finetunable, Views

#: Name -> configurations that lie on each other. Those with two kinds of steps have two names.
CONFIGS = {
    "one_scene_hashgrid": ["one_scene_hashgrid"],
    "one_scene": ["one_scene"],
    "cars64": ["cars64"],
    "cars64_prior": ["cars64", "cars64_prior"],
    "lfn64": ["lfn64"],
    "lfn": ["lfn"],
    "srn64": ["srn64"],
    "srn": ["srn"],
    "lfnr64": ["lfnr64"],
    "gpnr64": ["gpnr64"],
    "gpnr": ["gpnr"],
    "genvs64": ["genvs64"],
    "genvs64_prior": ["genvs64", "genvs64_prior"],
    "pixelnerf64": ["pixelnerf64"],
    "ibrnet64": ["ibrnet64"],
    "ibrnet": ["ibrnet"],
    "genvs": ["genvs"],
    "nerfdiff": ["nerfdiff"],
    "nerfdiff_400m": ["nerfdiff", "nerfdiff_400m"],
    "distill, first step of a round": ["distill"],
    "distill, other steps": ["distill"],
    "text2image, autoencoder": ["text2image"],
    "text2image, U-Net": ["text2image"],
    "clip": ["clip"],
    "textual_inversion": ["textual_inversion"],
    "lora": ["lora"],
    "dreambooth": ["dreambooth"],
    "realfusion": ["realfusion"],
    "dreamfusion": ["dreamfusion"],
    **{name: ["dreamfusion", name] for name in ("dreamfusion_sd", "sjc", "prolificdreamer", "dreamfields")},
    **{f"{name}_sd": ["dreamfusion", name, f"{name}_sd"] for name in ("sjc", "prolificdreamer")},
    **{f"realfusion_{size}gb": ["realfusion", f"realfusion_{size}gb"] for size in (8, 16, 24, 40)},
    "magic3d": ["magic3d"],
    "magic3d_sd": ["magic3d", "magic3d_sd"],
}
#: Configurations that change nothing which takes memory, and those on which they lie.
ALIKE = {"distill_image": "distill", "realfusion_tuned": "realfusion_8gb", "objects64": "cars64"}
#: Configurations whose tensors are as large as what they find: true tensors are counted in place of fake ones.
OPEN = dict.fromkeys(("magic3d", "magic3d_sd"), "the mesh has as many faces as the coarse scene gives")
#: Without a prior, which says how large images are, these have 128 pixels; others 64.
LARGE = ("one_scene", "one_scene_hashgrid", "gpnr", "ibrnet")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def merged(name: str) -> dict:
    """A configuration, as vcgen fit merges it."""
    parts = [OmegaConf.load(ROOT / "configs" / f"{part}.yaml") for part in CONFIGS[name]]
    for part in ("scene", "guidance"):
        # another class takes none of the first's options
        for number, later in enumerate(parts):
            if OmegaConf.select(later, f"model.init_args.{part}.class_path"):
                for earlier in parts[:number]:
                    earlier.model.init_args.pop(part, None)
    return OmegaConf.to_container(OmegaConf.merge({"ema": {"decay": 0.999}}, *parts), resolve=True)


def step_of(name: str, config: dict) -> int:
    """The number of the training step that is meant."""
    if name == "text2image, U-Net":
        return config["model"]["init_args"]["autoencoder_steps"] + 1
    return 1 if name == "distill, other steps" else 0


def described(name: str, config: dict) -> str:
    """What a step works on."""
    data, model, kind = config["data"]["init_args"], config["model"]["init_args"], config["model"]["class_path"]
    if kind in ("RealFusion", "TextTo3D"):
        options = model["options"]
        photo = f", {options['reference_rays']} rays of the photo" if kind == "RealFusion" else ""
        return f"a view of {options['render_size']} px{photo}"
    if kind == "MeshRefine":
        return f"a view of {model['options']['render_size']} px, a ball of {model['cells']} cells"
    if kind == "Distill":
        options = model["options"]
        first = f"{options['views']} views denoised, " if step_of(name, config) == 0 else ""
        return f"{first}{options['rays'] + Distill(Path()).options.input_rays} rays"
    if kind == "TextToImage":
        early = step_of(name, config) == 0
        return counted(model["autoencoder_images"] if early else data["batch_size"] * (1 + data["targets"]), "image")
    if kind == "ClipTraining":
        return counted(data["batch_size"] * (1 + data["targets"]), "image") + " and captions"
    if kind == "Personalize":
        of_class = ", as many of the class" if "preservation" in model else ""
        return counted(model["batch_size"], "image") + of_class
    views = data["batch_size"] * model.get("prior_options", {}).get("views", 1)
    images = "" if model.get("prior") is None else f", {counted(views, 'image')}"
    rays = data["batch_size"] * data["targets"] * model["rays_per_view"] if model.get("train_field", True) else 0
    return f"{counted(data['batch_size'], 'scene')}, {rays} rays{images}"


def built(name: str, config: dict) -> tuple[System, Example]:
    """The system on the CPU, and a batch for it. Weights are random, those of bundled models theirs; Stable Diffusion's
    networks come with :func:`placed`.
    """
    data, model = config["data"]["init_args"], config["model"]
    changes = {"images_every": 0} if model["class_path"] == "Distill" else {}
    if model["class_path"] == "TextToImage":
        changes = {"captions": captions_file()}
    if model["class_path"] == "ClipTraining":
        changes = {"captions": captions_file(), "categories": ()}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(System, "model")
    told = {**model, "init_args": {**model["init_args"], **changes}}
    system = parser.instantiate_classes(parser.parse_object({"model": told})).model
    if isinstance(system, NerfDiff):
        size = system.prior.size if system.prior else 128 if name in LARGE else 64
        if isinstance(system.encoder, AutoDecoder):
            system.encoder.begin([str(number) for number in range(len(system.encoder.keys))])
        return system, example(data["batch_size"], data["targets"], size, contexts=most(data.get("contexts", 1)))
    if isinstance(system, TextToImage):
        return system, example(data["batch_size"], data["targets"], system.prior.size)
    if isinstance(system, ClipTraining):
        return system, example(data["batch_size"], data["targets"], system.clip.size)
    if isinstance(system, Distill):
        outside = model_folder.load(ROOT / system.model).requires_grad_(False)
        object.__setattr__(system, "outside", outside)
        return system, example(1, data["val_targets"], outside.prior.size)
    if isinstance(system, Personalize):
        hold(system)
    elif name in ("realfusion", "dreamfusion", "sjc", "prolificdreamer", "magic3d"):
        object.__setattr__(system, "text_prior", TextPrior.load(ROOT / system.prior_name))
    elif name == "dreamfields":
        system.guidance.attach(None)
    if isinstance(system, MeshRefine):
        system.scene.start_from(ball(0.35))
    return system, example(1, 1, data["size"], data["distance"], data["fov"])


def ball(radius: float) -> Finetunable:
    """A coarse scene, as configs/dreamfusion.yaml has them, large enough for fine grids."""
    scene = merged("dreamfusion")["model"]["init_args"]["scene"] | {"blob": (9.0, radius)}
    return SceneHashGrid(**{**scene, "grid": HashGrid(**scene["grid"])}).scene()


def captions_file() -> str:
    """So many words, made up, that the tokenizer learns as many entries as it may."""
    random = Random(0)
    names = ["".join(random.choices(LETTERS, k=8)) for _ in range(1000)]
    path = Path(tempfile.mkdtemp(prefix="vcgen-captions-")) / "captions.json"
    path.write_text(json.dumps({str(number): {"names": [name]} for number, name in enumerate(names)}))
    return str(path)


def hold(system: Personalize) -> None:
    """The prior of a personalization, with what is trained built in, and images of its class."""
    prior = TextPrior.load(ROOT / system.source).requires_grad_(False)
    if hasattr(system.method, "words"):
        system.method.words = system.method.words[:1]  # the choice among several is no part of a step
    system.method.attach(prior, torch.zeros(1, 3, prior.size, prior.size))
    system.hold(prior)
    if system.preservation is not None:
        system.class_images = torch.zeros(system.preservation.count, 3, prior.size, prior.size, dtype=torch.uint8)


def most(contexts: int | list[int]) -> int:
    """Input views of a scene, of a number or a range."""
    return contexts if isinstance(contexts, int) else contexts[-1]


def example(
    scenes: int, targets: int, size: int, distance: float = 1.3, fov: float = 52.0, contexts: int = 1
) -> Example:
    """Input views of each scene, and targets."""
    count = scenes * (contexts + targets)
    cameras = orbit(
        torch.arange(count) * 40.0, torch.full((count,), 25.0), distance, pinhole(focal_from_fov(fov)), 0.8, 2.6
    )
    images, alpha = torch.rand(count, 3, size, size), torch.ones(count, 1, size, size)
    images, alpha = (x.unflatten(0, (scenes, -1)) for x in (images, alpha))
    views = Views(images, cameras.reshape(scenes, -1), alpha)
    return Example(views[:, :contexts], views[:, contexts:], tuple(map(str, range(scenes))))


def placed(system: System, batch: Example, step: int, device: str | None = None) -> System:
    """With what a trainer brings: on a device of FakeGpu, in training, at a step.

    batch: on that device. device: None leaves everything where it is.
    """
    if isinstance(system, TextTo3D) and system.prior_name and not hasattr(system, "text_prior"):
        object.__setattr__(system, "text_prior", stable_diffusion())
    if device is not None:
        to_gpu(whole(system), device=device)
    system.train()
    system._trainer = SimpleNamespace(max_steps=10, global_step=step)
    if isinstance(system, TextTo3D):
        describe(system, batch.context, device)
    elif isinstance(system, Distill):
        with torch.autocast(batch.context.images.device.type, torch.bfloat16):
            system.state = Distillation(system.outside, batch.context, system.guidance, system.options)
    elif isinstance(system, Personalize) and system.class_images is not None:
        system.class_images = system.class_images.to(batch.context.images.device)
    return system


def answer_of(system: System) -> int:
    """What FakeGpu answers where a number is asked for: where captions are chosen an index that is there, elsewhere
    the number of an optimizer's step, by which it divides.
    """
    return 0 if isinstance(system, Personalize | TextToImage | ClipTraining) else 1


def whole(system: System) -> nn.ModuleList:
    """A system and the networks that it keeps outside of the module. Weights that both hold are one."""
    outside = [vars(system).get(name) for name in ("text_prior", "prior", "outside")]
    outside.append(getattr(vars(system).get("guidance"), "scorer", None))
    return nn.ModuleList([system, *(network for network in outside if network is not None)])


def describe(system: TextTo3D, photo: Views, device: str | None) -> None:
    """The photo, and the prior with its words, half way through the run."""
    system.progress = lambda step: 0.5
    system.reference = photo
    if system.prior_name is None:
        return
    prior = system.text_prior.requires_grad_(False).eval()
    if system.half_prior:
        to_gpu(prior, torch.bfloat16, device or "cpu")
    if system.checkpoint_encoder:
        prior.vae.enable_gradient_checkpointing()
    system.guidance.attach(prior)
    config = prior.text_encoder.config
    words = torch.zeros(1, config.max_position_embeddings, config.hidden_size, device=photo.images.device)
    system.text = system.negative = dict.fromkeys(VIEWS, words)


def stable_diffusion() -> TextPrior:
    """Stable Diffusion 1.5's networks, by the configuration files of its release, with random weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    widths = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    )
    # diffusers' own defaults are those of the release
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    tokenizer = SimpleNamespace(model_max_length=77)
    return TextPrior(tokenizer, CLIPTextModel(text), vae, unet, noise_schedule("epsilon"), "stable-diffusion-1.5")
