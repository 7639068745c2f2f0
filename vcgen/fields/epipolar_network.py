"""The network of epipolar transformers (LFNR, arXiv 2112.09687; GPNR, arXiv 2207.10662): what source views show along a
ray's epipolar lines becomes its color, and weights of the places where it was seen.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Transformer(nn.Module):
    """Layers of self-attention with one head and an MLP of the same width, each normalized after its sum."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(width) for _ in range(layers))

    def forward(
        self, tokens: Float[Tensor, "*batch length width"], keys: Bool[Tensor, "*batch length"]
    ) -> Float[Tensor, "*batch length width"]:
        """keys: which tokens are attended to; where none is, all are."""
        keys = keys | ~keys.any(-1, keepdim=True)
        x, mask = tokens.flatten(0, -3)[:, None], keys.flatten(0, -2)[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        return x.reshape(tokens.shape)


class TransformerLayer(nn.Module):
    """x = norm(x + attention(x)); norm(x + mlp(x))."""

    def __init__(self, width: int):
        super().__init__()
        self.attended = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU("tanh"), nn.Linear(width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (batch, 1, length, width). mask: (batch, 1, 1, length), true where a token may be attended to."""
        query, key, value = self.attended(x).chunk(3, -1)
        x = self.norms[0](x + self.mixed(F.scaled_dot_product_attention(query, key, value, mask)))
        return self.norms[1](x + self.mlp(x))


class Blend(NamedTuple):
    """What :class:`EpipolarNetwork` finds. color: (batch, rays, 3) in [0, 1], or None where it predicts none. weights:
    (batch, rays, views, points) of the places that a ray was seen at: their sum is 1, or 0 where no view shows any."""

    color: Float[Tensor, "batch rays 3"] | None
    weights: Float[Tensor, "batch rays views points"]


class EpipolarNetwork(nn.Module):
    """A ray's code and those of the places on its epipolar lines -> :class:`Blend`.

    ray: channels of a ray's code. place: channels of the parts of a place's code, see :meth:`forward`. width: of all
        tokens. layers: of each transformer. view_attention: GPNR's first transformer, over the views at every point.
    predicts: a color, beside the weights.
    """

    def __init__(self, ray: int, place: Sequence[int], width: int, layers: int, view_attention: bool, predicts: bool):
        super().__init__()
        self.place = list(place)
        self.query, self.key = nn.Linear(ray, width), nn.Linear(sum(place), width)
        self.view_query, self.view_key = nn.Linear(ray, width), nn.Linear(width, width)
        self.across_views = Transformer(width, layers) if view_attention else None
        self.along_line = Transformer(width, layers)
        self.of_views = Transformer(width, layers)
        # Published: of a key and the query beside it, whose part is the same for all keys, so that softmax drops it.
        self.point_score, self.view_score = nn.Linear(width, 1, bias=False), nn.Linear(width, 1, bias=False)
        self.color = nn.Linear(width, 3) if predicts else None

    def forward(
        self,
        ray: Float[Tensor, "batch rays code"],
        places: Sequence[Float[Tensor, "batch rays #views #points _"]],
        valid: Bool[Tensor, "batch rays views points"],
    ) -> Blend:
        """places: the parts of the places' codes; what all views or all points share has one. valid: which places a
        view shows; others are neither attended to nor weighted."""
        # the same as one layer of all parts, without a copy of what is shared
        parts = zip(places, self.key.weight.split(self.place, 1), strict=True)
        key = sum((F.linear(part, weight) for part, weight in parts), self.key.bias)
        query, by_view = self.query(ray), valid.any(-1)
        tokens = torch.cat([query[:, :, None, None].expand(-1, -1, valid.shape[2], 1, -1), key], 3)
        if self.across_views is not None:
            shown = torch.cat([by_view[..., None], valid], 3)
            tokens = self.across_views(tokens.transpose(2, 3), shown.transpose(2, 3)).transpose(2, 3)
        key = self.along_line(tokens, F.pad(valid, (1, 0), value=True))[..., 1:, :]
        of_point = masked_softmax(self.point_score(key)[..., 0], valid)
        key = self.view_key((of_point[..., None] * key).sum(3))
        tokens = torch.cat([self.view_query(ray)[:, :, None], key], 2)
        key = self.of_views(tokens, F.pad(by_view, (1, 0), value=True))[..., 1:, :]
        of_view = masked_softmax(self.view_score(key)[..., 0], by_view)
        weights = of_view[..., None] * of_point
        if self.color is None:
            return Blend(None, weights)
        return Blend(self.color((of_view[..., None] * key).sum(2)).to(ray).sigmoid(), weights)


def masked_softmax(scores: Float[Tensor, "*batch n"], mask: Bool[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Softmax over the last axis, of what the mask marks; 0 elsewhere, and everywhere if it marks nothing."""
    scores = scores.float() if scores.dtype == torch.bfloat16 else scores
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask
