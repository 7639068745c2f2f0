"""A tiny text prior with random weights, in diffusers' layout."""

from pathlib import Path

import torch

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
