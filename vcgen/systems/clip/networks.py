"""A new CLIP model around the tokenizer and text encoder of a text prior."""

from dataclasses import dataclass

from vcgen.diffusion.clip import Clip
from vcgen.diffusion.text_prior import TextPrior
from vcgen.schema import AtLeastOne, Side


@dataclass(frozen=True)
class ClipOptions:
    """Sizes of the image encoder, a vision transformer, and of the embedding; the defaults have 0.9 million parameters.

    Args:
        size: Image side in pixels.
        patch: Side of a patch in pixels; it divides ``size``.
        width: Of the vision transformer.
        depth: Its layers.
        heads: Its attention heads; they divide ``width``.
        embedding: Length of the unit vectors of images and texts.
    """

    size: Side = 64
    patch: AtLeastOne = 8
    width: AtLeastOne = 128
    depth: AtLeastOne = 4
    heads: AtLeastOne = 4
    embedding: AtLeastOne = 64

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is no multiple of patch, {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads, {self.heads}")


def new_clip(prior: TextPrior, options: ClipOptions) -> Clip:
    """A CLIP model with the weights of the prior's text encoder, and others at random."""
    from transformers import CLIPConfig, CLIPModel

    vision = {
        "image_size": options.size,
        "patch_size": options.patch,
        "hidden_size": options.width,
        "intermediate_size": 4 * options.width,
        "num_hidden_layers": options.depth,
        "num_attention_heads": options.heads,
    }
    text = {**prior.text_encoder.config.to_dict(), "dtype": "float32"}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=options.embedding))
    inner = getattr(prior.text_encoder, "text_model", prior.text_encoder)  # which older ones of transformers wrap
    model.text_model.load_state_dict(inner.state_dict())
    return Clip(model, prior.tokenizer)
