"""Normals of a density, and light on it.

Score distillation of colors alone is content with a flat object that has the shape painted on; lit renderings show the
shape itself (DreamFusion, arXiv 2209.14988, section 3.2)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vcgen.cameras import Cameras
from vcgen.rays import Rays, uniform_edges
from vcgen.rendering.volume import RenderOptions, composite, ray_sphere
from vcgen.types import Field, RayRendering, Rendering

Kind = Literal["albedo", "lambertian", "textureless"]


@dataclass(frozen=True)
class Shading:
    """How a rendering is lit.

    kind: "albedo" is the field's color; "lambertian" color * (ambient + (1 - ambient) max(0, n.l)); "textureless" the
        same of white.
    light: (3,) unit vector towards the light, in the world. ambient: the light's fraction that has no direction.
    """

    kind: Kind = "albedo"
    light: Float[Tensor, "3"] | None = None
    ambient: float | Tensor = 0.1


class ShadedRendering(NamedTuple):
    """rays: what the rays see. normals: (batch, rays, 3) outward normals, weighted like colors, so shorter than 1 at
    soft surfaces; orientation: (batch, rays) weighted squares of what of them points away from the eye. Both None where
    they were not asked for. weights: (batch, rays, samples) of the samples in their ray."""

    rays: RayRendering
    normals: Float[Tensor, "batch rays 3"] | None
    orientation: Float[Tensor, "batch rays"] | None
    weights: Float[Tensor, "batch rays samples"] | None = None


def normals(field: Field, points: Float[Tensor, "batch n 3"], step: float = 1e-2) -> Float[Tensor, "batch n 3"]:
    """Outward unit normals (batch, n, 3) at points (batch, n, 3): against the gradient of the density, by central
    differences over +- ``step`` world units; 0 where the density is constant. Differentiable. Six look-ups a point."""
    offsets = step * torch.eye(3, device=points.device, dtype=points.dtype)
    # (batch, n, axis, side, 3)
    moved = torch.stack([points[..., None, :] + offsets, points[..., None, :] - offsets], -2)
    density = field.density(moved.flatten(1, 3)).reshape(moved.shape[:-1])
    return F.normalize(density[..., 1] - density[..., 0], dim=-1)


def lit(albedo: Float[Tensor, "*n 3"], normal: Float[Tensor, "*n 3"], shading: Shading) -> Float[Tensor, "*n 3"]:
    """Colors (..., 3) of albedo (..., 3) with unit normals (..., 3)."""
    if shading.kind == "albedo":
        return albedo
    color = torch.ones_like(albedo) if shading.kind == "textureless" else albedo
    if shading.light is None:
        raise ValueError(f"{shading.kind} shading needs a light")
    cosine = (normal * shading.light).sum(-1, keepdim=True).clamp(min=0)
    return color * (shading.ambient + (1 - shading.ambient) * cosine)


def light_near(eye: Float[Tensor, "3"], generator: torch.Generator) -> Float[Tensor, "3"]:
    """A unit vector towards a light near the camera, which stands at ``eye`` (3,): its direction from the origin plus
    N(0, I).
    """
    return F.normalize(eye + torch.randn(3, device=eye.device, generator=generator), dim=-1)


def render_shaded(
    field: Field,
    rays: Rays,
    options: RenderOptions,
    shading: Shading,
    generator: torch.Generator | None = None,
    with_normals: bool = True,
    step: float = 1e-2,
    least: float = 0.1,
) -> ShadedRendering:
    """As :func:`vcgen.rendering.volume.render_rays` in one pass, lit, with normals.

    Normals are looked up only at samples that contribute more to their ray than ``least`` of an even fraction, 1 /
    samples; the others are not lit. step: see :func:`normals`. Without ``with_normals`` only albedo can be shown."""
    if not with_normals and shading.kind != "albedo":
        raise ValueError(f"{shading.kind} shading needs normals")
    entry, leave = ray_sphere(rays, field.center, field.radius)
    edges = uniform_edges(entry, leave, options.samples, generator)
    middle = (edges[..., 1:] + edges[..., :-1]) / 2
    points = rays.at(middle).flatten(1, 2)
    along = rays.directions[..., None, :].expand(*middle.shape, 3).flatten(1, 2)
    density, color = field(points, along)
    density = density.reshape(middle.shape)
    rendering, weights = composite(density, color.reshape(*middle.shape, color.shape[-1]), edges)
    if not with_normals:
        return ShadedRendering(rendering, None, None, weights)
    if len(points) != 1:
        raise ValueError(f"normals are rendered of one scene at a time, not of {len(points)}")
    chosen = (weights.detach().flatten() > least / options.samples).nonzero()[:, 0]
    found = normals(field, points[:, chosen], step)
    if shading.kind != "albedo":
        color = color.index_copy(1, chosen, lit(color[:, chosen], found, shading))
        rendering, weights = composite(density, color.reshape(*middle.shape, color.shape[-1]), edges)
    normal = torch.zeros_like(points).index_copy(1, chosen, found).reshape(*middle.shape, 3)
    away = (normal * rays.directions[..., None, :]).sum(-1).clamp(min=0).square()
    return ShadedRendering(rendering, (weights[..., None] * normal).sum(-2), (weights.detach() * away).sum(-1), weights)


def shaded_image(
    field: Field,
    camera: Cameras,
    size: tuple[int, int],
    options: RenderOptions,
    shading: Shading = Shading(),
    chunk: int = 1 << 16,
) -> tuple[Rendering, Float[Tensor, "1 1 3 height width"]]:
    """What a camera (1,) sees of a field of one scene, over white, and its normals, (1, 1, 3, H, W) in [0, 1] over
    white, with 0.5 for 0.

    chunk: points per look-up, which bounds memory. Deterministic.
    """
    rays, count = camera.rays(*size), max(1, chunk // options.samples)
    parts = [
        render_shaded(field, rays[:, start : start + count], options, shading)
        for start in range(0, rays.shape[1], count)
    ]
    rgb, alpha, depth = (
        torch.cat([getattr(part.rays, name) for part in parts], 1) for name in ("rgb", "alpha", "depth")
    )
    rest = (1 - alpha)[..., None]
    normal = (
        torch.cat([part.normals for part in parts if part.normals is not None], 1) / 2 + 0.5 * alpha[..., None] + rest
    )
    rgb, normal = ((x.mT.unflatten(-1, size))[:, None] for x in (rgb + rest, normal))
    alpha, depth = (x.unflatten(-1, size)[:, None, None] for x in (alpha, depth + (1 - alpha) * rays.far))
    return Rendering(rgb, alpha, depth), normal
