"""Bilinear look-ups in feature planes: the inner loop of a triplane field.

Two implementations of one function. The plain one is ``grid_sample``. The other writes the interpolation as a sparse
matrix product, rows of a table of texels gathered with weights by ``embedding_bag``, which on CPU is faster because a
texel's channels lie together in memory (``benchmarks/field_speed.py --parts`` measures both); it is used there unless
gradients with respect to the coordinates are needed."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Planes = Float[Tensor, "batch planes channels size size"]
Coordinates = Float[Tensor, "batch n planes 2"]


def sample_planes(planes: Planes, coordinates: Coordinates, reduce: bool) -> Float[Tensor, "batch n features"]:
    """Bilinear samples of feature planes, texel centers at +0.5, border values outside.

    planes: (batch, planes, channels, R, R). coordinates: (batch, n, planes, 2), x along the planes' last axis, [-1, 1]
        from edge to edge.
    Returns (batch, n, channels) summed over the planes when ``reduce``, else (batch, n, planes * channels), in float32.
    """
    if planes.device.type == "cpu" and not (coordinates.requires_grad and torch.is_grad_enabled()):
        return sample_by_bags(planes, coordinates, reduce)
    return sample_by_grid(planes, coordinates, reduce)


def sample_by_grid(planes: Planes, coordinates: Coordinates, reduce: bool) -> Float[Tensor, "batch n features"]:
    """:func:`sample_planes` through ``grid_sample``; differentiable in both arguments."""
    batch, count, channels = planes.shape[:3]
    grid = coordinates.transpose(1, 2).reshape(batch * count, -1, 1, 2)
    sampled = F.grid_sample(planes.flatten(0, 1).float(), grid, align_corners=False, padding_mode="border")
    sampled = sampled.reshape(batch, count, channels, -1)
    if reduce:
        return sampled.sum(1).mT
    return sampled.reshape(batch, count * channels, -1).mT


def channels_last(planes: Planes) -> Planes:
    """The same (batch, planes, channels, R, R) feature planes in float32, laid out in memory as :func:`sample_by_bags`
    reads them.

    To be called once per set of planes that is sampled several times: each look-up would otherwise make this copy anew.
    """
    return planes.movedim(2, -1).float().contiguous().movedim(-1, 2)


def sample_by_bags(planes: Planes, coordinates: Coordinates, reduce: bool) -> Float[Tensor, "batch n features"]:
    """:func:`sample_planes` through ``embedding_bag``; differentiable in the planes only."""
    batch, count, channels, size, _ = planes.shape
    with torch.no_grad():
        rows, weights = bilinear_rows(coordinates, size)
    table = planes.movedim(2, -1).float().reshape(-1, channels)
    bag = 4 * count if reduce else 4
    return _WeightedRows.apply(table, rows, weights, size, bag).reshape(
        batch, coordinates.shape[1], channels if reduce else count * channels
    )


def bilinear_rows(coordinates: Coordinates, size: int) -> tuple[Int[Tensor, "points 4"], Float[Tensor, "points 4"]]:
    """Bilinear interpolation as a sparse matrix: coordinates (batch, n, planes, 2) -> rows (int32) and weights, (batch
    * n * planes, 4).

    Rows number the texels of (batch, planes, size, size); the four corners are in the order (0, 0), (0, 1), (1, 0), (1,
    1)."""
    batch, n, count, _ = coordinates.shape
    # Each step runs over long contiguous stretches, one per coordinate; only its result is interleaved.
    texel = (coordinates.permute(2, 3, 0, 1).float() * (size / 2) + (size / 2 - 0.5)).clamp_(0, size - 1)
    corner = texel.floor().clamp_(max=size - 2)
    high = texel - corner
    low = 1 - high
    numbers = (
        torch.arange(batch * count, dtype=torch.int32, device=texel.device).reshape(batch, count, 1).transpose(0, 1)
    )
    first = torch.add(corner[:, 0], corner[:, 1], alpha=size).to(torch.int32).add_(numbers * (size * size))
    rows = torch.empty(batch, n, count, 4, dtype=torch.int32, device=texel.device)
    weights = torch.empty(batch, n, count, 4, dtype=texel.dtype, device=texel.device)
    for k, (down, right) in enumerate(((low, low), (low, high), (high, low), (high, high))):
        torch.add(first, (0, 1, size, size + 1)[k], out=rows[..., k].permute(2, 0, 1))
        torch.mul(down[:, 1], right[:, 0], out=weights[..., k].permute(2, 0, 1))
    return rows.reshape(-1, 4), weights.reshape(-1, 4)


class _WeightedRows(torch.autograd.Function):
    """out[i] = sum over the entries e of bag i and their corners k of weights[e, k] * table[rows[e, k]]."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor, size: int, bag: int) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.rows, ctx.size, ctx.bag = len(table), size, bag
        return F.embedding_bag(rows.view(-1, bag), table, per_sample_weights=weights.view(-1, bag), mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        # The transposed product. Sorted by their first texel, the entries of each texel are one bag; the four corners
        # share the sort.
        rows, weights = ctx.saved_tensors
        grad = grad.contiguous()
        ordered, entries = rows[:, 0].sort()
        starts = torch.searchsorted(ordered, torch.arange(ctx.rows, dtype=ordered.dtype, device=ordered.device))
        sources, weights = entries // (ctx.bag // 4), weights.index_select(0, entries).t().contiguous()
        result, *others = (
            F.embedding_bag(sources, grad, starts, per_sample_weights=corner, mode="sum") for corner in weights
        )
        for part, offset in zip(others, (1, ctx.size, ctx.size + 1), strict=True):
            result[offset:] += part[: ctx.rows - offset]
        return result, None, None, None, None
