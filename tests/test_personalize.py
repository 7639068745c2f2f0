"""Personalization as a run: what it trains on, what it keeps, what it writes, and that it goes on bitwise."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from learned_prior import COLORS
from small_personalization import OPTIMIZER, example, system
from text_folder import tiny_folder
from training import equal, last_checkpoint, refusal, vcgen
from vcgen.data.images.photo_augment import PLAIN
from vcgen.diffusion.text_prior import TextPrior
from vcgen.personalization.base import load_personal
from vcgen.personalization.class_images import Preservation
from vcgen.personalization.lora import LoRA
from vcgen.personalization.textual_inversion import TextualInversion
from vcgen.systems.personalize import TEMPLATES, Personalize
from vcgen.types import Example, Views

METHODS = {
    "textual inversion": {"class_path": "TextualInversion", "init_args": {"initial": "car", "vectors": 2}},
    "lora": {"class_path": "LoRA", "init_args": {"noun": "car"}},
    "dreambooth": {"class_path": "DreamBooth", "init_args": {"noun": "car"}},
}
WRITTEN = {
    "textual inversion": "learned_embeds.safetensors",
    "lora": "pytorch_lora_weights.safetensors",
    "dreambooth": "pipeline",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a prior and a photo."""
    folder = tmp_path_factory.mktemp("personal")
    tiny_folder(folder / "prior")
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[10:30, 10:50] = (200, 30, 30)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


def config(place: Path, run: Path, method: str, **model) -> Path:
    """The configuration of a small training."""
    trainer = {
        "max_steps": 4,
        "accelerator": "cpu",
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    init_args = {
        "prior": str(place / "prior"),
        "method": METHODS[method],
        "batch_size": 2,
        "images": {"steps": 2, "rows": 1},
        "optimizer": OPTIMIZER,
        **model,
    }
    content = {
        "seed_everything": 0,
        "trainer": trainer,
        "data": {"class_path": "PhotoData", "init_args": {"image": str(place / "photo.png"), "size": 32}},
        "model": {"class_path": "Personalize", "init_args": init_args},
        "checkpoint": {"monitor": "val/denoising", "mode": "min"},
        "ema": {"decay": 0.0},
    }
    run.mkdir(parents=True, exist_ok=True)
    (run / "given.yaml").write_text(yaml.safe_dump(content))
    return run / "given.yaml"


@pytest.mark.integration
@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_bitwise_and_leaves_what_the_prior_loads(method, place, tmp_path):
    preservation = None if method == "textual inversion" else {"count": 3, "steps": 2}
    whole, parts = (config(place, tmp_path / name, method, preservation=preservation) for name in ("whole", "parts"))
    assert vcgen("fit", whole, whole.parent) == 0
    assert vcgen("fit", parts, parts.parent, trainer__max_steps=2) == 0
    assert vcgen("fit", parts, parts.parent, ckpt_path="last") == 0
    one, two = (last_checkpoint(run.parent) for run in (whole, parts))
    for part in ("state_dict", "optimizer_states", "global_step"):
        assert equal(one[part], two[part])
    assert (whole.parent / "views.png").read_bytes() == (parts.parent / "views.png").read_bytes()
    trained = {name for name in one["state_dict"] if name.startswith("method.")}
    assert trained and len(one["optimizer_states"][0]["state"]) == len(trained)
    # nothing of the frozen networks
    assert {name.split(".")[0] for name in one["state_dict"]} <= {"method", "val_psnr", "val_denoising"}
    assert (whole.parent / WRITTEN[method]).exists() and (whole.parent / "photo.png").exists()
    assert not [path for path in whole.parent.iterdir() if path.name.startswith(".learned")]
    prior = TextPrior.load(place / "prior")
    phrase = load_personal(prior, whole.parent)
    assert phrase == ("<e> <e>_1" if method == "textual inversion" else "sks car")
    if method == "textual inversion":
        assert torch.equal(load_file(whole.parent / WRITTEN[method])["<e>"], one["state_dict"]["method.vectors"])
    sheet = Image.open(whole.parent / "views.png")
    assert sheet.size == (4 * 16 + 3 * 2, 16)


def test_averaged_weights_are_what_is_written(place, tmp_path):
    given = config(place, tmp_path / "run", "textual inversion")
    assert vcgen("fit", given, given.parent, ema__decay=0.9) == 0
    checkpoint = last_checkpoint(given.parent)
    average = checkpoint["callbacks"]["EMA"]["weights"]["method.vectors"]
    assert torch.equal(load_file(given.parent / "learned_embeds.safetensors")["<e>"], average)
    assert not torch.equal(average, checkpoint["state_dict"]["method.vectors"])


class Witness(TextPrior):
    """Notes what passes through it."""

    def encode(self, images, generator=None):
        self.encoded = images
        return super().encode(images, generator)

    def embed(self, prompts):
        self.prompts = list(prompts)
        self.read = [*getattr(self, "read", []), self.prompts]
        return super().embed(prompts)

    def forward(self, noisy, timesteps, text):
        self.texts = text
        self.calls = [*getattr(self, "calls", []), len(noisy)]
        return super().forward(noisy, timesteps, text)


def witness(place: Path) -> Witness:
    found = TextPrior.load(place / "prior")
    return Witness(found.tokenizer, found.text_encoder, found.vae, found.unet, found.schedule, "witness").eval()


def test_the_prior_sees_the_object_on_white_in_its_own_range(place):
    prior = witness(place)
    made = system(prior, TextualInversion(initial="car"), augmentation=PLAIN)
    made.losses(example(), torch.Generator().manual_seed(0))
    assert torch.equal(prior.encoded[0, :, 0, 0], torch.ones(3))  # white is 1, not 0.5: the range is [-1, 1]
    torch.testing.assert_close(prior.encoded[0, :, 8, 8], torch.tensor(COLORS["red"]) * 2 - 1)


def test_prompts_are_the_templates_with_the_object_and_the_view(place):
    prior = witness(place)
    made = system(prior, TextualInversion(initial="car", vectors=2), batch_size=16, view="front view")
    seen = set()
    for seed in range(12):
        made.losses(example(), torch.Generator().manual_seed(seed))
        seen.update(prior.prompts)
    assert seen == {f"{template.format('<e> <e>_1')}, front view" for template in TEMPLATES}
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 27 and all(template.count("{}") == 1 for template in TEMPLATES)


def test_both_halves_pass_the_unet_as_one_batch_and_each_has_its_loss(place):
    prior = witness(place)
    kept = Preservation(weight=0.5, prompts=("a photo of a {}", "a {}, back view"))
    made = system(prior, LoRA(noun="car"), batch_size=3, preservation=kept)
    made.class_images = torch.full((4, 3, 16, 16), 7, dtype=torch.uint8)
    losses = made.losses(example(), torch.Generator().manual_seed(0))
    assert prior.calls == [6] and set(losses) == {"denoising", "class"} and made.loss_weights == {"class": 0.5}
    prompts = [
        next(name for name, known in made.known_texts.items() if torch.equal(known, text)) for text in prior.texts
    ]
    assert all("sks car" in prompt for prompt in prompts[:3])
    assert set(prompts[3:]) <= {"a photo of a car", "a car, back view"}
    torch.testing.assert_close(prior.encoded[3:], torch.full((3, 3, 16, 16), 7 / 255 * 2 - 1))
    assert made.work == {"images": 6}


def test_a_text_encoder_that_does_not_learn_reads_a_prompt_once_and_another_once_a_step(place):
    prompts = ["a photo of sks car", "a rendering of a sks car", "a photo of sks car"]
    for method in (LoRA(noun="car"), LoRA(noun="car", text_encoder=True), TextualInversion(initial="car")):
        prior = witness(place)
        made = system(prior, method)
        found = [made.embed(prompts) for _ in range(2)]
        frozen = not getattr(method, "text_encoder", True)
        assert prior.read == ([prompts[:1], prompts[1:2]] if frozen else [prompts[:2]] * 2)
        for text in found:
            assert torch.allclose(text, TextPrior.embed(prior, prompts), atol=1e-6) and text.requires_grad != frozen


def test_several_photos_are_all_learned_from(place):
    prior = witness(place)
    made = system(prior, TextualInversion(initial="car"), batch_size=8, augmentation=PLAIN)
    given = example(count=2)
    images = given.context.images.clone()
    images[0, 1] = 0.25
    views = Views(images, given.context.cameras, given.context.alpha)
    made.losses(Example(views, views, ("photo",)), torch.Generator().manual_seed(0))
    assert {round(float(value), 3) for value in prior.encoded[:, 0, 8, 8]} == {0.8, -0.5}


def test_the_same_step_draws_the_same_and_checkpointing_changes_nothing(place):
    losses = []
    for seed, options in ((3, {}), (3, {}), (3, {"checkpoint": True}), (4, {})):
        method, prior = LoRA(noun="car"), TextPrior.load(place / "prior")
        made = system(prior, method, batch_size=2)
        if options:
            prior.unet.enable_gradient_checkpointing()
        loss = made.losses(example(), torch.Generator().manual_seed(seed))["denoising"]
        loss.backward()
        losses.append((float(loss.detach()), torch.cat([p.grad.flatten() for p in method.parameters()])))
    assert losses[0][0] == losses[1][0] != losses[3][0] and torch.equal(losses[0][1], losses[1][1])
    torch.testing.assert_close(losses[0], losses[2], atol=1e-6, rtol=1e-5)


@pytest.mark.integration
def test_checkpointing_and_bfloat16_are_what_the_configuration_says(place, tmp_path, monkeypatch):
    """One step each: recomputed blocks run twice, with the same result; in bfloat16 it differs by rounding, and weights
    stay float32.
    """
    runs, setup, found = [], Personalize.setup, {}

    def watched(self, stage):
        setup(self, stage)
        # not validation's; before it, as a recomputation ends as soon as it has what it needs
        layer = self.prior.unet.mid_block.resnets[-1].conv1
        layer.register_forward_pre_hook(
            lambda layer, given: runs.append(given[0].dtype) if given[0].requires_grad else None
        )

    monkeypatch.setattr(Personalize, "setup", watched)
    for name, options in {
        "plain": {},
        "recomputed": {"model__gradient_checkpointing": "true"},
        "half": {"model__gradient_checkpointing": "true", "trainer__precision": "bf16-mixed"},
    }.items():
        given = config(place, tmp_path / name, "lora", images={"rows": 0})
        runs.clear()
        assert vcgen("fit", given, given.parent, trainer__max_steps=1, trainer__val_check_interval=1, **options) == 0
        weights = last_checkpoint(given.parent)["state_dict"]
        losses = EventAccumulator(str(given.parent)).Reload().Scalars("train/denoising")
        found[name] = len(runs), runs[0], losses[0].value, {k: v for k, v in weights.items() if k.startswith("method.")}
    assert [found[name][:2] for name in found] == [(1, torch.float32), (2, torch.float32), (2, torch.bfloat16)]
    for name, value in found["plain"][3].items():
        torch.testing.assert_close(found["recomputed"][3][name], value, atol=1e-6, rtol=1e-5)
        assert found["half"][3][name].dtype == torch.float32 and bool(found["half"][3][name].isfinite().all())
    plain, half = found["plain"][2], found["half"][2]
    assert half != plain and half == pytest.approx(plain, rel=0.02)


def test_each_validation_puts_the_views_into_tensorboard(place, tmp_path):
    given = config(place, tmp_path / "run", "textual inversion", images={"steps": 2, "rows": 2})
    assert vcgen("fit", given, given.parent) == 0
    events = EventAccumulator(str(given.parent)).Reload().Images("val/views")
    assert [event.step for event in events] == [2, 4]
    sheets = [np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in events]
    assert sheets[0].shape == (2 * 16 + 2, 4 * 16 + 3 * 2, 3) and not np.array_equal(*sheets)
    # the same weights, noise and prompts
    assert np.array_equal(sheets[1], np.asarray(Image.open(given.parent / "views.png")))


@pytest.mark.integration
def test_what_cannot_be_is_refused_in_one_line(place, tmp_path, capsys):
    given = config(place, tmp_path / "run", "textual inversion")
    cases = [
        ({"data__image": tmp_path / "none.png"}, "none.png is missing"),
        ({"model__prior": tmp_path / "none"}, "neither a folder here nor in the hub's cache"),
        ({"model__method__initial": "quokka"}, "choose a word that is one token"),
        ({"model__method__token": "car"}, "already knows 'car'"),
        ({"model__preservation__count": 2}, "TextualInversion changes no network"),
        ({"model__augmentation__grayscale": 2}, "a probability"),
        ({"model__templates": "[a photo]"}, "templates with {}"),
    ]
    for options, message in cases:
        assert message in refusal(capsys, vcgen("fit", given, tmp_path / "run", **options))
    content = yaml.safe_load(given.read_text())
    content["data"] = {
        "class_path": "ShardData",
        "init_args": {"train": "data/cars64/train", "hold_out": 1, "num_workers": 0},
    }
    given.write_text(yaml.safe_dump(content))
    assert "Personalize does not learn from ShardData; set data to PhotoData" in refusal(
        capsys, vcgen("fit", given, tmp_path / "run")
    )
