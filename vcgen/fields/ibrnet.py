"""Image-based rendering (IBRNet: Wang et al., CVPR 2021, arXiv 2102.13090): the color of a sample is a blend of the
source views' colors at its projections, its density depends on how well they agree, and on the ray's other samples.

Parameter names are those of the released checkpoints (github.com/googleinterns/IBRNet).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.fields.source_views import SourceSamples, SourceViews
from vcgen.rays import Rays, importance_edges, uniform_edges
from vcgen.schema import AtLeastOne, Count, check_options
from vcgen.types import RayRendering

#: Features of a sample on its ray, and of a sample in a source view.
ALONG, IN_VIEW = 16, 32
HEADS = 4
#: Weights smaller than this are none.
LITTLE = 1e-8
#: A ray's nearest sample, relative to the farthest, where samples are uniform in inverse depth.
NEAREST = 1e-3


@dataclass(frozen=True)
class IbrSampling:
    """How IBRNet samples rays, and which source views it looks at.

    Args:
        samples: Of the first pass (published: 64).
        importance: Further ones of a second pass with a network of its own, drawn from the weights of the first, whose
            samples it also uses (published: 64); 0 means one pass.
        sources: Look only at so many source views of each ray, those at the smallest angles to its origin, seen from
            the scene's center (published: 10, the nearest cameras); null: at all.
        inverse_depth: Samples are uniform in the inverse of the distance, as published, instead of in the distance.
        interval: A sample's density counts in proportion to its interval, relative to the mean of the ray (ours), so
            that samples which stand close together count less each; false: all count alike, as published.
    """

    samples: AtLeastOne = 64
    importance: Count = 64
    sources: AtLeastOne | None = None
    inverse_depth: bool = True
    interval: bool = False

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class IbrScene:
    """A :class:`vcgen.types.RayScene` of posed views.

    center: (batch, 3), radius: (batch,) of the sphere that holds the object, in the world. views, networks: of the
        first pass and, with ``sampling.importance``, of the second.
    """

    center: Float[Tensor, "batch 3"]
    radius: Float[Tensor, " batch"]
    views: Sequence[SourceViews]
    networks: Sequence["ViewBlending"]
    sampling: IbrSampling

    @property
    def queries(self) -> int:
        """Samples of a ray in all views that it looks at."""
        count = self.views[0].cameras.shape[1]
        return (self.sampling.samples + self.sampling.importance) * min(self.sampling.sources or count, count)

    def shoot(self, rays: Rays, generator: torch.Generator | None = None) -> RayRendering:
        """See :class:`vcgen.types.RayScene`."""
        options = self.sampling
        if options.inverse_depth:
            far = rays.far.clamp(min=LITTLE)  # a ray that leads away from the sphere may end in the camera, at 0
            rays = replace(rays, near=torch.maximum(rays.near, NEAREST * far), far=far)
        edges = uniform_edges(self._scale(rays.near), self._scale(rays.far), options.samples, generator)
        coarse, weights = self._march(0, rays, edges)
        if options.importance == 0:
            return coarse
        fine = importance_edges(edges, weights.detach(), options.importance + 1, generator)[..., 1:-1]
        edges = torch.cat([edges, fine], -1).sort(-1).values
        return self._march(1, rays, edges)[0]._replace(coarse=coarse if torch.is_grad_enabled() else None)

    def _scale(self, distance: Tensor) -> Tensor:
        """What samples are uniform in, a growing function of the distance that is its own inverse."""
        return -1 / distance if self.sampling.inverse_depth else distance

    def _march(
        self, number: int, rays: Rays, edges: Float[Tensor, "batch rays n"]
    ) -> tuple[RayRendering, Float[Tensor, "batch rays n-1"]]:
        """One pass: the rays' rendering, and the weight of each sample."""
        views = self.views[number]
        middles = self._scale((edges[..., 1:] + edges[..., :-1]) / 2)
        points = rays.at(middles)
        samples = views.at(points, views.nearest(rays.origins, self.center, self.sampling.sources))
        density, color = self.networks[number](samples, view_differences(points, rays.origins, samples.eyes))
        if self.sampling.interval:
            lengths = self._scale(edges).diff(dim=-1)
            density = density * lengths / lengths.mean(-1, keepdim=True).clamp(min=LITTLE)
        weights = (density - density.cumsum(-1)).exp() * -(-density).expm1()
        rgb = (weights[..., None] * color).sum(-2)
        return RayRendering(rgb, weights.sum(-1), (weights * middles).sum(-1)), weights


def view_differences(
    points: Float[Tensor, "batch rays samples 3"],
    origins: Float[Tensor, "batch rays 3"],
    eyes: Float[Tensor, "batch rays k 3"],
) -> Float[Tensor, "batch rays k samples 4"]:
    """How the ray's eye and the source views' eyes look at a sample: the direction of the difference of the unit
    vectors to them, and their inner product.
    """
    to_origin, to_eye = (
        F.normalize(eye[..., None, :] - points[:, :, None], dim=-1) for eye in (origins[:, :, None], eyes)
    )
    inner = (to_origin * to_eye).sum(-1, keepdim=True)
    return torch.cat([F.normalize(to_origin - to_eye, dim=-1, eps=1e-6), inner], -1)


class ViewBlending(nn.Module):
    """IBRNet's network, after its feature maps: what source views show along rays -> density and color of the samples.

    Differs from the released code, as docs/fewshot_models.md lists, where that depends on views which see nothing, or
    on the number of samples.

    Args:
        features: Channels of the feature maps (published: 32).
    """

    def __init__(self, features: int = 32):
        super().__init__()
        width = 3 + features
        self.s = nn.Parameter(torch.tensor(0.2))
        self.ray_dir_fc = layers(4, 16, width, last=nn.ELU())
        self.base_fc = layers(3 * width, 64, IN_VIEW, last=nn.ELU())
        self.vis_fc = layers(IN_VIEW, IN_VIEW, IN_VIEW + 1, last=nn.ELU())
        self.vis_fc2 = layers(IN_VIEW, IN_VIEW, 1, last=nn.Sigmoid())
        self.geometry_fc = layers(2 * IN_VIEW + 1, 64, ALONG, last=nn.ELU())
        self.ray_attention = RayAttention()
        self.out_geometry_fc = layers(ALONG, ALONG, 1, last=nn.ReLU())
        self.rgb_fc = layers(IN_VIEW + 1 + 4, 16, 8, 1)
        for part in (self.base_fc, self.vis_fc, self.vis_fc2, self.geometry_fc, self.rgb_fc):
            for layer in cast(Sequence[nn.Linear], part[::2]):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self, samples: SourceSamples, differences: Float[Tensor, "batch rays k samples 4"]
    ) -> tuple[Float[Tensor, "batch rays samples"], Float[Tensor, "batch rays samples 3"]]:
        """Density >= 0 and color in [0, 1]. differences: see :func:`view_differences`."""
        valid = samples.valid[..., None].to(samples.colors)
        count = valid.sum(2)
        x = torch.cat([samples.colors, samples.features], -1) + self.ray_dir_fc(differences)
        weights = self.pooling_weights(differences[..., 3:], valid)
        x = self.base(pooled(x, weights), x)
        more, visible = self.vis_fc(x * weights).split([IN_VIEW, 1], -1)
        x = x + more
        visible = self.vis_fc2(x * visible.sigmoid() * valid).float() * valid
        weights = visible / (visible.sum(2, keepdim=True) + LITTLE)
        along = self.geometry_fc(torch.cat([pooled(x, weights), weights.sum(2) / count.clamp(min=1)], -1))
        along = self.ray_attention(along, count[..., 0] > 0)
        density = self.out_geometry_fc(along).float() * (count > 0)
        blend = self.rgb_fc(torch.cat([x, visible, differences], -1)).float()
        blend = blend.masked_fill(valid == 0, -1e9).softmax(2)
        return density[..., 0], (blend * samples.colors).sum(2)

    def pooling_weights(self, inner: Tensor, valid: Tensor) -> Tensor:
        """Weights of the views (batch, rays, k, samples, 1), of sum 1 where any is valid: the more alike its direction
        and the ray's are, the more a view counts, and the valid one that is least alike not at all, unless all are.
        """
        near = (self.s.abs() * (inner - 1)).exp()
        weights = (near - near.masked_fill(valid == 0, 1.0).amin(2, keepdim=True)) * valid + LITTLE * valid
        return weights / weights.sum(2, keepdim=True).clamp(min=LITTLE)

    def base(self, pool: Tensor, x: Tensor) -> Tensor:
        """``base_fc`` of both, one beside the other, without repeating ``pool`` (batch, rays, samples, ...) for every
        view of ``x`` (batch, rays, k, samples, ...).
        """
        first, *rest = cast(Sequence[nn.Linear], self.base_fc)
        of_pool, of_view = first.weight.split([pool.shape[-1], x.shape[-1]], 1)
        x = F.linear(x, of_view) + F.linear(pool, of_pool, first.bias)[:, :, None]
        for layer in rest:
            x = layer(x)
        return x


class RayAttention(nn.Module):
    """Self-attention among the samples of a ray, which have numbered places on it."""

    def __init__(self) -> None:
        super().__init__()
        self.w_qs, self.w_ks, self.w_vs, self.fc = (nn.Linear(ALONG, ALONG, bias=False) for _ in range(4))
        self.layer_norm = nn.LayerNorm(ALONG, eps=1e-6)

    def forward(
        self, x: Float[Tensor, "batch rays samples 16"], visible: Bool[Tensor, "batch rays samples"]
    ) -> Float[Tensor, "batch rays samples 16"]:
        """Samples that no view has seen are not looked at; where that is a whole ray, its density does not count."""
        x = x + sinusoid(x)
        looked_at = (visible | ~visible.any(-1, keepdim=True)).flatten(0, 1)[:, None, None]
        queries, keys, values = (
            layer(x).flatten(0, 1).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.w_qs, self.w_ks, self.w_vs)
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values, looked_at)
        return self.layer_norm(x + self.fc(mixed.transpose(1, 2).reshape(x.shape)))


def sinusoid(like: Float[Tensor, "*batch samples width"]) -> Float[Tensor, "samples width"]:
    """Sines and cosines of samples' numbers, interleaved, at wavelengths from 2 pi up to 10000 times that."""
    count, width = like.shape[-2:]
    number = torch.arange(count, device=like.device, dtype=torch.float32)
    exponents = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width
    angles = number[:, None] / 10000**exponents
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def pooled(
    x: Float[Tensor, "batch rays k samples channels"], weights: Float[Tensor, "batch rays k samples 1"]
) -> Float[Tensor, "batch rays samples 2*channels"]:
    """Weighted mean and variance over the views, one beside the other."""
    mean = (weights * x).sum(2, keepdim=True)
    variance = (weights * (x - mean).square()).sum(2)
    return torch.cat([mean[:, :, 0], variance], -1)


def layers(*widths: int, last: nn.Module | None = None) -> nn.Sequential:
    """Linear layers with ELUs between them, and ``last`` after them."""
    made: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        made += [nn.Linear(inputs, outputs), nn.ELU()]
    made.pop()
    return nn.Sequential(*made, last) if last else nn.Sequential(*made)
