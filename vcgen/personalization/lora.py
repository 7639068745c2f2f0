"""Low-rank adaptation (arXiv 2106.09685) of a text prior, through peft: DreamBooth in some megabytes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from vcgen.diffusion.text_prior import NEEDS_TEXT, TextPrior
from vcgen.errors import UserError
from vcgen.personalization.base import LORA, Finetuning
from vcgen.schema import AtLeastOne, Count

#: The layers that are adapted: attention's, of the U-Net and of CLIP's text encoder.
UNET_LAYERS, TEXT_LAYERS = ("to_q", "to_k", "to_v", "to_out.0"), ("q_proj", "k_proj", "v_proj", "out_proj")


class LoRA(Finetuning):
    """Low-rank adaptation (arXiv 2106.09685): each attention layer learns a change of low rank (alpha = rank).

    Args:
        token: Rare word that the object is called by: "TOKEN NOUN".
        noun: Class of the object.
        rank: Of the changes, at least 1.
        text_encoder: Adapt the text encoder, too.
        seed: Of the random factor that changes start from; the other factor is zero, so that the prior starts
            unchanged.
    """

    def __init__(
        self,
        token: str = "sks",
        noun: str = "object",
        rank: AtLeastOne = 4,
        text_encoder: bool = False,
        seed: Count = 0,
    ):
        super().__init__(token, noun)
        if rank < 1:
            raise UserError(f"model.method.rank must be at least 1, not {rank}")
        self.rank, self.text_encoder, self.seed = rank, text_encoder, seed

    def attach(self, prior: TextPrior, images: Tensor, download: bool = False) -> None:
        """See :meth:`Personalization.attach`."""
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise UserError(NEEDS_TEXT) from error
        options = {"r": self.rank, "lora_alpha": self.rank, "init_lora_weights": "gaussian"}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            prior.unet.add_adapter(LoraConfig(target_modules=list(UNET_LAYERS), **options))
            if self.text_encoder:
                prior.text_encoder.add_adapter(LoraConfig(target_modules=list(TEXT_LAYERS), **options))
        # Parameters may not have dots in their names.
        named = [
            (f"{part}.{name}", p)
            for part in ("unet", "text_encoder")
            for name, p in getattr(prior, part).named_parameters()
        ]
        self.changes = nn.ParameterDict({name.replace(".", "/"): p for name, p in named if p.requires_grad})

    def write(self, prior: TextPrior, folder: Path) -> None:
        """``pytorch_lora_weights.safetensors``, for diffusers' ``load_lora_weights``."""
        from diffusers import StableDiffusionPipeline
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        parts = {"unet_lora_layers": prior.unet} | (
            {"text_encoder_lora_layers": prior.text_encoder} if self.text_encoder else {}
        )
        # save_embedding_layers: else peft asks the hub whether the vocabulary has grown
        found = {name: get_peft_model_state_dict(part, save_embedding_layers=False) for name, part in parts.items()}
        layers = {name: convert_state_dict_to_diffusers(weights) for name, weights in found.items()}
        StableDiffusionPipeline.save_lora_weights(folder, **layers, weight_name=LORA, safe_serialization=True)
