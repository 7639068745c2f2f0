"""The initial word by CLIP: transformers' own processor and logits say the same, and a run starts from the word that
they rank first.
"""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from text_folder import tiny_clip, tiny_folder, tiny_prior
from training import equal, last_checkpoint, refusal, vcgen
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.personalization import clip_words, textual_inversion
from vcgen.personalization.clip_words import clip_probabilities
from vcgen.personalization.textual_inversion import TextualInversion

WORDS = ["car", "chair", "fish", "photo", "red", "blue", "green"]
CONFIG = Path(__file__).parents[1] / "configs" / "textual_inversion.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a prior, a CLIP model, a list of nouns and a photo."""
    folder = tmp_path_factory.mktemp("words")
    tiny_clip(folder / "clip")
    tiny_folder(folder / "prior")
    (folder / "nouns.txt").write_text("\n".join(["quokka", "", *WORDS, " car "]))
    Image.fromarray(np.pad(np.full((20, 30, 3), 90, np.uint8), ((9, 9), (9, 9), (0, 0)), constant_values=255)).save(
        folder / "photo.png"
    )
    return folder


def images(count: int = 1) -> Tensor:
    """Patches of color with noise finer than CLIP's pixels, in exact 8 bits."""
    generator = torch.Generator().manual_seed(0)
    patches = (
        torch.randint(0, 128, (count, 3, 4, 4), generator=generator).repeat_interleave(20, 2).repeat_interleave(20, 3)
    )
    return (patches + torch.randint(0, 128, (count, 3, 80, 80), generator=generator)) / 255


def by_transformers(folder: Path, given: Tensor) -> Tensor:
    """Each word's logit for each image, (n, words), by CLIP's processor for PIL's images."""
    images = [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in given]
    sizes = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    model, tokenizer = CLIPModel.from_pretrained(folder), tiny_prior().tokenizer
    processor = CLIPProcessor(CLIPImageProcessorPil(**sizes), tokenizer)
    with torch.no_grad():
        prompts = [f"an image of a {word}" for word in WORDS]
        return model(**processor(images=images, text=prompts, padding=True, return_tensors="pt")).logits_per_image


def row(folder: Path, word: str) -> Tensor:
    """A known word's vector."""
    prior = TextPrior.load(folder)
    return (
        prior.text_encoder.get_input_embeddings()
        .weight[prior.tokenizer(word, add_special_tokens=False).input_ids[0]]
        .detach()
    )


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """Lines that were logged; not by caplog, which hears of Lightning's logger in some of its versions alone."""
    lines = []
    monkeypatch.setattr(textual_inversion, "rank_zero_info", lines.append)
    return lines


def shown(said: list[str]) -> dict[str, float]:
    """The words of the one line that was printed, and their per cents."""
    (line,) = said
    return {
        word: float(fraction.rstrip("%"))
        for word, fraction in (part.split() for part in line.split(": ")[1].split(", "))
    }


def test_words_are_ranked_as_transformers_ranks_them(place, monkeypatch):
    given = images(3)
    logits = by_transformers(place / "clip", given)
    assert len(set(logits.argmax(1).tolist())) > 1  # one image alone would choose another word
    for words_at_once in (256, 3):
        monkeypatch.setattr(clip_words, "BATCH", words_at_once)
        found = clip_probabilities(str(place / "clip"), given, WORDS)
        torch.testing.assert_close(found, logits.mean(0).softmax(0), atol=5e-3, rtol=0)
        assert found.argsort().tolist() == logits.mean(0).argsort().tolist()
    assert float(found.max() - found.min()) > 0.02


def test_the_new_word_starts_from_the_best_one_and_the_best_five_are_printed(place, said):
    expected = by_transformers(place / "clip", images(3)).mean(0).softmax(0)
    ranked = [WORDS[number] for number in expected.argsort(descending=True)]
    for initial in (WORDS, str(place / "nouns.txt")):
        said.clear()
        method = TextualInversion(initial=initial, vectors=2, clip=str(place / "clip"))
        method.attach(TextPrior.load(place / "prior").requires_grad_(False), images(3))
        assert torch.equal(method.vectors, row(place / "prior", ranked[0]).expand(2, -1))
        found = shown(said)
        assert list(found) == ranked[:5] and f"initial word, of {len(WORDS)}" in said[0]
        assert list(found.values()) == pytest.approx((100 * expected.sort(descending=True)[0][:5]).tolist(), abs=0.6)


def test_a_run_asks_clip_and_goes_on(place, tmp_path, said):
    options = {
        "trainer__accelerator": "cpu",
        "trainer__val_check_interval": 1,
        "data__image": place / "photo.png",
        "model__prior": place / "prior",
        "model__images__rows": 0,
        "model__method__initial": place / "nouns.txt",
        "model__method__clip": place / "clip",
        "model__optimizer__lr": 1e-30,
    }
    assert vcgen("fit", CONFIG, tmp_path / "run", trainer__max_steps=1, **options) == 0
    learned = load_file(tmp_path / "run" / "learned_embeds.safetensors")["<e>"]
    assert torch.equal(learned[0], row(place / "prior", next(iter(shown(said)))))
    assert vcgen("fit", CONFIG, tmp_path / "run", trainer__max_steps=2, ckpt_path="last", **options) == 0
    assert equal(learned, last_checkpoint(tmp_path / "run")["state_dict"]["method.vectors"])


def test_what_is_no_clip_model_is_refused_in_one_line(place, tmp_path, capsys):
    options = {
        "data__image": place / "photo.png",
        "model__prior": place / "prior",
        "model__method__initial": "[car, fish]",
    }
    status = vcgen(
        "fit", CONFIG, tmp_path / "run", trainer__accelerator="cpu", model__method__clip=tmp_path / "absent", **options
    )
    assert "model.method.clip" in refusal(capsys, status)


def test_the_hub_is_asked_only_with_permission(monkeypatch):
    class Asked(BaseException):
        pass

    def asked(*arguments, **options):
        raise Asked

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_TELEMETRY", True)):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    method, prior = TextualInversion(initial=["car", "fish"], clip="somebody/something"), tiny_prior()
    with pytest.raises(UserError, match="download: true"):
        method.attach(prior, images())
    with pytest.raises(Asked):
        method.attach(prior, images(), download=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"quokka\nhot dog\n", "none of the 2"),
        (b"\n", "none of the 0"),
    ],
)
def test_lists_without_words_are_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "nouns.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        TextualInversion(initial=str(path), clip="somebody/something").attach(tiny_prior(), images())
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_list_needs_clip_and_named_words_are_one_token_each(place):
    with pytest.raises(UserError, match=r"nouns.txt need model.method.clip"):
        TextualInversion(initial="nouns.txt")
    with pytest.raises(UserError, match="'quokka' is"):
        TextualInversion(initial=["car", "quokka"], clip=str(place / "clip")).attach(tiny_prior(), images())
