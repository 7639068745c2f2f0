"""RealFusion's search for an initial word (arXiv 2302.10663): the one that a CLIP model with an image encoder finds in
the photos.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from vcgen.diffusion.library_folder import CLIP, checked_folder
from vcgen.diffusion.text_prior import LOCAL, NEEDS_TEXT, WEIGHTS, TextPrior
from vcgen.errors import UserError
from vcgen.io import read_json

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

#: What is compared with the photos, as in RealFusion's code.
SENTENCE = "an image of a {}"
#: Sentences that pass the text encoder at once; WordNet has ten thousands of nouns.
BATCH = 256


@torch.no_grad()
def clip_probabilities(name: str, images: Tensor, words: Sequence[str], download: bool = False) -> Tensor:
    """How probable a CLIP model finds each word: its logits, averaged over the images, softmax over the words;
    (words,), sums to 1.

    name, download: see :func:`load_clip`. images: square, (n, 3, side, side) in [0, 1]; their device is where CLIP
    runs."""
    model, tokenizer = load_clip(name, download)
    model, pixels = model.to(images.device), clip_pixels(images, model.config.vision_config.image_size)
    sentences, logits = [SENTENCE.format(word) for word in words], []
    for start in range(0, len(sentences), BATCH):
        text = tokenizer(sentences[start : start + BATCH], padding=True, return_tensors="pt").to(images.device)
        logits.append(model(**text, pixel_values=pixels).logits_per_image.mean(0))
    return torch.cat(logits).softmax(0)


def clip_pixels(images: Tensor, side: int) -> Tensor:
    """Square images in [0, 1] as CLIP reads them: (n, 3, side, side), with the mean and deviation that all of its sizes
    share.
    """
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    resized = F.interpolate(images.float(), (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, deviation = (resized.new_tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (resized - mean) / deviation


def load_clip(name: str, download: bool = False) -> tuple["CLIPModel", "CLIPTokenizer"]:
    """From a local folder in transformers' format, else from the hub's cache; from the hub itself only with
    ``download``. float32.

    Only safetensors are read. Raises UserError where nothing is found, or no CLIP model with both encoders and a
    tokenizer."""
    try:
        from transformers import CLIPModel, CLIPTokenizer
    except ImportError as error:
        raise UserError(NEEDS_TEXT) from error
    try:
        folder = checked_folder(name, CLIP, download)
        kind = read_json(folder / "config.json", dict[str, Any]).get("model_type")
        if kind != "clip":  # transformers would go on, and draw the weights that it misses at random
            raise ValueError(f"it is of type {kind}; a text encoder alone sees no images")
        model = CLIPModel.from_pretrained(folder, **WEIGHTS).float().eval()
        tokenizer = CLIPTokenizer.from_pretrained(folder, **LOCAL)
        if len(tokenizer) < 3:  # what transformers makes of absent files: the marks of beginning and end
            raise ValueError("its tokenizer's files are missing")
    except (UserError, OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        if Path(name).exists():
            raise UserError(
                f"model.method.clip: {name} is no folder of a CLIP model and its tokenizer ({reason})"
            ) from error
        advice = "to fetch a hub name, as openai/clip-vit-large-patch14, allow it with download: true"
        raise UserError(
            f"model.method.clip: {name} is neither a folder here nor in the hub's cache ({reason}); {advice}"
        ) from error
    return model, tokenizer


def listed_words(path: Path, prior: TextPrior) -> list[str]:
    """The words of a text file, one a line, that are one token to the prior's tokenizer; each once. Raises UserError if
    there are none.
    """
    try:
        words = list(dict.fromkeys(filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines()))))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"model.method.initial: {path} cannot be read ({error}); give a text file with one word a line"
        ) from error
    numbers = prior.tokenizer(words, add_special_tokens=False).input_ids if words else []
    single = [word for word, parts in zip(words, numbers, strict=True) if len(parts) == 1]
    if not single:
        raise UserError(
            f"model.method.initial: none of the {len(words)} words in {path} is one token to the tokenizer of"
            f" {prior.name}"
        )
    return single
