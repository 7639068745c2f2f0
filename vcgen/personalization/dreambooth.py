"""DreamBooth (arXiv 2208.12242): the whole U-Net learns an object under a rare word."""

from pathlib import Path

from torch import Tensor

from vcgen.diffusion.text_prior import TextPrior
from vcgen.personalization.base import PIPELINE, Finetuning


class DreamBooth(Finetuning):
    """DreamBooth (arXiv 2208.12242): all weights of the U-Net are trained, on request the text encoder's too.

    Args:
        token: Rare word that the object is called by: "TOKEN NOUN".
        noun: Class of the object.
        text_encoder: Train the text encoder, too.
    """

    def __init__(self, token: str = "sks", noun: str = "object", text_encoder: bool = False):
        super().__init__(token, noun)
        self.names = ["unet", "text_encoder"] if text_encoder else ["unet"]

    def attach(self, prior: TextPrior, images: Tensor, download: bool = False) -> None:
        """See :meth:`Personalization.attach`."""
        for name in self.names:
            self.add_module(name, getattr(prior, name).requires_grad_(True))

    def write(self, prior: TextPrior, folder: Path) -> None:
        """``pipeline/``, a whole folder of diffusers' StableDiffusionPipeline."""
        prior.save(folder / PIPELINE)
