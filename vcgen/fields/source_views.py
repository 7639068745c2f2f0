"""Posed source views that a scene is read from, as image-based renderers do: where points lie in each, what is seen
there, and which views are the nearest to a ray's eye.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vcgen.cameras import Cameras


def look_up(
    maps: Float[Tensor, "batch n channels h w"], uv: Float[Tensor, "batch n p 2"], size: tuple[int, int]
) -> Float[Tensor, "batch n p channels"]:
    """Feature maps of images of (height, width) pixels at normalized image points: bilinear, border values outside, in
    the precision of the points.

    Pixel (row i, column j) reads the map at (i / stride, j / stride), where a strided convolution centered its window;
    of a map as large as its image that is the cell of the pixel. The stride is that by which the sides, rounded up, are
    those of the map.
    """
    sides = zip(uv.unbind(-1), maps.shape[:-3:-1], size[::-1], strict=True)
    grid = torch.stack([_grid(*side) for side in sides], -1)
    # not the other way: bfloat16 features must not round the coordinates
    sampled = F.grid_sample(
        maps.flatten(0, 1).to(grid),
        grid.flatten(0, 1)[:, :, None],
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return sampled[..., 0].transpose(1, 2).unflatten(0, maps.shape[:2])


def _grid(place: Float[Tensor, "*points"], cells: int, pixels: int) -> Float[Tensor, "*points"]:
    """Where ``grid_sample`` finds normalized places along a side of an image."""
    covered = pixels / (-(-pixels // cells) * cells)  # of what the cells span, by the image
    return 2 * place * covered - 1 + 1 / cells - covered / pixels


class SourceSamples(NamedTuple):
    """What k source views of each ray show at the ray's samples.

    colors: (batch, rays, k, samples, 3) in [0, 1]. features: (batch, rays, k, samples, channels). uv: (batch, rays, k,
    samples, 2), normalized image points. valid: (batch, rays, k, samples), whether the sample lies in front of the
    view's camera and inside its image; elsewhere the others are finite and mean nothing. eyes: (batch, rays, k, 3), the
    views' camera centers in the world.
    """

    colors: Float[Tensor, "batch rays k samples 3"]
    features: Float[Tensor, "batch rays k samples channels"]
    uv: Float[Tensor, "batch rays k samples 2"]
    valid: Bool[Tensor, "batch rays k samples"]
    eyes: Float[Tensor, "batch rays k 3"]


@dataclass(frozen=True)
class SourceViews:
    """Source views of a batch of scenes, n of each.

    images: (batch, n, 3, height, width) in [0, 1]. features: (batch, n, channels, h, w), maps of these images, of any
    stride. cameras: (batch, n).
    """

    images: Float[Tensor, "batch n 3 height width"]
    features: Float[Tensor, "batch n channels h w"]
    cameras: Cameras

    def at(
        self, points: Float[Tensor, "batch rays samples 3"], index: Int[Tensor, "batch rays k"] | None = None
    ) -> SourceSamples:
        """What the views show of world points on rays: the views ``index`` of each ray, see :meth:`nearest`, or all."""
        size = self.images.shape[-2], self.images.shape[-1]
        uv, depth = self.cameras.project(points.flatten(1, 2)[:, None])
        front = depth > 0
        valid = front & (uv >= 0).all(-1) & (uv <= 1).all(-1)
        uv = torch.where(front[..., None], uv, 0.5)  # in a camera's plane an image point may be infinite, or no number

        def chosen(x: Tensor) -> Tensor:
            """(batch, n, points, ...) -> (batch, rays, k, samples, ...)."""
            x = x.unflatten(2, points.shape[1:3]).transpose(1, 2)
            return x if index is None else x.take_along_dim(index.reshape(*index.shape, *[1] * (x.ndim - 3)), 2)

        colors, features = (chosen(look_up(maps, uv, size)) for maps in (self.images, self.features))
        eyes = self.cameras.centers[:, None].expand(-1, points.shape[1], -1, -1)
        eyes = eyes if index is None else eyes.take_along_dim(index[..., None], 2)
        return SourceSamples(colors, features, chosen(uv), chosen(valid), eyes)

    def nearest(
        self, origins: Float[Tensor, "batch rays 3"], center: Float[Tensor, "batch 3"], k: int | None
    ) -> Int[Tensor, "batch rays k"] | None:
        """The numbers of the ``k`` views whose cameras lie at the smallest angles to each ray's origin, seen from the
        scene's center, nearest first. None where that leaves none out: all views, as they are given.
        """
        if k is None or k >= self.cameras.shape[1]:
            return None
        return by_angle(origins, self.cameras.centers, center)[..., :k]


def by_angle(
    origins: Float[Tensor, "batch rays 3"], eyes: Float[Tensor, "batch n 3"], center: Float[Tensor, "batch 3"]
) -> Int[Tensor, "batch rays n"]:
    """All cameras of a scene in the order of their angles to each ray's origin, seen from ``center``."""
    to_origins, to_eyes = (F.normalize(x - center[:, None], dim=-1) for x in (origins, eyes))
    # by chords: cosines of small angles are all one
    chords = (to_origins[:, :, None] - to_eyes[:, None]).square().sum(-1)
    return chords.argsort(dim=-1, stable=True)
