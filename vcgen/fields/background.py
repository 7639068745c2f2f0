"""What lies behind an object, as a tiny network of the viewing direction."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
