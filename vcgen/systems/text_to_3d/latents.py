"""Scenes of a text prior's latents: distilled without an encoder, decoded to be looked at (score Jacobian chaining,
arXiv 2212.00774).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.cameras import Cameras
from vcgen.diffusion.base import to_unit
from vcgen.diffusion.text_prior import TextPrior
from vcgen.encoders.base import OptimizedScene
from vcgen.errors import UserError
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.systems.text_to_3d.options import TextTo3DOptions
from vcgen.types import Behind, Field, Rendering


def refuse_light(options: TextTo3DOptions) -> None:
    """Raise ValueError for options that only colors have."""
    if options.albedo_only < 1 or options.background != "network" or options.random_background:
        raise ValueError(
            "a scene of latents can neither be lit nor stand before a color: set model.options.albedo_only to 1,"
            " model.options.background to network and random_background to 0"
        )


def require_size(options: TextTo3DOptions, prior: TextPrior) -> None:
    """Raise UserError unless random views are latents of the prior."""
    channels, side, _ = prior.latent_shape
    if (channels, side) != (4, options.render_size):
        raise UserError(
            f"latents of {prior.name} are {side} pixels wide with {channels} channels, random views"
            f" {options.render_size} with 4: set model.options.render_size to {side}, or model.scene.colors to sigmoid"
        )


def latent_views(field: Field, cameras: Cameras, side: int, options: RenderOptions, behind: nn.Module) -> Rendering:
    """Latents (batch, views, 4, side, side) that cameras (batch, views) see, over the learned background."""
    rendering = render_image(field, cameras, (side, side), options, 0.0)
    far = behind(cameras.rays(side, side).directions).mT.unflatten(-1, (side, side))
    return rendering._replace(rgb=rendering.rgb + (1 - rendering.alpha) * far)


def decode(latents: Tensor, prior: TextPrior) -> Tensor:
    """(batch, views, 4, h, w) -> images (batch, views, 3, size, size) in [0, 1]."""
    images = prior.decode(latents.flatten(0, 1).to(next(prior.vae.parameters()).dtype))
    return to_unit(images).unflatten(0, latents.shape[:2])


def in_colors(rendering: Rendering, latents: Rendering, prior: TextPrior, background: Behind) -> Rendering:
    """A rendering of a field of latents as an image over a gray level: decoded latents where ``rendering`` is opaque.

    rendering: of the size that is wanted; latents: the same views, see :func:`latent_views`.
    """
    images = decode(latents.rgb, prior)
    size = rendering.alpha.shape[-2:]
    if images.shape[-2:] != size:
        images = F.interpolate(images.flatten(0, 1), size, mode="bilinear", antialias=True).unflatten(
            0, latents.rgb.shape[:2]
        )
    return rendering._replace(rgb=images * rendering.alpha + (1 - rendering.alpha) * background)


@torch.no_grad()
def colored_scene(scene: OptimizedScene, latents: Rendering, prior: TextPrior) -> OptimizedScene:
    """The scene in colors, which renderings and meshes without the prior show: those that are linear in its latents and
    come nearest to the decoded views, in the mean square over their pixels, weighted by opacity.
    """
    wanted = F.adaptive_avg_pool2d(decode(latents.rgb, prior).flatten(0, 1), latents.rgb.shape[-1])
    rows, targets = (x.double().movedim(1, -1).flatten(0, 2) for x in (latents.rgb.flatten(0, 1), wanted))
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    weighed = rows * latents.alpha.double().reshape(-1, 1)
    slack = 1e-8 * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)  # where nothing is opaque
    return scene.colored(torch.linalg.solve(weighed.T @ rows + slack, weighed.T @ targets).float())
