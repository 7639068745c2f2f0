"""From a personalization to a scene: what was learned is what score distillation hears and sees, whichever library
reads it.
"""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from small_realfusion import CONFIG
from text_folder import tiny_folder
from training import refusal, vcgen
from vcgen.diffusion.text_prior import TextPrior
from vcgen.personalization.lora import LoRA
from vcgen.personalization.textual_inversion import TextualInversion
from vcgen.systems.realfusion.system import RealFusion


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a prior, a configuration, and what two methods have learned: every trained weight away from its
    start.
    """
    folder = tmp_path_factory.mktemp("learned")
    tiny_folder(folder / "prior")
    (folder / "given.yaml").write_text(CONFIG.replace("prior: unused", f"prior: {folder / 'prior'}"))
    for name, method in (("word", TextualInversion(initial="car", vectors=2)), ("lora", LoRA(noun="car"))):
        prior = TextPrior.load(folder / "prior").requires_grad_(False)
        method.attach(prior, torch.zeros(1, 3, 16, 16))
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        (folder / name).mkdir()
        method.save(prior, folder / name)
    return folder


@pytest.fixture
def fitted(place, tmp_path, monkeypatch):
    """Fits a scene for one step; returns the system."""

    def fit(**options) -> RealFusion:
        runs = []
        monkeypatch.setattr(RealFusion, "on_train_end", lambda self: runs.append(self))
        assert vcgen("fit", place / "given.yaml", tmp_path / "run", trainer__max_steps=1, **options) == 0
        return runs[0]

    return fit


def pipeline(place: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(place / "prior", local_files_only=True, safety_checker=None)


def embedded(by: StableDiffusionPipeline, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        return by.encode_prompt(prompt, "cpu", 1, False)[0]


def test_the_learned_word_is_the_subject_of_every_side(place, fitted):
    made = fitted(model__learned=place / "word", model__prompt__negative="blurred")
    assert (made.prompt.subject, made.prompt.of("side")) == ("<e> <e>_1", "a photo of a <e> <e>_1, side view")
    theirs = pipeline(place)
    theirs.load_textual_inversion(place / "word", weight_name="learned_embeds.safetensors", local_files_only=True)
    for view, text in made.text.items():
        torch.testing.assert_close(text, embedded(theirs, f"a photo of a <e>, {view} view"), atol=1e-5, rtol=0)
        assert not torch.allclose(text, embedded(theirs, f"a photo of a chair, {view} view"), atol=1e-2)
        torch.testing.assert_close(made.negative[view], embedded(theirs, "blurred"), atol=1e-5, rtol=0)


def test_learned_changes_of_the_network_are_in_the_prior_that_is_distilled(place, fitted):
    made = fitted(model__learned=place / "lora")
    assert made.prompt.of("back") == "a photo of a sks car, back view"
    noisy, times, text = torch.randn(1, 4, 8, 8), torch.tensor([400]), made.text["back"]
    theirs = pipeline(place)
    with torch.no_grad():
        before = theirs.unet(noisy, times, text).sample
        theirs.load_lora_weights(place / "lora", weight_name="pytorch_lora_weights.safetensors", local_files_only=True)
        after, ours = theirs.unet(noisy, times, text).sample, made.text_prior(noisy, times, text)
    torch.testing.assert_close(ours, after, atol=1e-5, rtol=1e-4)
    assert float((after - before).abs().max()) > 1e-2
    assert not any(p.requires_grad for p in made.text_prior.parameters())


def test_without_a_personalization_the_subject_is_the_prompts(place, fitted):
    made = fitted(model__prompt__subject="chair")
    assert made.prompt.subject == "chair"
    torch.testing.assert_close(
        made.text["front"], embedded(pipeline(place), "a photo of a chair, front view"), atol=1e-5, rtol=0
    )


def test_a_folder_in_which_nothing_was_learned_is_one_line(place, tmp_path, capsys):
    assert "nothing that was learned" in refusal(
        capsys, vcgen("fit", place / "given.yaml", tmp_path, model__learned=place / "prior")
    )
