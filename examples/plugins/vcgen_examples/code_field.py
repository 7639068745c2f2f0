"""An encoder with its field: a code for the whole image, and a network that reads it at every point (as CodeNeRF)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from vcgen.encoders.base import Encoder
from vcgen.types import Views


@dataclass(frozen=True)
class CodeField:
    """Satisfies :class:`vcgen.types.Field`. code: (batch, width), one per scene."""

    code: Tensor
    network: nn.Module
    center: Tensor
    radius: Tensor
    proposal: None = None

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        angles = torch.cat([2.0**octave * torch.pi * points for octave in range(4)], -1)
        codes = self.code[:, None].expand(-1, points.shape[1], -1)
        output = self.network(torch.cat([angles.sin(), angles.cos(), codes], -1)).float()
        return nn.functional.softplus(output[..., 0] - 1), output[..., 1:].sigmoid()

    def density(self, points: Tensor) -> Tensor:
        return self(points, points)[0]


class CodeEncoder(Encoder):
    """One code per image, by strided convolutions and a mean.

    Args:
        width: Channels of the code and of the network's layers.
        radius: Of the sphere around the world's origin that holds the object, in world units.
    """

    most_views = 1

    def __init__(self, width: int = 64, radius: float = 0.7):
        super().__init__()
        self.radius = radius
        widths = (3, width // 4, width // 2, width)
        layers = [nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths)]
        self.image = nn.Sequential(*(part for layer in layers for part in (layer, nn.SiLU())))
        self.network = nn.Sequential(
            nn.Linear(24 + width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 4)
        )

    def forward(self, context: Views) -> CodeField:
        code = self.image(context.only("CodeEncoder").on(1.0) * 2 - 1).mean((-2, -1)).float()
        center = code.new_zeros(len(code), 3)
        return CodeField(code, self.network, center, center.new_full((len(code),), self.radius))
