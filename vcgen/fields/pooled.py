"""Triplanes of several views of one scene, pooled into one field (ours): each view's features count at a point as much
as that view sees it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vcgen.cameras import rotate
from vcgen.fields.triplane import TriplaneField

#: Cells per side of the grid, along a view's rays, on which its transmittance is kept.
CELLS = 32
#: What a view counts at points that it does not see, so that those that no view sees have the mean of all.
UNSEEN = 0.01


@dataclass(frozen=True)
class PooledTriplanes:
    """A batch of scenes, each known from n views; satisfies :class:`vcgen.types.Field`.

    views: the batch * n triplanes of single views, those of a scene in a row, their spheres alike.
    transmittance: (batch, n, cells, cells, cells) of the light from a point to a view's camera, through that view's own
        density, by [distance, row, column]; without gradient.
    """

    views: TriplaneField
    transmittance: Float[Tensor, "batch n cells cells cells"]
    proposal: None = None

    @property
    def center(self) -> Float[Tensor, "batch 3"]:
        """(batch, 3) in the world: the mean of what the views take for it."""
        return self.views.center.unflatten(0, self.transmittance.shape[:2]).mean(1)

    @property
    def radius(self) -> Float[Tensor, " batch"]:
        """(batch,) of every view's sphere."""
        return self.views.radius.unflatten(0, self.transmittance.shape[:2])[:, 0]

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n channels"]]:
        """See :class:`vcgen.types.Field`; the color does not depend on the direction."""
        return self.views.decoder(self.features(points))

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """(batch, n, 3) -> (batch, n)."""
        return self.views.decoder(self.features(points))[0]

    def features(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n features"]:
        """World points (batch, n, 3) -> the mean of the views' features there, weighed by their transmittance."""
        shape = self.transmittance.shape[:2]
        each = points.repeat_interleave(shape[1], 0)
        features = self.views.features(each).unflatten(0, shape)
        weights = self.visibility(each).unflatten(0, shape).clamp_min(UNSEEN)
        return (features * (weights / weights.sum(1, keepdim=True))[..., None]).sum(1)

    def visibility(self, points: Float[Tensor, "views n 3"]) -> Float[Tensor, "views n"]:
        """Points (batch * n, points, 3), some for each view -> the fraction of their light that reaches its camera."""
        place = self.views.along_rays(points)[:, :, None, None]
        grid = self.transmittance.flatten(0, 1)[:, None]
        found = F.grid_sample(grid, place.to(grid), align_corners=False, padding_mode="border")
        return found[:, 0, :, 0, 0]


@torch.no_grad()
def pooled(views: TriplaneField, count: int) -> PooledTriplanes:
    """The field of scenes of which ``views`` holds ``count`` each, those of a scene in a row."""
    step = (torch.arange(CELLS, device=views.frame.device) + 0.5) / CELLS * 2 - 1
    z, v, u = torch.meshgrid(step, step, step, indexing="ij")
    # in the world's units, about the box's center: rays from the eye, which is at (0, 0, -eye_distance)
    spread = (1 + z * views.half_size / views.eye_distance) * views.half_size
    box = torch.stack([u * spread, v * spread, z * views.half_size], -1).flatten(0, 2)
    points = rotate(box, views.frame[:, :3, :3]) + views.center[:, None]
    slant = torch.stack([u, v], -1).mul(views.half_size / views.eye_distance).square().sum(-1).add(1).sqrt()
    length = 2 * views.half_size / CELLS * slant
    inside = (points - views.center[:, None]).norm(dim=-1) < views.radius[:, None]
    depth = (views.density(points) * inside).unflatten(1, length.shape) * length
    passed = depth.cumsum(1) - depth
    return PooledTriplanes(views, torch.exp(-passed).unflatten(0, (-1, count)))
