"""Epipolar transformers (LFNR: Suhail, Esteves, Sigal, Makadia, CVPR 2022, arXiv 2112.09687; GPNR: the same, ECCV 2022,
arXiv 2207.10662): a ray's color from what source views show at the projections of points on it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vcgen.cameras import rotate
from vcgen.fields.epipolar_network import Blend, EpipolarNetwork
from vcgen.fields.light_field import pluecker
from vcgen.fields.source_views import SourceSamples, SourceViews
from vcgen.rays import Rays
from vcgen.types import RayRendering

#: Octaves of the sines and cosines of a ray's coordinates, and of a point's.
RAY_OCTAVES, POINT_OCTAVES = 4, 10
#: Channels of their codes, and of a source camera's axes and center.
RAY, POINT, POSE = 6 * (1 + 2 * RAY_OCTAVES), 3 * (1 + 2 * POINT_OCTAVES), 12


def octaves(x: Float[Tensor, "*batch n"], count: int) -> Float[Tensor, "*batch encoded"]:
    """x, and sines and cosines of x, 2 x, 4 x, ..."""
    waves = (2.0 ** torch.arange(count, dtype=x.dtype, device=x.device)[:, None] * x[..., None, :]).flatten(-2)
    return torch.cat([x, waves.sin(), waves.cos()], -1)


def canonical_axes(
    directions: Float[Tensor, "batch rays 3"], down: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch rays 3 3"]:
    """Rotations from the world into each ray's own frame: z along it, y as far as can be along ``down`` (GPNR, section
    3.3). A ray along ``down`` has the y axis of the world's axis that is the farthest from it.

    directions: unit. Published: the y axis is the target camera's, and both other rows are divided by their squared
    length, which makes no rotation.
    """
    down = F.normalize(down, dim=-1)[:, None].expand_as(directions)
    spare = F.one_hot(directions.abs().argmin(-1), 3).to(directions)
    along = torch.linalg.cross(down, directions).norm(dim=-1, keepdim=True) < 1e-3
    x = F.normalize(torch.linalg.cross(torch.where(along, spare, down), directions), dim=-1)
    return torch.stack([x, torch.linalg.cross(directions, x), directions], -2)


@dataclass(frozen=True)
class EpipolarScene:
    """A :class:`vcgen.types.RayScene`: source views, and the network that reads them along a ray's epipolar lines.

    center: (batch, 3), radius: (batch,) of the sphere that holds the object, in the world; infinite for all between
        near and far. sources: their features end with the views' alpha. points: on a ray, from its entry into the
        sphere to its exit. nearest: how many of the views each ray looks at; None: all. canonical: whether what is seen
        is described in the ray's frame (GPNR) or along the world's axes about the center.
    """

    center: Tensor
    radius: Tensor
    sources: SourceViews
    network: EpipolarNetwork
    points: int
    nearest: int | None
    canonical: bool

    @property
    def queries(self) -> int:
        """Places that the network looks at per ray."""
        views = self.sources.images.shape[1]
        return self.points * min(views, self.nearest or views)

    def shoot(self, rays: Rays, generator: torch.Generator | None = None) -> RayRendering:
        """See :class:`vcgen.types.RayScene`. A color that the network predicts has the opacity and the depth of the
        sources' blend, which is then ``coarse``. Points are never jittered (as published)."""
        distances, samples, blend = self.attend(rays)
        alpha = samples.features[..., -1:]
        rgb = (blend.weights[..., None] * (samples.colors - (1 - alpha))).sum((2, 3))  # they were over white
        opacity = (blend.weights * alpha[..., 0]).sum((2, 3))
        depth = opacity * (blend.weights.sum(2) * distances).sum(2)
        blended = RayRendering(rgb, opacity, depth)
        if blend.color is None:
            return blended
        return RayRendering(opacity[..., None] * blend.color, opacity, depth, coarse=blended)

    def attend(self, rays: Rays) -> tuple[Float[Tensor, "batch rays points"], SourceSamples, Blend]:
        """Distances of the points on each ray, what the sources show there, and how the network weighs it."""
        steps = torch.linspace(0, 1, self.points, device=rays.near.device, dtype=rays.near.dtype)
        distances = torch.lerp(rays.near[..., None], rays.far[..., None], steps)
        points = rays.at(distances)
        index = self.sources.nearest(rays.origins, self.center, self.nearest)
        samples = self.sources.at(points, index)
        axes = self.sources.cameras.c2w[:, None, :, :3, :3].expand(-1, rays.shape[1], -1, -1, -1)
        if index is not None:
            axes = axes.take_along_dim(index[..., None, None], 2)

        turn, origin = self.frames(rays)
        local = rotate(points - origin[:, :, None], turn)
        eyes = rotate(samples.eyes - origin[:, :, None], turn)
        pose = torch.cat([rotate(axes.mT.flatten(2, 3), turn).unflatten(2, (-1, 3)).flatten(3), eyes], -1)
        # the ray of a source through the projection of a point is the one through the point
        towards = F.normalize(local[:, :, None] - eyes[:, :, :, None], dim=-1)
        lines = pluecker(eyes[:, :, :, None].expand_as(towards), towards)
        target = pluecker(
            rotate((rays.origins - origin)[:, :, None], turn)[:, :, 0],
            rotate(rays.directions[:, :, None], turn)[:, :, 0],
        )
        places = [
            octaves(lines, RAY_OCTAVES),
            octaves(local, POINT_OCTAVES)[:, :, None],
            samples.features[..., :-1],
            samples.colors,
        ]
        places += [pose[:, :, :, None]] if self.canonical else []
        return distances, samples, self.network(octaves(target, RAY_OCTAVES), places, samples.valid)

    def frames(self, rays: Rays) -> tuple[Float[Tensor, "batch rays 3 3"], Float[Tensor, "batch rays 3"]]:
        """Rotations from the world, and origins in it, of the frames that rays, points and cameras are described in."""
        if self.canonical:
            return canonical_axes(rays.directions, self.sources.cameras.c2w[..., :3, 1].mean(1)), rays.origins
        turn = torch.eye(3, device=self.center.device, dtype=self.center.dtype)
        return turn.expand(*rays.shape, 3, 3), self.center[:, None].expand_as(rays.origins)
