"""CLIP models in transformers' folders: scores are transformers' own, gradients reach the images, other folders are
refused.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from text_folder import tiny_clip, tiny_folder
from vcgen.diffusion.clip import Clip, Normalization
from vcgen.errors import UserError

TEXTS = ["a photo of a red car", "a photo of a chair, back view", "fish"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """In half precision, with a normalization of its own."""
    place = tmp_path_factory.mktemp("clip")
    clip = Clip.from_folder(tiny_clip(place / "plain"))
    Clip(clip.model, clip.tokenizer, Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))).save(place / "own", half=True)
    return place / "own"


def images(side: int, count: int = 3) -> Tensor:
    """In exact 8 bits: (count, side, side, 3)."""
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(0)) / 255


def by_transformers(folder: Path, given: Tensor) -> Tensor:
    """transformers' logits (n, texts), its own processor reading the images."""
    processor = CLIPProcessor.from_pretrained(folder)
    pixels = list((given * 255).round().to(torch.uint8).movedim(-1, 1))
    inputs = processor(images=pixels, text=TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return CLIPModel.from_pretrained(folder).float()(**inputs).logits_per_image


# at another size, transformers rounds the resized images to 8 bits
@pytest.mark.parametrize(("side", "tolerance"), [(24, 1e-5), (60, 0.1)])
def test_scores_are_those_of_transformers(folder, side, tolerance):
    clip, given = Clip.from_folder(folder), images(side)
    seen, said = clip.embed_images(given), clip.embed_texts(TEXTS)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(said.norm(dim=1), torch.ones(3))
    expected = by_transformers(folder, given)
    torch.testing.assert_close(clip.logit_scale * seen @ said.T, expected, atol=tolerance, rtol=0)
    assert expected.std() > 3 * tolerance


def test_gradients_reach_the_images_alone(folder):
    clip, generator = Clip.from_folder(folder).double(), torch.Generator().manual_seed(1)
    given, direction = images(60, 1).requires_grad_(), torch.randn((1, 60, 60, 3), generator=generator)

    def score(image: Tensor) -> Tensor:
        return (clip.embed_images(image) @ clip.embed_texts(TEXTS[:1]).T).sum()

    slope = torch.autograd.grad(score(given), given)[0].mul(direction).sum()
    step = 1e-3 * direction
    difference = (score(given + step) - score(given - step)).detach() / 2e-3
    torch.testing.assert_close(slope, difference, atol=0, rtol=0.02, check_dtype=False)
    assert not any(weight.requires_grad for weight in clip.parameters())


def test_the_central_square_is_read(folder):
    clip, given = Clip.from_folder(folder), images(24)
    wide = torch.cat([torch.zeros(3, 24, 4, 3), given, torch.ones(3, 24, 4, 3)], 2)
    assert torch.equal(clip.embed_images(wide), clip.embed_images(given))
    with pytest.raises(ValueError, match="height, width, 3"):
        clip.embed_images(given.movedim(-1, 1))


def test_what_is_no_clip_model_is_refused_in_one_line(folder, tmp_path):
    def broken(name: str, change: Callable[[Path], object]) -> Path:
        change(Path(shutil.copytree(folder, tmp_path / name)))
        return tmp_path / name

    def changed(file: str, **entries: object) -> Callable[[Path], object]:
        return lambda place: (place / file).write_text(json.dumps(json.loads((place / file).read_text()) | entries))

    prior = tiny_folder(tmp_path / "prior")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    cases = {
        tmp_path / "absent": "download: true",
        prior: "no folder of a CLIP model",
        prior / "text_encoder": "clip_text_model; a text encoder alone sees no images",
        broken("wordless", lambda place: [path.unlink() for path in place.glob("tokenizer*")]): "files are missing",
        broken("cut off", lambda place: (place / "model.safetensors").write_bytes(b"0" * 20)): "no folder of a CLIP",
        broken("other sizes", changed("config.json", projection_dim=9)): "no folder",
        broken("endless", changed("config.json", text_config=text | {"eos_token_id": 7})): "end with token 1",
        broken("few words", changed("config.json", text_config=text | {"vocab_size": 9})): "no folder",
        broken("odd", changed("preprocessor_config.json", image_std=[0, 1, 1])): "image_std",
        broken(
            "pickled", lambda place: (place / "model.safetensors").rename(place / "pytorch_model.bin")
        ): "model.safetensors found",
    }
    for place, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            Clip.from_folder(place)
        assert "\n" not in str(error.value) and str(place) in str(error.value)


def test_a_text_that_would_not_be_read_whole_is_refused(folder):
    with pytest.raises(UserError, match="tokens with its marks of beginning and end, of which the CLIP model"):
        Clip.from_folder(folder).embed_texts(["car", "a photo of a car " * 8])
