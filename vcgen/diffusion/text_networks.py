"""A new text prior from diffusers' and transformers' parts, small enough to be trained without a cluster."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers import AutoencoderKL, UNet2DConditionModel

from vcgen.diffusion.schedule import Prediction, noise_schedule
from vcgen.diffusion.text_prior import NEEDS_TEXT, TextPrior
from vcgen.errors import UserError
from vcgen.schema import AtLeastOne, Side, check_levels

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class TextPriorOptions:
    """Sizes of a new text prior; the defaults have 17 million parameters.

    Args:
        size: Image side in pixels.
        autoencoder: Widths of the autoencoder, finest level first; each level after the first halves the side.
        latent_channels: Channels of the autoencoder's latents.
        channels: Widths of the U-Net, finest first; the first level has no attention.
        layers: Residual blocks per level, of both networks.
        prediction: What the U-Net predicts: the noise, or v (arXiv 2202.00512).
        vocabulary: Entries of the tokenizer, at most.
        length: Tokens of a prompt; longer prompts are refused.
        width: Of the text encoder.
        depth: Layers of the text encoder.
        heads: Attention heads of the text encoder; they divide ``width``.
    """

    size: Side = 64
    autoencoder: Sequence[AtLeastOne] = (32, 64, 128)
    latent_channels: AtLeastOne = 4
    channels: Sequence[AtLeastOne] = (96, 160, 192)
    layers: AtLeastOne = 1
    prediction: Prediction = "v_prediction"
    vocabulary: AtLeastOne = 2048
    length: AtLeastOne = 24
    width: AtLeastOne = 192
    depth: AtLeastOne = 3
    heads: AtLeastOne = 6

    def __post_init__(self) -> None:
        if not self.autoencoder or not self.channels:
            raise ValueError("autoencoder and channels need the width of at least one level each")
        check_levels("size", self.size, 1, [*self.autoencoder[1:], *self.channels], None)
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads, {self.heads}")


def new_text_prior(captions: Iterable[str], options: TextPriorOptions) -> TextPrior:
    """A text prior of random weights, with a tokenizer learned from ``captions``.

    Raises UserError for captions that would not be read whole, and where the extra is not installed.
    """
    captions = list(captions)
    tokenizer = new_tokenizer(captions, options.vocabulary, options.length)
    if problem := too_long(captions, tokenizer):
        found, tokens = problem
        raise UserError(f"{found}, model.sizes.length is {options.length}: set it to {tokens}, or use shorter names")
    text_encoder = new_text_encoder(tokenizer, options)
    levels = len(options.autoencoder)
    vae = AutoencoderKL(
        block_out_channels=tuple(options.autoencoder),
        layers_per_block=options.layers,
        latent_channels=options.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=16,
        sample_size=options.size,
        scaling_factor=1.0,
    )
    attending = len(options.channels) - 1
    unet = UNet2DConditionModel(
        sample_size=options.size // 2 ** (levels - 1),
        in_channels=options.latent_channels,
        out_channels=options.latent_channels,
        block_out_channels=tuple(options.channels),
        layers_per_block=options.layers,
        cross_attention_dim=options.width,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * attending),
        up_block_types=(*("CrossAttnUpBlock2D",) * attending, "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=max(1, max(options.channels) // 32),
        resnet_time_scale_shift="scale_shift",
    )
    schedule = noise_schedule(options.prediction)
    schedule.register_to_config(steps_offset=1)  # as Stable Diffusion's; pipelines warn without
    return TextPrior(tokenizer, text_encoder, vae, unet, schedule, "new")


def known_text_prior(folder: Path, captions: Iterable[str]) -> TextPrior:
    """The one in the folder, to be trained on with ``captions``.

    Raises UserError for captions that would not be read whole, and for a folder that cannot be read.
    """
    prior = TextPrior.load(folder)
    if problem := too_long(list(captions), prior.tokenizer):
        raise UserError(f"{problem[0]}, the text prior {folder} takes {prior.length}: use shorter names")
    return prior.requires_grad_(True)


def too_long(captions: list[str], tokenizer: "CLIPTokenizer") -> tuple[str, int] | None:
    """Which caption has more tokens than the tokenizer takes, in words, and how many; None where all fit."""
    longest = max(tokenizer(captions, verbose=False).input_ids, key=len)
    if len(longest) <= tokenizer.model_max_length:
        return None
    shown = tokenizer.decode(longest[1:-1])[:100]
    return f"the caption {shown!r} has {len(longest)} tokens with its marks of beginning and end", len(longest)


def new_text_encoder(tokenizer: "CLIPTokenizer", options: TextPriorOptions) -> "CLIPTextModel":
    """A text encoder of random weights for a tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    numbers = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.width,
            intermediate_size=4 * options.width,
            num_hidden_layers=options.depth,
            num_attention_heads=options.heads,
            max_position_embeddings=options.length,
            projection_dim=options.width,
            **numbers,
        )
    )


def new_tokenizer(captions: Iterable[str], vocabulary: int, length: int) -> "CLIPTokenizer":
    """CLIP's byte-pair tokenizer with entries learned from the captions. Raises UserError without the extra."""
    try:
        from tokenizers.pre_tokenizers import ByteLevel
        from tokenizers.trainers import BpeTrainer
        from transformers import CLIPTokenizer
    except ImportError as error:
        raise UserError(NEEDS_TEXT) from error

    learner = CLIPTokenizer().backend_tokenizer
    letters = sorted(ByteLevel.alphabet())
    # Letters that end a word stand among the first entries: no text is then unknown, and the learner, which would
    # number them in the order of a hash table, gives the same entries every time.
    first = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    trainer = BpeTrainer(vocab_size=vocabulary, special_tokens=first, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(sorted(set(captions)), trainer)
    learned = json.loads(learner.to_str())["model"]
    return CLIPTokenizer(
        vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]], model_max_length=length
    )
