"""Training a scene on the colors of random rays."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vcgen.rays import Rays
from vcgen.rendering.volume import RenderOptions, ray_sphere, render_rays
from vcgen.types import RayRendering, Scene, Views

Background = Literal["white", "random", "learned"]


def ray_losses(
    scene: Scene,
    target: Views,
    count: int,
    options: RenderOptions,
    generator: torch.Generator,
    background: Background = "white",
    learned: Float[Tensor, "3"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Errors on ``count`` random rays of each of the target views (batch, views).

    "rgb": mean squared error over rays and channels, both sides over the same background; "coarse" likewise for the
    scene's first pass, where it has one; and the scene's own penalties. background: see
    :class:`vcgen.systems.nerfdiff.NerfDiff`; learned: the color (3,) of "learned".
    """
    rendered, truth = shoot(scene, target, *draw_rays(scene, target, count, generator), options, generator)
    return color_losses(rendered, truth, background == "random" and target.alpha is not None, learned)


def shoot(
    scene: Scene,
    target: Views,
    rays: Rays,
    pixels: Int[Tensor, "batch views rays"],
    options: RenderOptions,
    generator: torch.Generator,
) -> tuple[RayRendering, RayRendering]:
    """What rays (batch, views, rays) see of the scene, with jittered samples, and the truth at their pixels."""
    rendering = render_rays(scene, rays.reshape(len(pixels), -1), options, generator)
    return rendering, gather_pixels(target, pixels)


def color_losses(
    rendering: RayRendering, truth: RayRendering, spread: bool, learned: Tensor | None
) -> dict[str, Float[Tensor, ""]]:
    """The losses of :func:`ray_losses`; arguments as those of :func:`squared_error`."""
    losses = {"rgb": squared_error(rendering, truth, spread, learned)}
    if rendering.coarse is not None:
        losses["coarse"] = squared_error(rendering.coarse, truth, spread, learned)
    return losses | dict(rendering.penalties or {})


def squared_error(
    rendering: RayRendering, truth: RayRendering, spread: bool, background: Tensor | None = None
) -> Float[Tensor, ""]:
    """Mean squared error over rays and channels, both sides composited over ``background`` (3,), by default white.

    spread: the expectation over backgrounds b, uniform in [0, 1], of (c - a b)^2 with the errors c of premultiplied
    color and a of opacity, c^2 - c a + a^2 / 3. Drawing b would give the same gradient plus noise.
    """
    color, opacity = rendering.rgb - truth.rgb, (rendering.alpha - truth.alpha)[..., None]
    if spread:
        return (color.square() - color * opacity + opacity.square() / 3).mean()
    return (color - opacity * (1.0 if background is None else background)).square().mean()


def draw_rays(
    scene: Scene, target: Views, count: int, generator: torch.Generator
) -> tuple[Rays, Int[Tensor, "batch views {count}"]]:
    """Rays (batch, views, count) of random pixels, and the pixels' indices, of the same shape.

    Twice as many candidates are drawn as needed and those whose ray meets the scene's sphere go first: the others teach
    nothing."""
    height, width = target.size
    batch, views = target.cameras.shape
    pixels = torch.randint(height * width, (batch, views, 2 * count), generator=generator, device=generator.device)
    rays = rays_through(target, pixels)
    entry, leave = ray_sphere(rays.reshape(batch, -1), scene.center, scene.radius)
    hits = (leave > entry).reshape(pixels.shape)
    first = hits.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :count]
    return rays.gather(first), pixels.gather(2, first)


def rays_through(views: Views, pixels: Int[Tensor, "batch views rays"]) -> Rays:
    """Rays (batch, views, rays) through the middles of pixels, by their indices."""
    height, width = views.size
    return views.cameras.rays_at(torch.stack([(pixels % width + 0.5) / width, (pixels // width + 0.5) / height], -1))


def gather_pixels(views: Views, pixels: Int[Tensor, "batch views rays"]) -> RayRendering:
    """The true color and opacity at pixel indices (batch, views, rays), as premultiplied (batch, views * rays, ...)."""
    alpha = views.coverage
    stacked = torch.cat([views.images * alpha, alpha], 2).flatten(-2)
    chosen = stacked.gather(-1, pixels[:, :, None].expand(-1, -1, 4, -1)).movedim(2, -1).flatten(1, 2)
    return RayRendering(chosen[..., :3], chosen[..., 3], torch.zeros_like(chosen[..., 3]))
