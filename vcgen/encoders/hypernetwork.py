"""From a code to the weights of a scene's own network (hypernetworks: Ha, Dai, Le, ICLR 2017, arXiv 1609.09106)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from vcgen.types import Scene


class Place(NamedTuple):
    """Where objects lie in the world: center (batch, 3) and radius (batch,) of their spheres, and axes (batch, 3, 3),
    whose columns are those along which they are described."""

    center: Tensor
    radius: Tensor
    axes: Tensor


class CodeDecoder(nn.Module, ABC):
    """What turns codes into scenes: the part that an encoder of images and an auto-decoder share.

    code: numbers that describe an object. penalties: as of :class:`vcgen.encoders.base.Encoder`.
    """

    code: int
    penalties: tuple[str, ...] = ("latent",)

    @abstractmethod
    def forward(self, code: Tensor, place: Place) -> Scene:
        """Codes (batch, code) and where the objects lie -> ``batch`` scenes."""


class Hypernetwork(nn.Module):
    """A code (batch, code) -> matrices (batch, out, in) and biases (batch, out) of a network with these widths.

    together: how many of these tensors, in their order, share two layers of ``hidden`` units, after which each has a
    linear layer of its own; None: all.

    At first the weights are those of a network that PyTorch initializes, and a tenth of what the code adds (published:
    a last layer a tenth as large)."""

    def __init__(self, code: int, hidden: int, widths: Sequence[int], together: int | None):
        super().__init__()
        self.shapes: list[tuple[int, ...]] = [shape for i, o in pairwise(widths) for shape in ((o, i), (o,))]
        sizes = [math.prod(shape) for shape in self.shapes]
        self.together = together or len(sizes)
        self.trunks = nn.ModuleList(normalized_mlp(code, [hidden] * 2) for _ in range(0, len(sizes), self.together))
        self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)
        with torch.no_grad():
            for number, head in enumerate(cast(Sequence[nn.Linear], self.heads)):
                nn.init.kaiming_normal_(head.weight).mul_(0.1 / math.sqrt(self._inputs(number)))
                nn.init.uniform_(head.bias, -1, 1).mul_(1 / math.sqrt(self._inputs(number)))

    def forward(self, code: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per layer its matrix and its bias."""
        made = [trunk(code) for trunk in self.trunks]
        flat = [head(made[number // self.together]) for number, head in enumerate(self.heads)]
        tensors = [x.unflatten(1, shape) for x, shape in zip(flat, self.shapes, strict=True)]
        return list(zip(tensors[::2], tensors[1::2], strict=True))

    def _inputs(self, number: int) -> int:
        return self.shapes[number - number % 2][1]


def normalized_mlp(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths, each with normalization and ReLU."""
    layers: list[nn.Module] = []
    for i, o in pairwise((inputs, *widths)):
        layers += [nn.Linear(i, o), nn.LayerNorm(o), nn.ReLU()]
    return nn.Sequential(*layers)
