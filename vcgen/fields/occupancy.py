"""Skipping empty space: a coarse grid knows where the density of one scene is, and only samples there are looked up."""

import dataclasses
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.types import Field, FieldWeights, Finetunable


class OccupancyGrid(nn.Module):
    """Decayed maxima of the density in the cells of a cube around a scene, refreshed now and then (Instant-NGP, arXiv
    2201.05989, appendix C).

    resolution: cells per side. decay: of old values at a refresh. threshold: a cell is empty where its density and its
    neighbors', per world unit, lie below min(threshold, mean of the grid): matter may grow into the cells around it.
    Before the first refresh every cell counts as occupied."""

    density: Float[Tensor, "size size size"]

    def __init__(self, resolution: int = 48, decay: float = 0.95, threshold: float = 0.05):
        super().__init__()
        if resolution < 1 or not 0 <= decay < 1 or threshold <= 0:
            raise ValueError(
                f"need resolution >= 1, decay in [0, 1), threshold > 0; got {resolution}, {decay}, {threshold}"
            )
        self.resolution, self.decay, self.threshold = resolution, decay, threshold
        self.register_buffer("density", torch.full((resolution,) * 3, torch.inf))

    @torch.no_grad()
    def refresh(self, field: Field, generator: torch.Generator | None = None) -> None:
        """Look up one point of each cell of a field of one scene: a random one, or the center without a generator.

        What lies outside the field's sphere is empty.
        """
        device = self.density.device
        corner = torch.cartesian_prod(*[torch.arange(self.resolution, device=device)] * 3)
        shift = 0.5 if generator is None else torch.rand(corner.shape, device=device, generator=generator)
        local = (corner + shift) / self.resolution * 2 - 1
        found = torch.zeros(len(local), device=device)
        # cells that the sphere touches
        inside = (local.norm(dim=-1) <= 1 + 3**0.5 / self.resolution).nonzero()[:, 0]
        points = field.center + local[inside] * field.radius
        found[inside] = torch.cat([field.density(part[None])[0].float() for part in points.split(1 << 16)])
        found = found.reshape(self.density.shape)
        first = self.density.isinf().any()
        self.density.copy_(torch.where(first, found, torch.maximum(self.density * self.decay, found)))

    def occupied(self) -> Bool[Tensor, "size size size"]:
        """(resolution,) * 3 bool, indexed [x, y, z]."""
        dense = self.density > self.density.mean().clamp(max=self.threshold)
        grown = F.max_pool3d(dense.float()[None, None], 3, 1, 1)[0, 0] > 0
        return grown | self.density.isinf().any()

    def fraction(self) -> Float[Tensor, ""]:
        """The fraction of cells that are occupied, ()."""
        return self.occupied().float().mean()


def lies_in(
    cells: Bool[Tensor, "size size size"],
    points: Float[Tensor, "batch n 3"],
    center: Float[Tensor, "batch 3"],
    radius: Float[Tensor, " batch"],
) -> Bool[Tensor, "batch n"]:
    """Which points lie in a sphere and in one of the cells, indexed [x, y, z], of the cube around it."""
    local = (points.detach() - center[:, None]) / radius[:, None, None]
    x, y, z = ((local * 0.5 + 0.5) * len(cells)).long().clamp(0, len(cells) - 1).unbind(-1)
    return cells[x, y, z] & (local.square().sum(-1) <= 1 + 1e-4)


@dataclass
class OccupiedField:
    """The part of a field of one scene that lies in occupied cells; elsewhere density and color are 0 without a
    look-up.

    Satisfies :class:`vcgen.types.Field`, so that every renderer skips what is empty, with the same samples along each
    ray. Differentiable as the field is; what is skipped gets no gradient."""

    field: Field
    grid: OccupancyGrid
    proposal: None = None
    center: Float[Tensor, "1 3"] = dataclasses.field(init=False)
    radius: Float[Tensor, "1"] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if len(self.field.center) != 1:
            raise ValueError(f"an occupancy grid is of one scene; the field has {len(self.field.center)}")
        self.center, self.radius = self.field.center, self.field.radius
        self.cells = self.grid.occupied()

    def kept(self, points: Float[Tensor, "1 n 3"]) -> Int[Tensor, " m"]:
        """Which of the points (1, n, 3) lie in the sphere and in occupied cells: their numbers (m,)."""
        return lies_in(self.cells, points, self.center, self.radius)[0].nonzero()[:, 0]

    def __call__(
        self, points: Float[Tensor, "1 n 3"], directions: Float[Tensor, "1 n 3"]
    ) -> tuple[Float[Tensor, "1 n"], Float[Tensor, "1 n channels"]]:
        """See :class:`vcgen.types.Field`."""
        kept = self.kept(points)
        found, colors = self.field(points[:, kept], directions[:, kept])
        density = found.new_zeros(points.shape[:2]).index_copy(1, kept, found)
        return density, colors.new_zeros(*points.shape[:2], colors.shape[-1]).index_copy(1, kept, colors)

    def density(self, points: Float[Tensor, "1 n 3"]) -> Float[Tensor, "1 n"]:
        """See :class:`vcgen.types.Field`."""
        kept = self.kept(points)
        found = self.field.density(points[:, kept])
        return found.new_zeros(points.shape[:2]).index_copy(1, kept, found)


@dataclass
class ShownField:
    """One scene, given to a batch, whose density is 0 outside of cells: as an :class:`OccupiedField` shows it, after
    its run. Colors are the scene's own everywhere, for meshes, whose vertices may lie beside the cells; satisfies
    :class:`vcgen.types.Finetunable`.

    seen: the cells, of the cube around the field's sphere, indexed [x, y, z].
    """

    field: Finetunable
    seen: Bool[Tensor, "size size size"]
    proposal: None = None

    @property
    def center(self) -> Float[Tensor, "batch 3"]:
        """See :class:`vcgen.types.Field`."""
        return self.field.center

    @property
    def radius(self) -> Float[Tensor, " batch"]:
        """See :class:`vcgen.types.Field`."""
        return self.field.radius

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n channels"]]:
        """See :class:`vcgen.types.Field`."""
        density, colors = self.field(points, directions)
        return self.masked(density, points), colors

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """See :class:`vcgen.types.Field`."""
        return self.masked(self.field.density(points), points)

    def masked(self, density: Float[Tensor, "batch n"], points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """The density at points, where they are seen."""
        return density.masked_fill(~lies_in(self.seen, points, self.center, self.radius), 0)

    def weights(self) -> FieldWeights:
        """See :class:`vcgen.types.Finetunable`."""
        return self.field.weights()

    def with_weights(self, weights: FieldWeights) -> "ShownField":
        """See :class:`vcgen.types.Finetunable`."""
        return replace(self, field=self.field.with_weights(weights))

    def __getitem__(self, scenes: slice) -> "ShownField":
        return replace(self, field=self.field[scenes])
