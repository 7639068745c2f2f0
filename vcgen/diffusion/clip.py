"""CLIP (arXiv 2103.00020): images and texts as unit vectors whose products say how well they fit."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.diffusion.library_folder import CLIP, checked_folder
from vcgen.diffusion.text_prior import LOCAL, NEEDS_TEXT, WEIGHTS, require_whole
from vcgen.errors import UserError
from vcgen.io import read_json, write_bytes
from vcgen.schema import Positive
from vcgen.tensors import no_more_parameters_than
from vcgen.terminal import one_line

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

#: Tensors of one model; the largest published have below a thousand.
MOST_PARAMETERS = 20_000
PREPROCESSOR = "preprocessor_config.json"
Channels = Annotated[tuple[float, ...], Meta(min_length=3, max_length=3)]
Deviations = Annotated[tuple[Positive, ...], Meta(min_length=3, max_length=3)]


class Normalization(Struct, frozen=True):
    """What is read of a folder's preprocessor_config.json: mean and standard deviation of the channels of images
    in [0, 1]. The defaults are those of all of OpenAI's models.
    """

    image_mean: Channels = (0.48145466, 0.4578275, 0.40821073)
    image_std: Deviations = (0.26862954, 0.26130258, 0.27577711)


OPENAI = Normalization()


class Clip(nn.Module):
    """A CLIP model with its tokenizer, in float32.

    model, tokenizer: transformers'. normalization: of the images. name: where it came from, for messages. Weights are
    trainable or not as their owner sets them; those of :meth:`from_folder` are not.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: "CLIPModel", tokenizer: "CLIPTokenizer", normalization: Normalization = OPENAI, name: str = "new"
    ):
        super().__init__()
        self.model, self.tokenizer, self.normalization, self.name = model, tokenizer, normalization, name
        self.register_buffer("mean", torch.tensor(normalization.image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(normalization.image_std)[:, None, None], persistent=False)

    @staticmethod
    def from_folder(folder: str | Path, download: bool = False) -> "Clip":
        """Load from a folder of transformers' CLIPModel with its tokenizer and, where images are normalized in another
        way than OpenAI's, preprocessor_config.json; else from the hub's cache, and from the hub itself only with
        ``download``.

        Only JSON and safetensors are read, see :mod:`vcgen.diffusion.library_folder`; weights in half precision become
        float32. Raises UserError where nothing is found, for what is no CLIP model with both encoders and a tokenizer
        that fits, and where the extra is missing."""
        try:
            from transformers import CLIPModel, CLIPTokenizer
        except ImportError as error:
            raise UserError(NEEDS_TEXT) from error
        try:
            place = checked_folder(folder, CLIP, download)
            if not (place / "config.json").is_file():
                raise ValueError("it has no config.json")
            kind = read_json(place / "config.json", dict[str, Any]).get("model_type")
            if kind != "clip":  # transformers would go on, and draw the weights that it misses at random
                raise ValueError(f"it is of type {kind}; a text encoder alone sees no images")
            with no_more_parameters_than(MOST_PARAMETERS):
                model, notes = CLIPModel.from_pretrained(place, output_loading_info=True, **WEIGHTS)
            require_whole(model, notes)
            tokenizer = CLIPTokenizer.from_pretrained(place, **LOCAL)
            _require_fit(model, tokenizer)
            given = place / PREPROCESSOR
            normalization = read_json(given, Normalization) if given.exists() else OPENAI
            return Clip(model, tokenizer, normalization, str(folder)).float().eval().requires_grad_(False)
        except UserError:
            raise
        except Exception as error:  # files that others' code reads, which can fail in any way
            reason = one_line(str(error))[:200]
            if Path(folder).exists():
                raise UserError(f"{folder} is no folder of a CLIP model and its tokenizer ({reason})") from error
            advice = "to fetch a hub name, as openai/clip-vit-large-patch14, allow it with download: true"
            raise UserError(f"{folder} is neither a folder here nor in the hub's cache ({reason}); {advice}") from error

    def save(self, folder: Path, half: bool = False) -> None:
        """Write the folder that :meth:`from_folder` and transformers' CLIPModel and CLIPProcessor open; in half
        precision if so wished.
        """
        model = copy.deepcopy(self.model).half() if half else self.model
        model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        sides = {"height": self.size, "width": self.size}
        steps = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True)
        processor = {"image_processor_type": "CLIPImageProcessor", "resample": 3, **steps}
        shape = {"size": {"shortest_edge": self.size}, "crop_size": sides, "rescale_factor": 1 / 255}
        mean, std = self.normalization.image_mean, self.normalization.image_std
        content = {**processor, **shape, "image_mean": mean, "image_std": std}
        write_bytes(Path(folder) / PREPROCESSOR, (json.dumps(content, indent=1) + "\n").encode())
        # safetensors keeps files from other users, whatever the umask
        (Path(folder) / "model.safetensors").chmod((Path(folder) / "config.json").stat().st_mode)

    @property
    def size(self) -> int:
        """Side in pixels of the images that the network reads."""
        return self.model.config.vision_config.image_size

    @property
    def logit_scale(self) -> Tensor:
        """The factor () that makes logits of products of unit vectors."""
        return self.model.logit_scale.exp()

    def embed_images(self, images: Tensor) -> Tensor:
        """Images (n, height, width, 3) in [0, 1] -> unit vectors (n, d). Differentiable with respect to the images.

        Their central square is resized with antialiasing (bicubic), unless it has the network's size already."""
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"CLIP reads images (n, height, width, 3), not {tuple(images.shape)}")
        height, width = images.shape[1:3]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = images[:, top : top + side, left : left + side].movedim(-1, 1).float()
        if side != self.size:
            square = F.interpolate(square, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        pooled = self.model.vision_model(pixel_values=(square - self.mean) / self.std).pooler_output
        return F.normalize(self.model.visual_projection(pooled).float(), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit vectors (n, d). Raises UserError for one that is longer than the network reads."""
        read = self.tokenizer(list(texts), padding=True, return_tensors="pt", verbose=False)
        longest = self.model.config.text_config.max_position_embeddings
        if read.input_ids.shape[1] > longest:
            text = max(texts, key=lambda text: len(self.tokenizer(text, verbose=False).input_ids))
            found = f"{text[:80]!r} has {read.input_ids.shape[1]} tokens with its marks of beginning and end"
            raise UserError(f"the text {found}, of which the CLIP model {self.name} reads {longest}; use fewer words")
        tokens = {name: read[name].to(self.mean.device, non_blocking=True) for name in ("input_ids", "attention_mask")}
        pooled = self.model.text_model(**tokens).pooler_output
        return F.normalize(self.model.text_projection(pooled).float(), dim=-1)


def _require_fit(model: "CLIPModel", tokenizer: "CLIPTokenizer") -> None:
    """Raise ValueError unless every text of the tokenizer has the mark of its end where the network looks for it."""
    text = model.config.text_config
    if len(tokenizer) < 3:  # what transformers makes of absent files: the marks of beginning and end
        raise ValueError("its tokenizer's files are missing")
    if len(tokenizer) > text.vocab_size:
        raise ValueError(f"its tokenizer has {len(tokenizer)} entries, its text encoder {text.vocab_size}")
    # an end of 2, in the files of before 2023, stands for the largest number
    end = len(tokenizer) - 1 if text.eos_token_id == 2 else text.eos_token_id
    if tokenizer.eos_token_id != end:
        raise ValueError(f"its texts end with token {tokenizer.eos_token_id}, its text encoder expects {end}")
