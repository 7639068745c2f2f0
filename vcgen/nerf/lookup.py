"""Bilinear look-ups in feature planes: the inner loop of a triplane field.

Two implementations of one function. The plain one is ``grid_sample``. The other writes the interpolation as a sparse matrix product, rows of
a table of texels gathered with weights by ``embedding_bag``, which on CPU is several times faster because a texel's channels lie together in
memory (``benchmarks/field_speed.py`` measures both); it is used there unless gradients with respect to the coordinates are needed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_planes(planes: Tensor, coordinates: Tensor, reduce: bool) -> Tensor:
    """Bilinear samples of feature planes, texel centres at +0.5, border values outside.

    planes: (batch, planes, channels, R, R). coordinates: (batch, n, planes, 2), x along the last axis of the planes, [-1, 1] from edge to edge.
    Returns (batch, n, channels) summed over the planes when ``reduce``, else (batch, n, planes * channels), in float32.
    """
    if planes.device.type == "cpu" and not (coordinates.requires_grad and torch.is_grad_enabled()):
        return sample_by_bags(planes, coordinates, reduce)
    return sample_by_grid(planes, coordinates, reduce)


def sample_by_grid(planes: Tensor, coordinates: Tensor, reduce: bool) -> Tensor:
    """:func:`sample_planes` through ``grid_sample``; differentiable in both arguments."""
    batch, count, channels = planes.shape[:3]
    grid = coordinates.transpose(1, 2).reshape(batch * count, -1, 1, 2)
    sampled = F.grid_sample(planes.flatten(0, 1).float(), grid, align_corners=False, padding_mode="border").reshape(batch, count, channels, -1)
    if reduce:
        return sampled.sum(1).mT
    return sampled.reshape(batch, count * channels, -1).mT


def sample_by_bags(planes: Tensor, coordinates: Tensor, reduce: bool) -> Tensor:
    """:func:`sample_planes` through ``embedding_bag``; differentiable in the planes only."""
    batch, count, channels, size, _ = planes.shape
    n = coordinates.shape[1]
    with torch.no_grad():
        texel = ((coordinates + 1) * (size / 2) - 0.5).clamp_(0, size - 1)
        corner = texel.floor().clamp_(max=size - 2)
        share = texel - corner
        plane = torch.arange(batch * count, dtype=torch.int32, device=planes.device).reshape(batch, 1, count) * (size * size)
        base = corner.to(torch.int32)
        first = (base[..., 1] * size + base[..., 0] + plane).reshape(-1)
        along = torch.stack([1 - share, share], -1)
        weights = (along[..., 1, :, None] * along[..., 0, None, :]).reshape(-1, 4)
    table = planes.permute(0, 1, 3, 4, 2).reshape(-1, channels).float()
    bag = 4 * count if reduce else 4
    return _WeightedRows.apply(table, first, weights, size, bag).reshape(batch, n, -1)


class _WeightedRows(torch.autograd.Function):
    """out[i] = sum over the entries e of bag i and the corners k of weights[e, k] * table[first[e] + offset[k]]."""

    @staticmethod
    def forward(ctx, table: Tensor, first: Tensor, weights: Tensor, size: int, bag: int) -> Tensor:
        ctx.save_for_backward(first, weights)
        ctx.rows, ctx.size, ctx.bag = len(table), size, bag
        rows = (first[:, None] + _corners(size, first)).reshape(-1, bag)
        return F.embedding_bag(rows, table, per_sample_weights=weights.reshape(-1, bag), mode="sum")

    @staticmethod
    def backward(ctx, grad: Tensor):
        # The transposed product. Sorting the entries by their first texel makes every texel's entries one bag; the four corners share the sort.
        first, weights = ctx.saved_tensors
        ordered, entries = first.sort()
        starts = torch.searchsorted(ordered, torch.arange(ctx.rows, dtype=ordered.dtype, device=ordered.device))
        sources, ordered_weights = entries // (ctx.bag // 4), weights[entries]
        result = torch.zeros(ctx.rows, grad.shape[-1], dtype=grad.dtype, device=grad.device)
        for k, offset in enumerate((0, 1, ctx.size, ctx.size + 1)):
            part = F.embedding_bag(sources, grad.contiguous(), starts, per_sample_weights=ordered_weights[:, k].contiguous(), mode="sum")
            result[offset:] += part[: ctx.rows - offset]
        return result, None, None, None, None


def _corners(size: int, like: Tensor) -> Tensor:
    return torch.tensor([0, 1, size, size + 1], dtype=like.dtype, device=like.device)
