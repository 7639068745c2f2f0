"""What guidance is told of random views, and how a scene follows it."""

import torch
from torch import Tensor, nn

from vcgen.cameras import Cameras
from vcgen.data.viewpoints import STEEP, relative_angles, view_word
from vcgen.diffusion.perp_neg import OtherViews, view_weights
from vcgen.diffusion.text_prior import TextCondition
from vcgen.encoders.base import OptimizedScene
from vcgen.guidance.base import Guidance
from vcgen.rendering.shading import ShadedRendering
from vcgen.systems.text_to_3d.options import TextTo3DOptions


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
    guidance: Guidance, seen: list[ShadedRendering], texts: list[str], progress: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Those of a guidance that is shown "views"; they are square."""
    size = round(seen[0].rays.alpha.shape[-1] ** 0.5)
    color = torch.cat([one.rays.rgb.mT for one in seen]).unflatten(-1, (size, size))
    alpha = torch.cat([one.rays.alpha[:, None] for one in seen]).unflatten(-1, (size, size))
    with torch.autocast(color.device.type, enabled=False):
        return guidance.view_losses(color, alpha, texts, progress, generator)


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
