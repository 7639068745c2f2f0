"""Image -> light field (LFN, arXiv 2106.02634), the form with an encoder: a convolutional network gives an object's
code, a hypernetwork makes of it the weights of the object's own small network.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vcgen.encoders.base import Encoder
from vcgen.fields.light_field import LightField
from vcgen.schema import GROUPS, AtLeastOne, Length
from vcgen.types import Views

#: Cells per side of the feature map that the code is read from.
CELLS = 4


class LightFieldEncoder(Encoder):
    """Light Field Networks (LFN, arXiv 2106.02634), with an encoder: one input view -> :class:`LightField`.

    Differs from the paper in what is said to be ours. Its objects have canonical poses, and a code each that is
    optimized.

    Args:
        code: Numbers that describe an object (published: 256).
        channels: Of the encoder's convolutions of stride 2 (ours; published: ResNet-18).
        hidden: Units of the hypernetwork's layers, of which there are two (published: 256).
        shared: One such pair of layers for all weights of the light field (ours); false: a pair for each matrix and
            each bias, as published.
        width: Units of the light field's layers (published: 256).
        layers: Its square layers, beside the first and the last (published: 6).
        frame: Axes along which rays are described: "camera", the input view's (ours: objects need no canonical pose),
            or "world", as published.
        distance: From the camera to the object's center along the optical axis, in world units; for "world" the center
            is the origin.
        radius: The object fits this sphere around that point, in world units.
    """

    most_views = 1
    penalties = ("latent",)

    def __init__(
        self,
        code: AtLeastOne = 256,
        channels: Sequence[AtLeastOne] = (64, 128, 256, 512),
        hidden: AtLeastOne = 256,
        shared: bool = False,
        width: AtLeastOne = 256,
        layers: AtLeastOne = 6,
        frame: Literal["camera", "world"] = "camera",
        distance: Length = 1.3,
        radius: Length = 0.51,
    ):
        super().__init__()
        self.frame, self.distance, self.radius = frame, distance, radius
        self.convolutions = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.GroupNorm(math.gcd(GROUPS, o), o), nn.SiLU())
                for i, o in pairwise((3, *channels))
            ),
            nn.AdaptiveAvgPool2d(CELLS),
            nn.Flatten(),
        )
        self.to_code = nn.Linear(channels[-1] * CELLS**2, code)
        self.hypernetwork = Hypernetwork(code, hidden, [6, *[width] * (layers + 1), 4], shared)

    def forward(self, context: Views) -> LightField:
        """context: (batch, 1) views -> light fields of ``batch`` scenes."""
        view = context.only("LightFieldEncoder")
        code = self.to_code(self.convolutions(view.on(1.0) * 2 - 1))
        camera, c2w = view.cameras, view.cameras.c2w
        if self.frame == "camera":
            axes, center = c2w[:, :3, :3], camera.centers + self.distance * c2w[:, :3, 2]
        else:
            axes = torch.eye(3, device=c2w.device, dtype=c2w.dtype).expand(len(c2w), 3, 3)
            center = torch.zeros_like(camera.centers)
        radius = torch.full_like(camera.near, self.radius)
        return LightField(center, radius, axes, self.hypernetwork(code), code)


class Hypernetwork(nn.Module):
    """A code (batch, code) -> matrices (batch, out, in) and biases (batch, out) of a network with these widths.

    At first the weights are those of a network that PyTorch initializes, and a tenth of what the code adds (published:
    a last layer a tenth as large)."""

    def __init__(self, code: int, hidden: int, widths: Sequence[int], shared: bool):
        super().__init__()
        self.shapes: list[tuple[int, ...]] = [shape for i, o in pairwise(widths) for shape in ((o, i), (o,))]
        sizes = [math.prod(shape) for shape in self.shapes]
        self.trunks = nn.ModuleList(_trunk(code, hidden) for _ in range(1 if shared else len(sizes)))
        self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)
        with torch.no_grad():
            for number, head in enumerate(cast(Sequence[nn.Linear], self.heads)):
                nn.init.kaiming_normal_(head.weight).mul_(0.1 / math.sqrt(self._inputs(number)))
                nn.init.uniform_(head.bias, -1, 1).mul_(1 / math.sqrt(self._inputs(number)))

    def forward(self, code: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per layer its matrix and its bias."""
        made = [trunk(code) for trunk in self.trunks]
        each = made if len(made) > 1 else made * len(self.heads)
        flat = [head(x) for head, x in zip(self.heads, each, strict=True)]
        tensors = [x.unflatten(1, shape) for x, shape in zip(flat, self.shapes, strict=True)]
        return list(zip(tensors[::2], tensors[1::2], strict=True))

    def _inputs(self, number: int) -> int:
        return self.shapes[number - number % 2][1]


def _trunk(code: int, hidden: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (code, hidden):
        layers += [nn.Linear(inputs, hidden), nn.LayerNorm(hidden, elementwise_affine=False), nn.ReLU()]
    return nn.Sequential(*layers)
