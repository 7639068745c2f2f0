"""Text priors, CLIP models, learned words and LoRA files of strangers: only what vcgen reads of them reaches diffusers
and transformers.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

from text_folder import tiny_folder, tiny_prior
from vcgen.diffusion.library_folder import TEXT_PRIOR, checked_folder, read_lora
from vcgen.diffusion.solvers import solver_of
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.personalization.base import load_personal
from vcgen.personalization.lora import LoRA


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("text") / "prior")


@pytest.fixture
def bait(tmp_path, monkeypatch) -> Path:
    """A module that leaves a file when it is imported."""
    (tmp_path / "stolen.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Model: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def change(path: Path, **entries) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize(
    ("file", "entries"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "stolen.Model"}}),
        ("text_encoder/config.json", {"architectures": ["BertModel"]}),
        ("text_encoder/config.json", {"attn_implementation": "someone/kernel"}),
        ("text_encoder/config.json", {"transformers_weights": "x.bin"}),
        ("text_encoder/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),
        ("unet/config.json", {"_class_name": "stolen.Model"}),
        ("unet/config.json", {"quantization_config": {"quant_method": "torchao"}}),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}),
        ("scheduler/scheduler_config.json", {"_class_name": "stolen"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "stolen.Model"}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["stolen.Model", None]}}),
    ],
)
def test_names_that_choose_code_are_refused(whole, bait, file, entries):
    folder = Path(shutil.copytree(whole, bait / "prior"))
    change(folder / file, **entries)
    with pytest.raises(UserError, match="not what vcgen reads") as error:
        TextPrior.load(folder)
    assert file in str(error.value) and "\n" not in str(error.value)
    assert not (bait / "sprung").exists() and "stolen" not in sys.modules


def test_other_models_and_files_elsewhere_are_not_followed(whole, bait):
    folder = Path(shutil.copytree(whole, bait / "prior"))
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/model"}')
    with pytest.raises(UserError, match="adapter of another model"):
        TextPrior.load(folder)
    (folder / "text_encoder" / "adapter_config.json").unlink()
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../../secret.bin"}}'
    )
    with pytest.raises(UserError, match=r"file '../../secret.bin' is not what"):
        TextPrior.load(folder)


@pytest.mark.parametrize(
    "kind", [EulerDiscreteScheduler, PNDMScheduler, DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler]
)
def test_samplers_do_not_clip_latents_whatever_scheduler_the_folder_names(whole, tmp_path, kind):
    folder = Path(shutil.copytree(whole, tmp_path / "prior"))
    kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    prior = TextPrior.load(folder)
    assert not prior.schedule.config.clip_sample and not solver_of(prior.schedule, "ddim", 5).config.clip_sample


def test_the_infinity_that_diffusers_writes_is_read_in_its_place_alone(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "prior"))
    DPMSolverMultistepScheduler().save_pretrained(folder / "scheduler")
    config = folder / "scheduler" / "scheduler_config.json"
    assert '"lambda_min_clipped": -Infinity' in config.read_text()
    TextPrior.load(folder).save(tmp_path / "again")
    assert TextPrior.load(tmp_path / "again")
    for wrong in (
        '{"lambda_min_clipped": Infinity}',
        '{"beta_start": -Infinity}',
        '{"lambda_min_clipped": -Infinity1}',
    ):
        config.write_text(wrong)
        with pytest.raises(UserError, match=r"scheduler_config\.json: .*malformed"):
            TextPrior.load(folder)
    config.write_text("{}")
    (folder / "unet" / "config.json").write_text('{"lambda_min_clipped": -Infinity}')
    with pytest.raises(UserError, match=r"unet/config\.json: .*malformed"):
        TextPrior.load(folder)


def test_a_network_that_predicts_the_sample_is_refused(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "prior"))
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    with pytest.raises(UserError, match=r"prior: .*'sample'.*prediction_type"):
        TextPrior.load(folder)


def test_what_macos_leaves_in_the_folder_is_not_read(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "prior"))
    for path in list(folder.rglob("*.json")):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert TextPrior.load(folder)


def test_pickled_weights_are_not_read(whole, bait):
    class Trap:
        def __reduce__(self):
            return open, (str(bait / "sprung"), "w")

    folder = Path(shutil.copytree(whole, bait / "prior"))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(Trap(), folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError):
        TextPrior.load(folder)
    (bait / "lora").mkdir()
    for name in ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"):
        torch.save(Trap(), bait / "lora" / name)
    with pytest.raises(UserError, match="damaged"):
        load_personal(TextPrior.load(whole), bait / "lora")
    assert not (bait / "sprung").exists()


def test_folders_as_stable_diffusion_has_them_are_allowed(tmp_path):
    for part in TEXT_PRIOR:
        (tmp_path / part).mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(
        '{"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "trained_betas": null}'
    )
    (tmp_path / "text_encoder" / "config.json").write_text(
        '{"_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"]}'
    )
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "CLIPTokenizer", "special_tokens_map_file": "./x.json"}'
    )
    (tmp_path / "unet" / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    )
    assert checked_folder(tmp_path, TEXT_PRIOR) == tmp_path


def lora(folder: Path, metadata: dict) -> Path:
    method = LoRA(noun="car")
    prior = tiny_prior().requires_grad_(False)
    method.attach(prior, torch.rand(1, 3, 16, 16))
    with torch.no_grad():
        for value in method.changes.values():
            value.add_(0.1 * torch.randn_like(value))
    folder.mkdir(exist_ok=True)
    method.save(prior, folder)
    path = folder / "pytorch_lora_weights.safetensors"
    save_file(load_file(path), path, {"format": "pt", "lora_adapter_metadata": json.dumps(metadata)})
    return path


def test_metadata_of_a_lora_imports_nothing(whole, bait):
    plain = {"unet.r": 4, "unet.lora_alpha": 4, "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    lora(bait / "lora", plain | {"unet.megatron_config": {"a": 1}, "unet.megatron_core": "stolen"})
    with pytest.raises(UserError, match="LoRA with megatron_config"):
        load_personal(TextPrior.load(whole), bait / "lora")
    lora(bait / "lora", plain | {"unet.megatron_core": "stolen"})  # peft writes the name of its default into every file
    load_personal(TextPrior.load(whole), bait / "lora")
    assert not (bait / "sprung").exists() and "stolen" not in sys.modules


def test_the_scale_of_a_lora_is_that_of_its_metadata(whole, tmp_path):
    def change_of(metadata: dict) -> torch.Tensor:
        torch.manual_seed(1)
        lora(tmp_path / "lora", metadata)
        prior = TextPrior.load(whole)
        before = {name: value.clone() for name, value in prior.unet.state_dict().items()}
        load_personal(prior, tmp_path / "lora")
        return torch.cat([(value - before[name]).flatten() for name, value in prior.unet.state_dict().items()])

    plain, doubled = change_of({}), change_of({"unet.r": 4, "unet.lora_alpha": 8})
    assert plain.abs().max() > 1e-3 and torch.allclose(doubled, 2 * plain, atol=1e-6)
    for wrong in ({"unet.r": 0, "unet.lora_alpha": 8}, {"unet.r": 4, "unet.lora_alpha": "8"}):
        with pytest.raises(UserError, match="Expected"):
            read_lora(lora(tmp_path / "lora", wrong))
