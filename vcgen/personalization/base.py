"""A text prior learns one object from its photos: what all ways of doing so share, and how what was learned is loaded
again.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from msgspec import Struct
from safetensors import safe_open
from torch import Tensor, nn

from vcgen.diffusion.library_folder import read_lora
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.io import read_json
from vcgen.schema import Label, Name
from vcgen.tensors import read_tensors
from vcgen.terminal import one_line

#: Vectors that a word may have; a prompt has a few dozen places.
MOST = 100
#: How diffusers names the factors of a layer's change: "unet.LAYER.lora.down.weight", "unet.LAYER.lora_A.weight".
CHANGE = re.compile(r"((?:unet|text_encoder)\..+)\.lora(?:_linear_layer)?(\.down|\.up|_A|_B)\.weight")
#: The files that personalizations leave, in diffusers' own formats, and what names the object in prompts.
EMBEDDINGS, LORA, PIPELINE, NOTE = (
    "learned_embeds.safetensors",
    "pytorch_lora_weights.safetensors",
    "pipeline",
    "personal.json",
)

#: The entry of EMBEDDINGS' metadata that says which text encoder the vectors belong to.
TEXT_ENCODER = "text_encoder"


class Note(Struct):
    """What ``personal.json`` holds: the object's name in prompts, the class of the method, where the prior came
    from.
    """

    phrase: Label
    method: Name = ""
    prior: str = ""


class Personalization(nn.Module, ABC):
    """A way to teach a text prior one object. The module's own parameters are those that are trained, and all that
    checkpoints hold; the prior stays outside.

    noun: the class of the object, as in "a photo of a ...", where the method knows one.
    """

    noun: str | None = None

    @abstractmethod
    def attach(self, prior: TextPrior, images: Tensor, download: bool = False) -> None:
        """Build the trained parameters into a prior whose weights are frozen. images: of the object, (n, 3, H, W) in
        [0, 1].

        download: what a method needs beside the prior may be fetched from the hub. Raises UserError for words that the
        prior's tokenizer does not allow, and for what is needed and not there.
        """

    @property
    @abstractmethod
    def phrase(self) -> str:
        """What names the object in prompts: "a photo of a {phrase}"."""

    @abstractmethod
    def write(self, prior: TextPrior, folder: Path) -> None:
        """Write what was learned in diffusers' own format."""

    def save(self, prior: TextPrior, folder: Path) -> None:
        """Write into an empty folder what :func:`load_personal` reads: :meth:`write`'s files, and the object's name in
        prompts.
        """
        self.write(prior, folder)
        note = {"phrase": self.phrase, "method": type(self).__name__, "prior": prior.name}
        (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n")
        for path in folder.rglob("*"):
            if path.is_file():  # safetensors keeps files from other users, whatever the umask
                path.chmod((folder / NOTE).stat().st_mode)


class Finetuning(Personalization):
    """A personalization that changes networks: the object is called by a rare word and its class, as "sks toy"
    (DreamBooth).
    """

    def __init__(self, token: str, noun: str):
        super().__init__()
        if not token.split() or not noun.split():
            raise UserError(
                "model.method needs a token, a rare word for the object as sks, and a noun, its class as toy; one is"
                " empty"
            )
        self.token, self.noun = token, noun

    @property
    def phrase(self) -> str:
        """The rare word, then the class."""
        return f"{self.token} {self.noun}"


def load_personal(prior: TextPrior, learned: Path | None) -> str | None:
    """Put what a personalization learned into a prior, in place, and return what names the object in prompts ("a photo
    of a {phrase}").

    learned: the folder of a run of Personalize, or any that holds diffusers' ``learned_embeds.safetensors``,
    ``pytorch_lora_weights.safetensors`` (fused into the weights) or a ``pipeline`` folder; None leaves the prior as it
    is. The phrase is None where the folder does not say it. The prior is a plain one afterwards, and frozen: it can be
    saved, and costs nothing more. Raises UserError for a folder that holds none of these or several, or what does not
    fit the prior."""
    if learned is None:
        return None
    kinds = {EMBEDDINGS: load_embeddings, LORA: load_lora, PIPELINE: load_pipeline}
    found = [name for name in kinds if (learned / name).exists()]
    if len(found) != 1:
        there = " and ".join(found) or "nothing that was learned"
        raise UserError(f"{learned}: holds {there}; give the folder of one personalization, with {', '.join(kinds)}")
    try:
        phrase = kinds[found[0]](prior, learned)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = f"{learned / found[0]} does not fit the prior {prior.name} ({one_line(str(error))[:200]})"
        raise UserError(one_line(reason, "give that which it was trained on")) from error
    prior.requires_grad_(False)
    noted = noted_phrase(learned)
    if noted and phrase and phrase not in noted:
        raise UserError(
            f"{learned / NOTE} says {noted!r}, but {found[0]} holds {phrase!r}; give a folder as one run has left it"
        )
    return noted or phrase


def noted_phrase(folder: Path) -> str | None:
    """What the folder's note says of the object's name; None without a note."""
    if not (folder / NOTE).exists():
        return None
    return read_json(folder / NOTE, Note, "delete it, and name the object in the prompt").phrase


@torch.no_grad()
def load_embeddings(prior: TextPrior, folder: Path) -> str:
    """New words; returns them."""
    found, width = read_tensors(folder / EMBEDDINGS), prior.text_encoder.config.hidden_size
    (token, vectors), *others = (found or {"": torch.empty(0)}).items()
    if others or token.split() != [token] or not token.isprintable() or len(token) > 200:
        raise ValueError("needs the vectors of one word")
    fits = vectors.is_floating_point() and vectors.ndim in (1, 2) and vectors.shape[-1] == width
    if not fits or not 0 < vectors.numel() <= width * MOST:
        raise ValueError(f"vectors of shape {tuple(vectors.shape)}, the prior's have {width} numbers each")
    vectors = vectors.reshape(-1, width)
    with safe_open(folder / EMBEDDINGS, "pt") as file:
        learned_with = (file.metadata() or {}).get(TEXT_ENCODER)
    if learned_with not in (None, fingerprint(prior.text_encoder.get_input_embeddings().weight)):
        raise ValueError("it was learned with another text encoder, whose vectors mean something else")
    words = words_of(token, len(vectors))
    add_words(prior, words.split())
    # without mean_resizing, which draws the new rows from a Gaussian with the known ones' covariance: they are known
    # here
    table = prior.text_encoder.resize_token_embeddings(len(prior.tokenizer), mean_resizing=False)
    table.weight[prior.tokenizer.convert_tokens_to_ids(words.split())] = vectors.to(table.weight)
    return words


def load_lora(prior: TextPrior, folder: Path) -> None:
    """Low-rank changes, fused into the weights."""
    pipeline = prior.pipeline()
    changes = read_lora(folder / LORA)
    refuse_partial_changes(prior, changes)
    pipeline.load_lora_weights(changes)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


def refuse_partial_changes(prior: TextPrior, changes: dict[str, Tensor]) -> None:
    """Raise ValueError unless every layer that diffusers' names name is in the prior, and both factors of its change
    are there.

    The libraries would draw an absent one at random. Files that name all layers in other ways are theirs to judge.
    """
    found = {name: CHANGE.fullmatch(name) for name in changes if not name.endswith(".alpha")}
    if not any(found.values()):
        return
    modules = {name.replace(".text_model.", "."): module for name, module in prior.named_modules()}
    layers: dict[str, dict[str, Tensor]] = {}
    for name, match in found.items():
        layer = match[1].replace(".text_model.", ".") if match else ""
        if match is None or layer not in modules or not isinstance(getattr(modules[layer], "weight", None), Tensor):
            raise ValueError(f"it changes {name}, which is no layer of the prior")
        layers.setdefault(layer, {})["down" if match[2] in (".down", "_A") else "up"] = changes[name]
    for layer, factors in layers.items():
        shapes = [tuple(factors[name].shape) for name in ("up", "down") if name in factors]
        rank = shapes[-1][0] if shapes[-1] else 0
        out, into = modules[layer].weight.shape[:2]
        if shapes != [(out, rank), (rank, into)] or not rank:
            raise ValueError(f"the factors of {layer}'s change have shapes {shapes}")


def load_pipeline(prior: TextPrior, folder: Path) -> None:
    """All networks of another prior."""
    tuned, device = TextPrior.load(folder / PIPELINE), prior.unet.device
    for name in ("tokenizer", "text_encoder", "vae", "unet"):
        part = getattr(tuned, name)
        setattr(prior, name, part.to(device) if isinstance(part, nn.Module) else part)
    prior.schedule = tuned.schedule


def add_words(prior: TextPrior, words: list[str]) -> None:
    """New tokens for the tokenizer; the text encoder has no vectors for them yet. Raises UserError for one that it
    knows.
    """
    for word in words:
        if len(prior.encoded(word)) == 1:
            raise UserError(f"the tokenizer of {prior.name} already knows {word!r}: invent another word, as <e>")
    prior.tokenizer.add_tokens(words)


def fingerprint(known: Tensor) -> str:
    """What tells a text encoder from another, by the vectors of its known words (count, width); the same in half and in
    full precision.
    """
    return hashlib.sha256(known.detach().half().cpu().numpy().tobytes()).hexdigest()


def words_of(token: str, count: int) -> str:
    """How diffusers writes a token of several vectors in a prompt: "<e> <e>_1 <e>_2"."""
    return " ".join([token, *(f"{token}_{number}" for number in range(1, count))])
