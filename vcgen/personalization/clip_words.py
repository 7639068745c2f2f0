"""RealFusion's search for an initial word (arXiv 2302.10663): the one that a CLIP model with an image encoder finds in
the photos.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vcgen.diffusion.clip import Clip
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError

#: What is compared with the photos, as in RealFusion's code.
SENTENCE = "an image of a {}"
#: Sentences that pass the text encoder at once; WordNet has ten thousands of nouns.
BATCH = 256


@torch.no_grad()
def clip_probabilities(name: str, images: Tensor, words: Sequence[str], download: bool = False) -> Tensor:
    """How probable a CLIP model finds each word: its logits, averaged over the images, softmax over the words;
    (words,), sums to 1.

    name, download: see :meth:`Clip.from_folder`. images: square, (n, 3, side, side) in [0, 1]; their device is where
    CLIP runs."""
    try:
        clip = Clip.from_folder(name, download).to(images.device)
    except UserError as error:
        raise UserError(f"model.method.clip: {error}") from error
    sentences, embedding = [SENTENCE.format(word) for word in words], clip.embed_images(images.movedim(1, -1)).mean(0)
    parts = [clip.embed_texts(sentences[i : i + BATCH]) @ embedding for i in range(0, len(sentences), BATCH)]
    return (clip.logit_scale * torch.cat(parts)).softmax(0)


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
