"""Volume rendering: place samples along rays, query a field, composite through nerfacc's batched functions.

The renderer knows nothing of networks: it takes any :class:`vcgen.types.Field`, of colors or of features, and any
:class:`vcgen.types.RayScene`, which it only asks. Samples are *intervals* that tile
[near, far] without gaps, so a homogeneous medium is composited exactly whatever the number of samples (Max 1995, eq.
12).
"""

from dataclasses import dataclass, replace
from typing import Annotated

import nerfacc
import torch
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.rays import Rays, importance_edges, uniform_edges
from vcgen.schema import AtLeastOne, Length, check_options
from vcgen.types import Field, RayRendering, RayScene, Rendering, Scene

#: Of one ray: a file that asks for more is damaged.
MOST_SAMPLES = 16384


@dataclass(frozen=True)
class RenderOptions:
    """How rays are sampled.

    Args:
        samples: Intervals of the first pass, uniform (stratified when training) between the ray's entry into the
            field's sphere and its exit.
        importance: Intervals of the second pass, drawn from the weights of the first (NeRF, section 5.2); 0 means one
            pass.
        keep_coarse: The second pass also uses the first one's intervals (NeRF, pixelNeRF); otherwise only its own
            (mip-NeRF 360's proposals), and the first pass is then not differentiated unless the field has a trainable
            proposal.
        around_depth: Further intervals of the second pass, drawn from a Gaussian around the first pass's expected depth
            (pixelNeRF).
        depth_std: Standard deviation of that Gaussian, in world units.
        max_points: Upper bound on points per field query in :func:`render_image`: bounds memory, never changes the
            image. null: 2^15 on a CPU, so that a chunk stays in its cache, 2^18 on other devices.
    """

    samples: Annotated[int, Meta(ge=1, le=MOST_SAMPLES)] = 32
    importance: Annotated[int, Meta(ge=0, le=MOST_SAMPLES)] = 0
    keep_coarse: bool = False
    around_depth: Annotated[int, Meta(ge=0, le=MOST_SAMPLES)] = 0
    depth_std: Length = 0.01
    max_points: AtLeastOne | None = None

    @property
    def queries(self) -> int:
        """Look-ups of a field per ray, at most in one call."""
        first = self.samples if self.keep_coarse else 0
        return first + max(self.samples, self.importance) + self.around_depth

    def __post_init__(self) -> None:
        check_options(self)


def ray_sphere(
    rays: Rays, center: Float[Tensor, "batch 3"], radius: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch rays"], Float[Tensor, "batch rays"]]:
    """Clip rays (batch, rays) to spheres: entry and exit distance (batch, rays), equal where the ray misses.

    center: (batch, 3); radius: (batch,), may be infinite.
    """
    offset = rays.origins - center[:, None]
    half_b = (offset * rays.directions).sum(-1)
    discriminant = half_b.square() - offset.square().sum(-1) + radius[:, None].square()
    root = discriminant.clamp(min=0).sqrt()
    entry = torch.maximum(-half_b - root, rays.near)
    return entry, torch.maximum(torch.minimum(-half_b + root, rays.far), entry)


def composite(
    density: Float[Tensor, "*rays n"], color: Float[Tensor, "*rays n channels"], edges: Float[Tensor, "*rays n+1"]
) -> tuple[RayRendering, Float[Tensor, "*rays n"]]:
    """Composite intervals of constant density (..., n) and color or features (..., n, channels) between edges
    (..., n + 1); also returns weights (..., n).
    """
    start, end = edges[..., :-1], edges[..., 1:]
    weights, _, _ = nerfacc.render_weight_from_density(start, end, density)
    rgb = (weights[..., None] * color).sum(-2)
    return RayRendering(rgb, weights.sum(-1), (weights * (start + end) / 2).sum(-1)), weights


def render_rays(
    scene: Scene, rays: Rays, options: RenderOptions, generator: torch.Generator | None = None
) -> RayRendering:
    """Render rays (batch, rays): a field by sampling along them, a ray scene by asking it.

    With a generator sampling is jittered (training); without, it is deterministic. Differentiable with respect to the
    scene.
    """
    entry, leave = ray_sphere(rays, scene.center, scene.radius)
    if isinstance(scene, RayScene):
        hit = leave > entry
        rendering = scene.shoot(replace(rays, near=entry, far=leave), generator)
        return rendering._replace(
            rgb=rendering.rgb * hit[..., None], alpha=rendering.alpha * hit, depth=rendering.depth * hit
        )
    return _march(scene, rays, entry, leave, options, generator)


def _march(
    field: Field, rays: Rays, entry: Tensor, leave: Tensor, options: RenderOptions, generator: torch.Generator | None
) -> RayRendering:
    edges = uniform_edges(entry, leave, options.samples, generator)
    if options.importance == 0:
        return composite(*_query(field, rays, edges), edges)[0]
    coarse, weights = None, None
    if field.proposal is not None and torch.is_grad_enabled():
        coarse, weights = composite(*_query(field.proposal, rays, edges), edges)
        expected = coarse.depth / coarse.alpha.clamp(min=1e-6)
    else:
        with torch.no_grad():
            density = _density(field, rays, edges)
            weights, _, _ = nerfacc.render_weight_from_density(edges[..., :-1], edges[..., 1:], density)
            middle = (edges[..., 1:] + edges[..., :-1]) / 2
            expected = (weights * middle).sum(-1) / weights.sum(-1).clamp(min=1e-6)
    fine = importance_edges(edges, weights.detach(), options.importance, generator)
    if options.keep_coarse:
        parts = [edges, fine[..., 1:-1]]
        if options.around_depth:
            noise = _gaussian(expected, options.around_depth, generator) * options.depth_std
            parts.append(
                torch.minimum(torch.maximum(expected.detach()[..., None] + noise, entry[..., None]), leave[..., None])
            )
        fine = torch.cat(parts, -1).sort(-1).values
    return composite(*_query(field, rays, fine), fine)[0]._replace(coarse=coarse)


def render_image(
    scene: Scene,
    cameras: Cameras,
    size: tuple[int, int],
    options: RenderOptions,
    background: float | Tensor = 1.0,
    skip_misses: bool = True,
) -> Rendering:
    """Render whole images. cameras: (batch, views), one batch entry per scene; size: (height, width) in
    pixels.

    Rays are sampled in chunks of bounded size. Deterministic. skip_misses: sample only rays that meet the scene's
    sphere, the number of which the CPU must wait for where they are on a GPU; the image is the same without.
    """
    batch, views = cameras.shape
    rays = cameras.rays(*size).reshape(batch, -1)
    entry, leave = ray_sphere(rays, scene.center, scene.radius)
    hit = leave > entry
    count = max(1, int(hit.sum(1).max())) if skip_misses else hit.shape[1]
    # Scenes of a batch may be hit by different numbers of rays: take the hits first, pad with misses (they cost time,
    # not correctness).
    order = hit.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    per_ray = scene.queries if isinstance(scene, RayScene) else options.queries
    max_points = options.max_points or (1 << 15 if hit.device.type == "cpu" else 1 << 18)
    chunk = max(1, max_points // (per_ray * batch))
    parts = [render_rays(scene, rays.gather(index), options) for index in order.split(chunk, dim=1)]
    found = (
        torch.cat(x, 1).float()
        for x in zip(*((p.rgb, p.alpha[..., None], p.depth[..., None]) for p in parts), strict=True)
    )
    rgb, alpha, depth = (
        x.new_zeros(*rays.shape, x.shape[-1]).scatter_(1, order[..., None].expand_as(x), x) for x in found
    )
    depth = depth + (1 - alpha) * rays.far[..., None]
    rgb, alpha, depth = (x.reshape(batch, views, *size, -1).movedim(-1, 2) for x in (rgb, alpha, depth))
    return Rendering(rgb + (1 - alpha) * background, alpha, depth)


def _points(
    rays: Rays, edges: Float[Tensor, "batch rays edges"]
) -> tuple[Float[Tensor, "batch points 3"], tuple[int, ...]]:
    points = rays.at((edges[..., 1:] + edges[..., :-1]) / 2)
    return points.reshape(len(points), -1, 3), points.shape[:-1]


def _query(
    field: Field, rays: Rays, edges: Float[Tensor, "batch rays n"]
) -> tuple[Float[Tensor, "batch rays n-1"], Float[Tensor, "batch rays n-1 channels"]]:
    points, shape = _points(rays, edges)
    density, color = field(points, rays.directions[..., None, :].expand(*shape, 3).reshape(points.shape))
    return density.reshape(shape), color.reshape(*shape, color.shape[-1])


def _density(field: Field, rays: Rays, edges: Float[Tensor, "batch rays n"]) -> Float[Tensor, "batch rays n-1"]:
    if field.proposal is not None:
        return _query(field.proposal, rays, edges)[0]
    points, shape = _points(rays, edges)
    return field.density(points).reshape(shape)


def _gaussian(
    like: Float[Tensor, "*rays"], count: int, generator: torch.Generator | None
) -> Float[Tensor, "*rays {count}"]:
    """(..., count) standard normal draws; without a generator the midpoint quantiles, so that evaluation is
    deterministic.
    """
    if generator is not None:
        return torch.randn(*like.shape, count, device=like.device, dtype=like.dtype, generator=generator)
    quantile = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count
    return torch.special.ndtri(quantile).expand(*like.shape, count)
