"""Fields of features from frustum-aligned volumes (GeNVS, arXiv 2304.02602): what every input view says of a point is
averaged, then an MLP makes density and features of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.cameras import Cameras

#: Density is DENSITY_SCALE softplus(h + DENSITY_BIAS) per world unit: moderate at first, as that of triplanes (ours).
DENSITY_BIAS, DENSITY_SCALE = -1.0, 10.0


class FeatureDecoder(nn.Module):
    """A volume's features -> density and features: the MLP channels - hidden - hidden - (1 + channels) with ReLU, whose
    features are added to those it is given.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, hidden, hidden, 1 + channels)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(
        self, features: Float[Tensor, "*n channels"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n channels"]]:
        """(..., channels) -> density (...) >= 0 per world unit and features (..., channels), both float32."""
        out = self.layers(features).float()
        return DENSITY_SCALE * F.softplus(out[..., 0] + DENSITY_BIAS), features.float() + out[..., 1:]


@dataclass(frozen=True)
class FeatureField:
    """A :class:`vcgen.types.Field` of ``channels`` features: a batch of scenes, each seen by n views.

    volumes: (batch, n, channels, D, h, w), one per view. Columns and rows are those of the view's image, edge to edge;
        the D cells tile its z-depths from ``radius`` before the center to ``radius`` behind it.
    cameras: of the views, (batch, n).
    """

    center: Float[Tensor, "batch 3"]
    radius: Float[Tensor, " batch"]
    volumes: Float[Tensor, "batch views channels D h w"]
    cameras: Cameras
    decoder: Callable[[Tensor], Any]
    proposal: None = None

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n channels"]]:
        """See :class:`vcgen.types.Field`. The density is zero where no view looks; nothing depends on the direction."""
        features, visible = self.look_up(points)
        density, features = self.decoder(features)
        return density * visible, features

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """(batch, n, 3) -> (batch, n)."""
        return self(points, points)[0]

    @property
    def colors(self) -> "FeatureColors":
        """The same scenes in color."""
        return FeatureColors(self)

    def look_up(self, points: Float[Tensor, "batch n 3"]) -> tuple[Float[Tensor, "batch n channels"], Tensor]:
        """World points (batch, n, 3) -> the mean of the volumes' trilinear features (batch, n, channels), float32, over
        the views in whose frusta they lie, zeros where there is none; and whether there is one (batch, n).
        """
        place = self.coordinates(points)
        inside = (place.abs() <= 1).all(-1)
        grid = torch.where(inside[..., None], place, 0).flatten(0, 1)[:, :, None, None]
        volumes = self.volumes.flatten(0, 1).float()
        sampled = F.grid_sample(volumes, grid, padding_mode="border", align_corners=False)[..., 0, 0]
        count = inside.sum(1)
        weight = inside / count.clamp(min=1)[:, None]
        features = (sampled.unflatten(0, inside.shape[:2]) * weight[:, :, None]).sum(1).mT
        return features, count > 0

    def coordinates(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch views n 3"]:
        """World points (batch, n, 3) -> (batch, views, n, 3): column, row and z-depth in every view's frustum, from -1
        to 1 between its edges. Infinite behind the camera.
        """
        uv, z = self.cameras.project(points[:, None])
        middle = self.cameras.project(self.center[:, None, None])[1]
        depth = torch.where(z > 0, (z - middle) / self.radius[:, None, None], torch.inf)
        return torch.cat([2 * uv - 1, depth[..., None]], -1)


@dataclass(frozen=True)
class FeatureColors:
    """A :class:`vcgen.types.Field` of colors: a feature field of which the sigmoid of the first three channels is
    shown.
    """

    features: FeatureField
    proposal: None = None

    @property
    def center(self) -> Float[Tensor, "batch 3"]:
        """(batch, 3) in the world."""
        return self.features.center

    @property
    def radius(self) -> Float[Tensor, " batch"]:
        """(batch,) in world units."""
        return self.features.radius

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n 3"]]:
        """See :class:`vcgen.types.Field`."""
        density, features = self.features(points, directions)
        return density, features[..., :3].sigmoid()

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """(batch, n, 3) -> (batch, n)."""
        return self.features.density(points)
