"""The networks of the view prior, built from diffusers' parts."""

import itertools
import math
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from vcgen.levels import GROUPS, HEAD


def view_unet(
    channels: Sequence[int],
    layers: int,
    attention: Sequence[bool],
    conditions: int,
    token_width: int | None,
    size: int,
    patch: int = 1,
) -> UNet2DModel | UNet2DConditionModel:
    """A U-Net (ADM's shape, arXiv 2105.05233) from 3 noisy channels and ``conditions`` others to 3, on cells of
    ``patch`` x ``patch`` pixels. With ``token_width`` the levels that attend also attend to tokens of that width."""
    kind = "Attn" if token_width is None else "CrossAttn"
    common = dict(
        sample_size=size // patch,
        in_channels=(3 + conditions) * patch**2,
        out_channels=3 * patch**2,
        layers_per_block=layers,
        block_out_channels=tuple(channels),
        down_block_types=tuple(f"{kind}DownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple(f"{kind}UpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        norm_num_groups=GROUPS,
        resnet_time_scale_shift="scale_shift",
    )
    if token_width is None:
        return UNet2DModel(**common, attention_head_dim=HEAD)
    # diffusers calls the number of heads attention_head_dim here (its issue 2011); equal counts keep heads 32 wide at
    # the widest level.
    return UNet2DConditionModel(
        **common, cross_attention_dim=token_width, attention_head_dim=max(1, max(channels) // HEAD)
    )


class ImageTokens(nn.Module):
    """An image (n, 3, H, W) in [-1, 1] -> (n, H/8 * W/8, width) features with their place, for cross-attention."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        widths = [3, width // 4, width // 2, width]
        self.layers = nn.Sequential(
            *(
                layer
                for i, o in itertools.pairwise(widths)
                for layer in (
                    nn.Conv2d(i, o, 3, stride=2, padding=1),
                    nn.SiLU(),
                    nn.Conv2d(o, o, 3, padding=1),
                    nn.SiLU(),
                )
            )
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        features = self.layers(image)
        place = sinusoids(features.shape[-2], features.shape[-1], self.width, features.device)
        return self.norm(features.flatten(2).mT + place)


def sinusoids(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Fixed position features (height * width, channels): sines and cosines of x and y at frequencies from 1 to the
    resolution's limit.
    """
    count = channels // 4
    frequencies = math.pi * torch.logspace(0, math.log2(max(height, width)), count, base=2, device=device)
    y, x = torch.meshgrid(
        (torch.arange(height, device=device) + 0.5) / height,
        (torch.arange(width, device=device) + 0.5) / width,
        indexing="ij",
    )
    angles = torch.cat([x.flatten()[:, None] * frequencies, y.flatten()[:, None] * frequencies], 1)
    return torch.cat([angles.sin(), angles.cos()], 1)
