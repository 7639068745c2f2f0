"""Scenes that a code describes: each has a small network of its own, whose weights were made from the code."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vcgen.cameras import rotate


@dataclass(frozen=True)
class CodedScene:
    """What such scenes share.

    center: (batch, 3), radius: (batch,) of the sphere that holds the object, in the world. axes: (batch, 3, 3), whose
        columns are the axes along which rays are described, about the center. code: (batch, channels). weights: per
        layer of the scene's network, made from the code, a matrix (batch, out, in) and a bias (batch, out).
    """

    center: Tensor
    radius: Tensor
    axes: Tensor
    code: Tensor
    weights: Sequence[tuple[Tensor, Tensor]]

    def local(
        self, origins: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n 3"]]:
        """Points and directions in the scene's axes, about its center."""
        turned = self.axes.to(origins.dtype).transpose(-1, -2)
        return rotate(origins - self.center[:, None], turned), rotate(directions, turned)

    @property
    def size(self) -> Float[Tensor, ""]:
        """The penalty "latent": the mean square of the codes."""
        return self.code.float().square().mean()


def linear(x: Float[Tensor, "batch n i"], layer: tuple[Tensor, Tensor]) -> Float[Tensor, "batch n o"]:
    """One layer of each scene's network."""
    matrix, bias = (part.to(x.dtype) for part in layer)
    return torch.baddbmm(bias[:, None], x, matrix.transpose(1, 2))


def normalized_layers(
    x: Float[Tensor, "batch n i"], layers: Sequence[tuple[Tensor, Tensor]]
) -> Float[Tensor, "batch n o"]:
    """Several, each followed by normalization without parameters and ReLU (SRN and LFN)."""
    for layer in layers:
        x = linear(x, layer)
        x = F.layer_norm(x, x.shape[-1:]).relu()
    return x


def premultiplied(x: Float[Tensor, "*batch 4"]) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
    """Premultiplied color and opacity, in [0, 1], of a network's four outputs.

    Published: three outputs, an opaque image. The opacity is ours, so that objects are learned from images with alpha,
    over any background."""
    x = x.sigmoid()
    return x[..., :3] * x[..., 3:], x[..., 3]
