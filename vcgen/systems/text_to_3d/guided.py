"""What guidance is told of random views (texts, noise levels), and how a scene follows it (loss, optimizer)."""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.cameras import Cameras
from vcgen.data.viewpoints import STEEP, relative_angles, view_word
from vcgen.diffusion.base import to_signed
from vcgen.diffusion.perp_neg import OtherViews, view_weights
from vcgen.diffusion.text_prior import TextCondition, TextPrior
from vcgen.encoders.base import OptimizedScene
from vcgen.guidance.base import Guidance
from vcgen.losses.course import value_at
from vcgen.losses.scene import distance_to_targets
from vcgen.rendering.shading import ShadedRendering
from vcgen.systems.text_to_3d.options import TextTo3DOptions
from vcgen.types import Views


def holding(view: Views, center: Tensor, radius: float) -> Views:
    """A view (1, 1) whose near and far hold all of a sphere, as those of random views do; farther apart than they were,
    if at all.
    """
    cameras = view.cameras
    distance = (cameras.centers - center).norm(dim=-1)
    near = torch.minimum(cameras.near, (distance - radius).clamp(min=0.01))
    return replace(view, cameras=replace(cameras, near=near, far=torch.maximum(cameras.far, distance + radius)))


def words_of(cameras: Cameras, reference: Cameras, center: Tensor) -> list[str]:
    """What the sides that cameras (n,) see are called; the reference (1,) sees the front."""
    angles = relative_angles(cameras, reference, center)
    return [view_word(azimuth, elevation) for azimuth, elevation in torch.stack(angles, 1).tolist()]


def condition_of(
    tables: tuple[dict[str, Tensor], dict[str, Tensor]],
    perp_neg: float,
    cameras: Cameras,
    reference: Cameras,
    center: Tensor,
) -> tuple[TextCondition, list[str]]:
    """What a text prior is told of what cameras (n,) see, and the words of these sides, see :func:`words_of`.

    tables: for every word of VIEWS the text, and what guidance leads away from, (1, length, width) each. perp_neg: the
    scale of Perp-Neg's weights; above 0 the texts of front, side and back are mixed by the azimuth, except where a
    camera looks from steeply above or below.
    """
    words = words_of(cameras, reference, center)
    texts, against = (torch.cat([table[word] for word in words]) for table in tables)
    if not perp_neg:
        return TextCondition(texts, against), words
    azimuth, elevation = relative_angles(cameras, reference, center)
    mixture, weights = view_weights(azimuth)
    steep = elevation.abs() > STEEP
    views = torch.cat([tables[0][view] for view in ("front", "side", "back")])
    texts = torch.where(steep[:, None, None], texts, torch.einsum("nv,vlw->nlw", mixture, views))
    weights = perp_neg * weights.masked_fill(steep[:, None], 0.0)
    return TextCondition(texts, against, OtherViews(views[:2].expand(len(words), -1, -1, -1), weights)), words


def losses_of_views(
    guidance: Guidance, views: list[ShadedRendering], texts: list[str], progress: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """The losses of a guidance that is shown "views", which are square."""
    size = round(views[0].rays.alpha.shape[-1] ** 0.5)
    color = torch.cat([one.rays.rgb.mT for one in views]).unflatten(-1, (size, size))
    alpha = torch.cat([one.rays.alpha[:, None] for one in views]).unflatten(-1, (size, size))
    with torch.autocast(color.device.type, enabled=False):
        return guidance.view_losses(color, alpha, texts, progress, generator)


def at_levels(guidance: Guidance, options: TextTo3DOptions, progress: float) -> Guidance:
    """A guidance with the noise levels that the options ask for when the fraction ``progress`` of the run is over."""
    end, low = options.noise_end, options.noise_low
    lowest = None if low is None else value_at(low, progress)
    if isinstance(end, list):
        return guidance.annealed(1.0, value_at(end, progress), lowest)
    if end is None:  # its own highest level stays
        return guidance if lowest is None else guidance.annealed(0.0, 1.0, lowest)
    return guidance.annealed(progress, end, lowest)


def refuse_levels(guidance: Guidance, options: TextTo3DOptions) -> None:
    """Raise ValueError for noise levels that are impossible at the run's ends, or at a point of their courses."""
    courses = [course for course in (options.noise_end, options.noise_low) if isinstance(course, list)]
    points = {0.0, 1.0, *(point for course in courses for point, _ in course)}
    for progress in points | {math.nextafter(point, 0.0) for point in points}:  # before a step, too
        at_levels(guidance, options, progress)


def decoded_distance(prior: TextPrior, images: Tensor, targets: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    """Half the squared distance of images (n, 3, s, s) in [0, 1], as [-1, 1], to those that targets, latents of the
    prior, decode to (the images' term of HiFA, arXiv 2305.18766); see :func:`distance_to_targets`.
    """
    with torch.no_grad():
        decoded = prior.decode(targets).clamp(-1, 1)
        if decoded.shape[-2:] != images.shape[-2:]:
            decoded = F.interpolate(decoded, images.shape[-2:], mode="bilinear", antialias=True)
    return distance_to_targets(to_signed(images), decoded, reduction)


def scene_optimizer(
    scene: OptimizedScene, background: nn.Module, guidance: Guidance, options: TextTo3DOptions
) -> torch.optim.Optimizer:
    """Adam as Instant-NGP has it: a grid's gradients are small, and its entries learn at their own rate."""
    entries = scene.entries()
    stored = set(map(id, entries))
    networks = [*(p for p in scene.parameters() if id(p) not in stored), *background.parameters()]
    slow = {"params": networks, "lr": options.network_lr}
    fast = {"params": entries, "lr": options.grid_lr}
    return torch.optim.Adam([fast, slow, *guidance.parameter_groups()], betas=(0.9, 0.99), eps=1e-15)
