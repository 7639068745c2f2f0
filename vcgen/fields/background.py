"""What lies behind an object, as a tiny network, or texture, of the viewing direction."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Background(nn.Module):
    """Unit directions -> color: ``frequencies`` sines and cosines of each coordinate, two layers of ``hidden``,
    sigmoid.

    Deliberately small, as in DreamFusion (arXiv 2209.14988, section 3.2): a larger one would paint what the prior asks
    for, and the object would stay empty."""

    def __init__(self, frequencies: int = 6, hidden: int = 64):
        super().__init__()
        if frequencies < 1 or hidden < 1:
            raise ValueError(f"need frequencies and hidden >= 1; got {frequencies} and {hidden}")
        self.octaves: Tensor
        self.register_buffer("octaves", math.pi * 2.0 ** torch.arange(frequencies), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(6 * frequencies, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, 3),
        )

    def forward(self, directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """(..., 3) unit vectors -> (..., 3) color in (0, 1)."""
        angles = (directions[..., None] * self.octaves).flatten(-2)
        return self.layers(torch.cat([angles.sin(), angles.cos()], -1)).sigmoid()


class BackgroundTexture(nn.Module):
    """Unit directions -> features: a texture of ``size`` x ``size`` texels over azimuth and elevation, linear in
    between.

    For latents of an image model, as in score Jacobian chaining (arXiv 2212.00774), 4 x 4: too coarse for an object.
    """

    def __init__(self, channels: int = 4, size: int = 4):
        super().__init__()
        self.texture = nn.Parameter(torch.randn(1, channels, size, size))

    def forward(self, directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n channels"]:
        """(..., 3) unit vectors -> (..., channels)."""
        size = self.texture.shape[-1]
        azimuth = torch.atan2(directions[..., 1], directions[..., 0]) / math.pi
        elevation = directions[..., 2].clamp(-1, 1).asin() * 2 / math.pi
        round_about = F.pad(self.texture, (1, 1, 0, 0), mode="circular")
        places = torch.stack([azimuth * size / (size + 2), elevation], -1).reshape(1, 1, -1, 2)
        found = F.grid_sample(round_about, places, padding_mode="border", align_corners=False)
        return found[0, :, 0].T.unflatten(0, directions.shape[:-1])
