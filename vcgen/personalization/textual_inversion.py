"""Textual inversion (arXiv 2208.01618): a new word of the text encoder, learned from photos; all networks stay as they
are.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.diffusion.base import to_signed
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.personalization.base import EMBEDDINGS, TEXT_ENCODER, Personalization, add_words, fingerprint, words_of
from vcgen.personalization.clip_words import clip_probabilities, listed_words
from vcgen.schema import AtLeastOne
from vcgen.terminal import printable

#: Noise levels at which initial words are compared.
LEVELS = 32
#: As many of CLIP's words are printed.
BEST = 5


class TextualInversion(Personalization):
    """Textual inversion (arXiv 2208.01618): vectors of a new word of the text encoder are the only parameters.

    Whatever the optimizer does, the known words stay bitwise as they are.

    Args:
        token: The new word.
        initial: Word of one token whose vector the new ones start from. Of several, the one that fits the photos best,
            by CLIP (:func:`clip_probabilities`), or without it by the prior (:func:`nearest_word`). One name that ends
            in .txt is a file with a word a line, for CLIP; of its words those that are no single token are passed over.
        vectors: Number of vectors; prompts then say "<e> <e>_1 ...", as diffusers writes it.
        clip: CLIP model with image encoder, as a folder or hub name, see :meth:`Clip.from_folder`; null ranks words
            by the prior.
    """

    def __init__(
        self, token: str = "<e>", initial: list[str] | str = "object", vectors: AtLeastOne = 1, clip: str | None = None
    ):
        super().__init__()
        self.words = [initial] if isinstance(initial, str) else list(initial)
        self.file = Path(initial) if isinstance(initial, str) and initial.endswith(".txt") else None
        if not token or token.split() != [token]:
            raise UserError(f"model.method.token: {token!r} is no word; give one as <e>")
        if not self.words:
            raise UserError("model.method.initial: give a word to start from, or several to choose from")
        if vectors < 1:
            raise UserError(f"model.method.vectors must be at least 1, not {vectors}")
        if self.file is not None and clip is None:
            raise UserError(
                f"model.method.initial: the words of {initial} need model.method.clip, a CLIP model that ranks them"
            )
        self.token, self.count, self.clip = token, vectors, clip

    @property
    def phrase(self) -> str:
        """The new words."""
        return words_of(self.token, self.count)

    def attach(self, prior: TextPrior, images: Tensor, download: bool = False) -> None:
        """See :meth:`Personalization.attach`."""
        words = self.words if self.file is None else listed_words(self.file, prior)
        numbers = [token_number(prior, word) for word in words]
        chosen = numbers[self.choice(prior, images, words, download)]
        add_words(prior, self.phrase.split())
        known = prior.text_encoder.get_input_embeddings()
        self.vectors = nn.Parameter(known.weight[chosen].detach().float().clone().expand(self.count, -1).contiguous())
        first = prior.tokenizer.convert_tokens_to_ids(self.token)
        prior.text_encoder.set_input_embeddings(WithNewRows(known, first, self.vectors))

    def choice(self, prior: TextPrior, images: Tensor, words: Sequence[str], download: bool) -> int:
        """The index of the word that fits the images best; CLIP's best ones are printed."""
        if len(words) == 1:
            return 0
        if self.clip is None:
            return nearest_word(prior, images, words)
        best = clip_probabilities(self.clip, images, words, download).topk(min(BEST, len(words)))
        shown = ", ".join(
            f"{words[i]} {fraction:.1%}"
            for fraction, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        )
        rank_zero_info(printable(f"initial word, of {len(words)}, by CLIP: {shown}"))
        return int(best.indices[0])

    def write(self, prior: TextPrior, folder: Path) -> None:
        """``learned_embeds.safetensors``, for diffusers' ``load_textual_inversion``."""
        known = prior.text_encoder.get_input_embeddings().known.weight
        metadata = {"format": "pt", TEXT_ENCODER: fingerprint(known)}
        save_file({self.token: self.vectors.detach().cpu().contiguous()}, folder / EMBEDDINGS, metadata)


class WithNewRows(nn.Module):
    """An embedding whose rows from number ``first`` on lie in ``rows`` (k, width), and whose known rows cannot change
    with them.
    """

    def __init__(self, known: nn.Embedding, first: int, rows: nn.Parameter):
        super().__init__()
        self.known, self.first, self.rows = known, first, rows

    def forward(self, numbers: Tensor) -> Tensor:
        """Token numbers (n, length) -> vectors (n, length, width)."""
        new = numbers >= self.first
        known = self.known(numbers.masked_fill(new, 0))
        learned = F.embedding((numbers - self.first).clamp(min=0), self.rows)
        return torch.where(new[..., None], learned.to(known.dtype), known)


def token_number(prior: TextPrior, word: str) -> int:
    """The number of a word that is one token. Raises UserError for others."""
    numbers = prior.encoded(word)
    if len(numbers) != 1:
        parts = " + ".join(prior.tokenizer.convert_ids_to_tokens(numbers)) or "nothing"
        raise UserError(
            f"model.method.initial: {word!r} is {parts} to the tokenizer of {prior.name}; choose a word that is one"
            " token"
        )
    return numbers[0]


@torch.no_grad()
def nearest_word(prior: TextPrior, images: Tensor, words: Sequence[str]) -> int:
    """The index of the word for which "a photo of a WORD" makes images (n, 3, H, W) in [0, 1] easiest to denoise.

    Stands in for RealFusion's search where there is no CLIP model: its image encoder is not part of a text prior. The
    loss is the network's squared error with the same noise for all words, at LEVELS noise levels an image."""
    latents = prior.encode(to_signed(images)).repeat(LEVELS, 1, 1, 1)  # in turn: each at levels from low to high
    losses = []
    for word in words:
        text = prior.embed([f"a photo of a {word}"]).expand(len(latents), -1, -1)
        generator = torch.Generator(latents.device).manual_seed(0)
        losses.append(prior.loss(latents, text, generator, min_snr=None)[0].mean())
    return int(torch.stack(losses).argmin())
