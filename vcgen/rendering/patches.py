"""Training a scene on square patches of its views, on which losses can see more than single pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Tensor

from vcgen.errors import UserError
from vcgen.losses.patches import PatchLoss
from vcgen.rays import Rays
from vcgen.rendering.ray_batches import Background, color_losses, draw_rays, rays_through, shoot
from vcgen.rendering.volume import RenderOptions
from vcgen.schema import AtLeastOne, check_options
from vcgen.types import Scene, Views


@dataclass(frozen=True)
class PatchOptions:
    """Training rays that form one square patch in each target view.

    Args:
        side: Rays along a patch's side; a view has side^2 rays.
        stride: Pixels from one ray to the next.
        network: Of the loss "perceptual": "vgg", "squeeze" or "alex", found and downloaded as in `vcgen evaluate`;
            judge by another.
    """

    side: Annotated[int, Meta(ge=32, le=1024)] = 32
    stride: AtLeastOne = 1
    network: Literal["vgg", "squeeze", "alex"] = "vgg"

    @property
    def extent(self) -> int:
        """Pixels from a patch's first to its last, both counted."""
        return (self.side - 1) * self.stride + 1

    def __post_init__(self) -> None:
        check_options(self)

    def check(self, size: tuple[int, int]) -> None:
        """Raises UserError where a patch is larger than images of (height, width)."""
        if self.extent > min(size):
            found = f"a patch spans {self.extent} pixels, the images have {size[0]} x {size[1]}"
            raise UserError(f"{found}; lower model.patches.side or model.patches.stride")


def patch_losses(
    scene: Scene,
    target: Views,
    patches: PatchOptions,
    options: RenderOptions,
    generator: torch.Generator,
    background: Background,
    learned: Float[Tensor, "3"] | None,
    losses: Mapping[str, PatchLoss],
) -> dict[str, Float[Tensor, ""]]:
    """:func:`vcgen.rendering.ray_batches.ray_losses` on the rays of patches, and ``losses`` by name of the patches as
    images, over the ``learned`` color (3,) where there is one, else over white, as images are evaluated.
    """
    rendered, truth = shoot(scene, target, *draw_patches(scene, target, patches, generator), options, generator)
    behind = 1.0 if learned is None else learned
    images = [as_images(rendering.over(behind), patches.side) for rendering in (rendered, truth)]
    colors = color_losses(rendered, truth, background == "random" and target.alpha is not None, learned)
    return colors | {name: loss(*images) for name, loss in losses.items()}


def draw_patches(
    scene: Scene, target: Views, patches: PatchOptions, generator: torch.Generator
) -> tuple[Rays, Int[Tensor, "batch views rays"]]:
    """Rays (batch, views, side^2), row by row, of a patch in each view, and the pixels' indices, of the same shape.

    A patch is centered on a random pixel whose ray meets the scene's sphere, and moved into the image where it sticks
    out."""
    height, width = target.size
    center = draw_rays(scene, target, 1, generator)[1][..., 0]
    steps = torch.arange(patches.side, device=center.device) * patches.stride
    top = (center // width - patches.extent // 2).clamp(0, height - patches.extent)
    left = (center % width - patches.extent // 2).clamp(0, width - patches.extent)
    rows, columns = (first[..., None] + steps for first in (top, left))
    pixels = (rows[..., :, None] * width + columns[..., None, :]).flatten(-2)
    return rays_through(target, pixels), pixels


def as_images(colors: Float[Tensor, "batch rays 3"], side: int) -> Float[Tensor, "n 3 side side"]:
    """Colors of patches' rays (batch, views * side^2, 3) as a stack of images (batch * views, 3, side, side)."""
    return colors.reshape(-1, side, side, 3).movedim(-1, 1)
