"""Multiresolution hash grids (Instant-NGP, arXiv 2201.05989, section 3) in plain PyTorch, and the field of one scene
that stands on one.
"""

import copy
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.errors import UserError
from vcgen.schema import AtLeastOne
from vcgen.types import FieldWeights

#: Of the spatial hash (equation 4): corner (x, y, z) is stored at x xor y * 2654435761 xor z * 805459861, modulo the
#: table's size.
PRIMES = 1, 2_654_435_761, 805_459_861
#: A cell's corners: steps along x, y and z from its lowest.
CORNERS = [(number & 1, number >> 1 & 1, number >> 2) for number in range(8)]


class HashGrid(nn.Module):
    """Features of points of the unit cube, from grids of growing resolution (Instant-NGP, arXiv 2201.05989).

    ``active_levels`` is the number of levels in use; the features of the others are 0 (coarse to fine, as RealFusion
    trains). Set it at will.

    Args:
        levels: Number of grids; their numbers of cells per side are a geometric series from ``coarsest`` to ``finest``.
        features: Per corner and level.
        log2_size: A level keeps at most 2^log2_size corners; a finer one hashes its corners into as many, where
            collisions share an entry.
        coarsest: Cells per side of the first level.
        finest: Cells per side of the last level.
    """

    def __init__(
        self,
        levels: AtLeastOne = 16,
        features: AtLeastOne = 2,
        log2_size: AtLeastOne = 16,
        coarsest: AtLeastOne = 16,
        finest: AtLeastOne = 2048,
    ):
        super().__init__()
        if not (
            1 <= levels <= 64 and 1 <= features <= 64 and 1 <= coarsest <= finest <= 1 << 20 and 1 <= log2_size <= 24
        ):
            found = f"{levels}, {features}, {coarsest}, {finest}, {log2_size}"
            raise ValueError(
                "need levels and features of 1 to 64, 1 <= coarsest <= finest <= 2^20, log2_size of 1 to 24; got"
                f" {found}"
            )
        growth = exp((log(finest) - log(coarsest)) / max(1, levels - 1))  # equations 2 and 3
        # a little more, for rounding must not take a cell: a scene in a folder is made again of its finest level
        self.sizes = [int(coarsest * growth**level * (1 + 1e-9)) for level in range(levels)]
        entries = [min((size + 1) ** 3, 2**log2_size) for size in self.sizes]
        self.levels, self.features, self.log2_size, self.active_levels = levels, features, log2_size, levels
        # the coarser levels, which hold every corner
        self.plain = sum((size + 1) ** 3 <= 2**log2_size for size in self.sizes)
        starts = torch.tensor([0, *entries]).cumsum(0)
        self.sides: Tensor
        self.starts: Tensor
        self.register_buffer("sides", torch.tensor(self.sizes), persistent=False)
        self.register_buffer("starts", starts[:-1], persistent=False)
        self.table = nn.Parameter(torch.empty(int(starts[-1]), features).uniform_(-1e-4, 1e-4))

    @property
    def width(self) -> int:
        """Features of a point."""
        return self.levels * self.features

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n features"]:
        """(n, 3) in [0, 1], clamped to it -> (n, levels * features), in float32; differentiable in the points, too."""
        sides = self.sides[: self.active_levels, None]
        # The points stand last, up to the look-up: a CPU works on long rows at its full width.
        scaled = points.float().clamp(0, 1).T[:, None] * sides  # (3, levels, n)
        corner = torch.minimum(scaled.detach().long(), sides - 1)
        offset = scaled - corner
        fractions = torch.stack([1 - offset, offset])
        weights = torch.stack([fractions[i, 0] * fractions[j, 1] * fractions[k, 2] for i, j, k in CORNERS], -1)
        found = _WeightedSum.apply(self.table, self.rows(corner).flatten(0, 1), weights.flatten(0, 1))
        found = found.unflatten(0, (self.active_levels, len(points))).transpose(0, 1).flatten(1)
        return F.pad(found, (0, self.width - found.shape[1]))

    def rows(self, corner: Int[Tensor, "3 levels n"]) -> Int[Tensor, "levels n 8"]:
        """Where the eight corners of the active levels' cells are stored in the table: (levels, n, 8) int32, in the
        order of CORNERS, of each cell's lowest corner, (3, levels, n)."""
        side, start = self.sides[: self.active_levels, None] + 1, self.starts[: self.active_levels, None]
        strides = torch.stack([torch.ones_like(side), side, side * side])
        # Per axis and step: its fraction of the plain sum, and of the hash, whose last bits alone count.
        steps = torch.stack([corner, corner + 1])
        sums = (steps[:, :, : self.plain] * strides[:, : self.plain]).int()
        mask = 2**self.log2_size - 1
        bits = torch.stack(
            [(steps[:, axis, self.plain :] * prime) & mask for axis, prime in enumerate(PRIMES)], 1
        ).int()
        start = start.int()
        rows = [
            torch.cat([sums[i, 0] + sums[j, 1] + sums[k, 2], bits[i, 0] ^ bits[j, 1] ^ bits[k, 2]]).add_(start)
            for i, j, k in CORNERS
        ]
        return torch.stack(rows, -1)


class _WeightedSum(torch.autograd.Function):
    """``embedding_bag`` with weights: sums of a table's rows. On a CPU its gradient for the table takes a twentieth of
    the time of PyTorch's own, which is most of a training step."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        for_table = for_weights = None
        if ctx.needs_input_grad[0]:
            flat = rows.reshape(-1)
            if grad.device.type == "cpu":
                parts = [
                    torch.bincount(flat, (weights * part[:, None]).reshape(-1), len(table)) for part in grad.unbind(-1)
                ]
                for_table = torch.stack(parts, -1).to(table.dtype)
            else:
                spread = (weights[..., None] * grad[:, None]).reshape(-1, table.shape[1])
                for_table = torch.zeros_like(table).index_add_(0, flat, spread)
        if ctx.needs_input_grad[2]:
            for_weights = (table[rows] * grad[:, None]).sum(-1)
        return for_table, None, for_weights


class _TruncatedExp(torch.autograd.Function):
    """exp whose gradient is bounded, as in Instant-NGP's density: a large logit would end the training."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].clamp(-15, 15).exp()


@dataclass
class HashGridField:
    """One scene, given to a batch; satisfies :class:`vcgen.types.Finetunable`.

    grid: spans the cube of side 2 * half_size around the center, in world units. decoder: features -> logit of the
    density, three of the color. center: (batch, 3); radius: (batch,), of the sphere that is rendered. blob: (height,
    width): the density is exp(logit + height * exp(-r^2 / (2 width^2))), r being the distance from the center: matter
    begins in the middle (DreamFusion, arXiv 2209.14988, section 3.2; inside the exponential as in RealFusion). Height 0
    is none."""

    grid: HashGrid
    decoder: nn.Module
    center: Float[Tensor, "batch 3"]
    radius: Float[Tensor, " batch"]
    half_size: float
    blob: tuple[float, float] = (0.0, 0.2)
    proposal: None = None

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n 3"]]:
        """See :class:`vcgen.types.Field`; the color does not depend on the direction."""
        local = points - self.center[:, None]
        features = self.grid((local / (2 * self.half_size) + 0.5).reshape(-1, 3))
        output = self.decoder(features).float().unflatten(0, points.shape[:-1])
        height, width = self.blob
        logit = output[..., 0] + height * (-local.square().sum(-1) / (2 * width**2)).exp()
        return _TruncatedExp.apply(logit), output[..., 1:].sigmoid()

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """(batch, n, 3) -> (batch, n)."""
        return self(points, points)[0]

    def weights(self) -> FieldWeights:
        """Grid and decoder. Raises UserError for a batch: its entries would all be finetuned as the one scene that they
        are.
        """
        if len(self.center) > 1:
            raise UserError("a hash grid holds one scene: distill one image at a time")
        return FieldWeights(copy.deepcopy(self.grid), copy.deepcopy(self.decoder))

    def with_weights(self, weights: FieldWeights) -> "HashGridField":
        """See :class:`vcgen.types.Finetunable`."""
        return replace(self, grid=cast(HashGrid, weights.scene), decoder=weights.decoder)

    def __getitem__(self, scenes: slice) -> "HashGridField":
        return replace(self, center=self.center[scenes], radius=self.radius[scenes])
