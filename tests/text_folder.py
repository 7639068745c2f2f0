"""A tiny text prior and a tiny CLIP model with random weights, in diffusers' and transformers' layouts."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from vcgen.diffusion.text_networks import TextPriorOptions, new_text_prior
from vcgen.diffusion.text_prior import TextPrior

CAPTIONS = [
    f"a photo of a {color} {thing}, {view} view"
    for color in ("red", "blue", "green")
    for thing in ("car", "chair", "fish")
    for view in ("front", "side", "back", "overhead")
]
TINY = TextPriorOptions(
    size=16, autoencoder=(16, 16), channels=(16, 32), vocabulary=600, length=24, width=32, depth=1, heads=2
)


def tiny_prior(seed: int = 0, **changes) -> TextPrior:
    """About 0.2 million parameters; images of 16 pixels, latents of 4 x 8 x 8."""
    torch.manual_seed(seed)
    return new_text_prior(CAPTIONS, TextPriorOptions(**{**vars(TINY), **changes})).eval()


def tiny_folder(path: Path, seed: int = 0) -> Path:
    """Saved as a StableDiffusionPipeline."""
    tiny_prior(seed).save(path)
    return path


def tiny_clip(folder: Path) -> Path:
    """A CLIP model whose random weights are large enough for words to differ."""
    tokenizer = tiny_prior().tokenizer
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    marks = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, **sizes, **marks}
    torch.manual_seed(1)
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config={"image_size": 24, "patch_size": 8, **sizes}, projection_dim=8)
    )
    for weight in (weight for name, weight in model.named_parameters() if weight.ndim > 1):
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
