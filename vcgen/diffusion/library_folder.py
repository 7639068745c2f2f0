"""Folders in the formats of diffusers and transformers, looked through before these libraries open them.

By names of classes, of files and of other models in a folder's JSON files, the libraries can be made to import, to
fetch, or to read what nobody asked for. What vcgen takes from such folders needs none of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct
from safetensors import safe_open
from torch import Tensor

from vcgen.errors import UserError
from vcgen.io import MAX_JSON, check, parse_json, read_bytes
from vcgen.tensors import read_tensors
from vcgen.terminal import one_line

#: Entries by which code, kernels, other weights or other models are chosen.
FORBIDDEN = (
    "auto_map custom_pipelines quantization_config attn_implementation _attn_implementation "
    "_attn_implementation_internal kernel_config use_kernels transformers_weights base_model_name_or_path peft_config"
).split()
#: A file whose presence makes transformers load another model, the one that it names.
ADAPTER = "adapter_config.json"
SCHEDULERS = tuple(
    f"{name}Scheduler"
    for name in (
        "DDPM DDIM PNDM LMSDiscrete EulerDiscrete EulerAncestralDiscrete HeunDiscrete DPMSolverMultistep "
        "DPMSolverSinglestep KDPM2Discrete UniPCMultistep DEISMultistep "
    ).split()
)
#: The parts of a text prior that are read, and the classes that their files may name.
TEXT_PRIOR = {
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "text_encoder": ("CLIPTextModel",),
    "vae": ("AutoencoderKL",),
    "unet": ("UNet2DConditionModel",),
    "scheduler": SCHEDULERS,
}
#: Those of a CLIP model with its tokenizer, which lie in one folder; of a text encoder alone its reader says what it
#: lacks.
CLIP = {
    "": (
        "CLIPModel",
        "CLIPTextModel",
        "CLIPTokenizer",
        "CLIPTokenizerFast",
        "CLIPProcessor",
        "CLIPImageProcessor",
        "CLIPFeatureExtractor",
    )
}
#: What is fetched from the hub: one set of weights, and never a pickled one.
FILES = ("*.json", "*.txt", "model.safetensors", "diffusion_pytorch_model.safetensors")
MOST_STEPS = 100_000
#: What diffusers' DPM-Solvers write into the configuration by default, though JSON has no such number.
NO_CLIP = re.compile(rb'("lambda_min_clipped"\s*:\s*)-Infinity\b')
#: Options of peft under which the tensors mean something else.
UNREAD = set(
    (
        "use_dora use_rslora rank_pattern alpha_pattern megatron_config auto_mapping fan_in_fan_out modules_to_save "
        "layer_replication trainable_token_indices use_qalora use_bdlora arrow_config loftq_config eva_config "
        "corda_config lora_bias exclude_modules layers_to_transform target_parameters"
    ).split()
)


class Scale(Struct):
    """The options of peft that are read."""

    r: Annotated[int, Meta(ge=1, le=65536)]
    lora_alpha: Annotated[float, Meta(gt=0, le=1e6)]


def checked_folder(name: str | Path, parts: Mapping[str, Sequence[str]], download: bool = False) -> Path:
    """The folder of a model: ``name`` itself, or the hub's copy on this computer, fetched only with ``download``.

    parts: subfolder -> names of classes that its files may hold. Raises UserError for a folder that asks for more than
    that, and OSError or ValueError for what is neither a folder nor a known name.
    """
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        wanted = [f"{part}/{file}" if part else file for part in parts for file in FILES]
        folder = Path(
            snapshot_download(str(name), local_files_only=not download, allow_patterns=["model_index.json", *wanted])
        )
    for part, classes in parts.items():
        if (folder / part / ADAPTER).exists():
            raise UserError(
                f"{folder / part / ADAPTER}: an adapter of another model, which is not followed; give the merged model"
            )
        for path in sorted((folder / part).glob("[!.]*.json")):
            if path.name.endswith("config.json") or path.name.endswith(".index.json"):
                _check(path, classes)
    return folder


def read_lora(path: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA file, scaled as its metadata says, for diffusers' ``load_lora_weights``.

    diffusers would make of the metadata whatever configuration of peft it describes, which may name modules to import,
    and would take a pickled file, too. Raises UserError for a file that is damaged, or whose metadata asks for more
    than a rank and a scale."""
    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        noted = (file.metadata() or {}).get("lora_adapter_metadata", "{}")
    content = parse_json(noted.encode(), dict[str, Any], str(path))
    for part in ("unet", "text_encoder"):
        options = {
            name.removeprefix(f"{part}."): value for name, value in content.items() if name.startswith(f"{part}.")
        }
        if strange := sorted(name for name in UNREAD & options.keys() if options[name]):
            raise UserError(one_line(f"{path}: LoRA with {strange[0]} is not what vcgen reads", "give a plain LoRA"))
        scale = parse_scale(options, path)
        for name in tensors:
            if name.startswith(f"{part}.") and name.endswith(("lora_B.weight", "lora.up.weight")):
                tensors[name] = tensors[name] * scale
    return tensors


def parse_scale(options: Mapping[str, Any], path: Path) -> float:
    """alpha / rank, by which a LoRA's change is multiplied; 1 where the metadata does not say."""
    if not {"r", "lora_alpha"} <= options.keys():
        return 1.0
    found = check(options, Scale, str(path))
    return found.lora_alpha / found.r


def _check(path: Path, classes: Sequence[str]) -> None:
    data = read_bytes(path, MAX_JSON)
    if path.name == "scheduler_config.json":
        data = NO_CLIP.sub(rb"\1null", data)
    content = parse_json(data, dict[str, Any], str(path))
    found = [content.get("_class_name"), content.get("tokenizer_class"), *_list(content.get("architectures"))]
    weights = content.get("weight_map")
    strange = [
        *(f"the entry {name}" for name in FORBIDDEN if content.get(name) is not None),
        *(f"the class {name!r}" for name in found if name is not None and name not in classes),
        *(
            f"the file {name!r}"
            for name in _list(list(weights.values()) if isinstance(weights, dict) else weights)
            if not (isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*\.safetensors", name))
        ),
        *(["more than 100,000 steps"] if not _few(content.get("num_train_timesteps")) else ()),
    ]
    if strange:
        raise UserError(
            one_line(f"{path}: {strange[0]} is not what vcgen reads", "give a plain model, of safetensors and JSON")
        )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _few(steps: object) -> bool:
    return steps is None or (isinstance(steps, int) and 1 <= steps <= MOST_STEPS)
