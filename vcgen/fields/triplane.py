"""Triplane fields: three feature planes and a small MLP (EG3D, arXiv 2112.07945), in the input camera's frame
(NerfDiff, 2302.10109).
"""

import copy
import itertools
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.cameras import rotate
from vcgen.fields.lookup import channels_last, sample_planes
from vcgen.schema import AtLeastOne, Count, Finite, Positive
from vcgen.types import FieldWeights

Projection = Literal["orthographic", "perspective"]
Aggregation = Literal["sum", "concat"]


class TriplaneDecoder(nn.Module):
    """Plane features -> density and color, shared by all scenes: a small MLP.

    Args:
        channels: Features per plane.
        hidden: Width of the MLP.
        depth: Hidden layers.
        aggregate: The three planes' features are summed ("sum") or concatenated ("concat").
        density_bias: Added before the softplus.
        density_scale: Factor after it; with the bias it sets the initial density (per world unit), moderate on purpose:
            opaque fields get no gradient behind their surface, empty ones collapse to an all-background solution.
    """

    def __init__(
        self,
        channels: AtLeastOne = 32,
        hidden: AtLeastOne = 64,
        depth: Count = 1,
        aggregate: Aggregation = "sum",
        density_bias: Finite = -1.0,
        density_scale: Positive = 10.0,
    ):
        super().__init__()
        self.channels = channels
        widths = [channels * (3 if aggregate == "concat" else 1)] + [hidden] * depth
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.head = nn.Linear(widths[-1], 4)
        self.aggregate = aggregate
        self.density_bias, self.density_scale = density_bias, density_scale

    def check_channels(self, plane_channels: int) -> None:
        """Raises ValueError unless planes with so many channels are what it reads."""
        if plane_channels != self.channels:
            raise ValueError(
                f"plane_channels is {plane_channels}, decoder.channels {self.channels}; give the same number"
            )

    def forward(self, features: Float[Tensor, "*n width"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n channels"]]:
        """(..., width) features -> density (...) >= 0 per world unit, color (..., 3) in [0, 1], both float32."""
        for layer in self.hidden:
            features = F.relu(layer(features), inplace=True)
        out = self.head(features).float()
        density = self.density_scale * F.softplus(out[..., 0] + self.density_bias)
        # Widened sigmoid (mip-NeRF): pure white and black are reached at finite pre-activations.
        return density, torch.sigmoid(out[..., 1:]) * 1.002 - 0.001


@dataclass
class TriplaneField:
    """A batch of triplane scenes; satisfies :class:`vcgen.types.Finetunable`.

    planes: (batch, 3, channels, R, R) of a box frame, as [row, column]: [y, x], [z, x] and [y, z]. Like an image's,
        columns are x and rows are y wherever the plane has that axis: a convolution cannot transpose. On a CPU they are
        laid out in memory for fast look-ups, in float32.
    frame: (batch, 4, 4) box-to-world rigid transform, its origin the scene's center. half_size: half the box's side in
        world units.
    radius: (batch,) sphere inside which density may be non-zero.
    eye_distance: distance of the camera from the box center along the box's -z axis, in world units; 0 where there is
        none, and the projection is orthographic.
    """

    planes: Float[Tensor, "batch 3 channels size size"]
    decoder: TriplaneDecoder
    frame: Float[Tensor, "batch 4 4"]
    half_size: float
    radius: Float[Tensor, " batch"]
    projection: Projection = "orthographic"
    eye_distance: float = 0.0
    proposal: None = None

    def __post_init__(self) -> None:
        if self.planes.device.type == "cpu":
            self.planes = channels_last(self.planes)

    @property
    def center(self) -> Float[Tensor, "batch 3"]:
        """(batch, 3) in the world."""
        return self.frame[:, :3, 3]

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n channels"]]:
        """See :class:`vcgen.types.Field`; the color does not depend on the direction."""
        return self.decoder(self.features(points))

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """(batch, n, 3) -> (batch, n)."""
        return self.decoder(self.features(points))[0]

    def features(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n features"]:
        """World points (batch, n, 3) -> bilinear plane features (batch, n, channels), or 3 * channels when
        concatenated.
        """
        return sample_planes(self.planes, self.plane_coordinates(points), self.decoder.aggregate == "sum")

    def plane_coordinates(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3 2"]:
        """World points (batch, n, 3) -> (batch, n, 3, 2) coordinates in the planes, [-1, 1] over the box."""
        x, y, z = self._in_box(points).unbind(-1)
        u, v = self._from_eye(x, y, z) if self.projection == "perspective" else (x, y)
        return torch.stack([u, v, x, z, z, y], -1).unflatten(-1, (3, 2))

    def along_rays(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3"]:
        """World points (batch, n, 3) -> (batch, n, 3) coordinates along the eye's rays, [-1, 1] over the box: column
        and row on the middle plane, and z.
        """
        x, y, z = self._in_box(points).unbind(-1)
        return torch.stack([*self._from_eye(x, y, z), z], -1)

    def _in_box(self, points: Tensor) -> Tensor:
        return rotate(points - self.center[:, None], self.frame[:, :3, :3].mT) / self.half_size

    def _from_eye(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        # Similar triangles: where the ray from the eye through the point crosses the box's middle plane z = 0.
        scale = self.eye_distance / (self.eye_distance + z * self.half_size)
        return x * scale, y * scale

    def weights(self) -> FieldWeights:
        """Planes and decoder."""
        return FieldWeights(nn.ParameterDict({"planes": self.planes.detach().clone()}), copy.deepcopy(self.decoder))

    def with_weights(self, weights: FieldWeights) -> "TriplaneField":
        """See :class:`vcgen.types.Finetunable`."""
        planes = cast(nn.ParameterDict, weights.scene)["planes"]
        return replace(self, planes=planes, decoder=cast(TriplaneDecoder, weights.decoder))

    def __getitem__(self, scenes: slice) -> "TriplaneField":
        return replace(self, planes=self.planes[scenes], frame=self.frame[scenes], radius=self.radius[scenes])
