"""A grid of voxels, and the field of one scene that stands on it: of colors, or of an image model's latents."""

import copy
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.errors import UserError
from vcgen.types import FieldWeights

#: What the features of a voxel are: the logits of a color, a color that is clamped to [0, 1], or four numbers of any
#: size, a latent of an image model.
Colors = Literal["sigmoid", "clamp", "latent"]


class Voxels(nn.Module):
    """Density and features at the centers of ``size``^3 voxels, which fill the unit cube.

    Interpolated linearly; as in score Jacobian chaining (arXiv 2212.00774) density begins at 0, features at random, and
    the density's scale is learned, too.
    """

    def __init__(self, size: int, channels: int):
        super().__init__()
        self.size = size
        self.density = nn.Parameter(torch.zeros(1, size, size, size))
        self.features = nn.Parameter(torch.randn(channels, size, size, size))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
        """Features at (n, 3) in [0, 1]; what lies outside has the rim's."""
        return self.at(points, self.features)

    def density_at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Density, scaled, at (n, 3) in [0, 1]."""
        return self.at(points, self.density)[:, 0] * self.log_scale.exp()

    def at(self, points: Float[Tensor, "n 3"], table: Float[Tensor, "c x y z"]) -> Float[Tensor, "n c"]:
        """Values of a table at points, linear between the voxels' centers."""
        places = (2 * points.flip(-1) - 1).float()[None, :, None, None]  # grid_sample has x along the last axis
        return F.grid_sample(table[None], places, padding_mode="border", align_corners=False)[0, :, :, 0, 0].T


@dataclass
class VoxelField:
    """One scene, given to a batch; satisfies :class:`vcgen.types.Finetunable`.

    voxels: span the cube of side 2 * half_size around the center, in world units. center: (batch, 3); radius: (batch,),
    of the sphere that is rendered. bias: the density is softplus(d + bias), plus inside the brackets ``blob``, (height,
    width), as in :class:`vcgen.fields.hashgrid.HashGridField`. colors: see :data:`Colors`.
    """

    voxels: Voxels
    center: Float[Tensor, "batch 3"]
    radius: Float[Tensor, " batch"]
    half_size: float
    bias: float
    blob: tuple[float, float]
    colors: Colors
    proposal: None = None

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n channels"]]:
        """See :class:`vcgen.types.Field`; nothing depends on the direction."""
        found = self.voxels(self.places(points)).unflatten(0, points.shape[:-1])
        return self.density(points), self.colored(found)

    def colored(self, features: Float[Tensor, "batch n channels"]) -> Float[Tensor, "batch n channels"]:
        """What features mean."""
        if self.colors == "latent":
            return features
        return features.sigmoid() if self.colors == "sigmoid" else features.clamp(0, 1)

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """(batch, n, 3) -> (batch, n)."""
        found = self.voxels.density_at(self.places(points)).unflatten(0, points.shape[:-1])
        height, width = self.blob
        distance = (points - self.center[:, None]).square().sum(-1)
        return F.softplus(found + self.bias + height * (-distance / (2 * width**2)).exp())

    def places(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "points 3"]:
        """Points as places in the voxels' unit cube."""
        return ((points - self.center[:, None]) / (2 * self.half_size) + 0.5).flatten(0, 1)

    def weights(self) -> FieldWeights:
        """The voxels. Raises UserError for a batch, as a hash grid's field does."""
        if len(self.center) > 1:
            raise UserError("voxels hold one scene: distill one image at a time")
        return FieldWeights(copy.deepcopy(self.voxels), nn.Identity())

    def with_weights(self, weights: FieldWeights) -> "VoxelField":
        """See :class:`vcgen.types.Finetunable`."""
        return replace(self, voxels=cast(Voxels, weights.scene))

    def __getitem__(self, scenes: slice) -> "VoxelField":
        return replace(self, center=self.center[scenes], radius=self.radius[scenes])
