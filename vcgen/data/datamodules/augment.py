"""New scenes from old: changes that keep a multi-view scene consistent, made to all its views alike."""

from dataclasses import dataclass

import torch

from vcgen.cameras import Cameras
from vcgen.types import Views


@dataclass(frozen=True)
class Augmentation:
    """Which changes a training stream makes at random. mirror: half the scenes are mirrored; permute_colors: channels
    in random order.
    """

    mirror: bool = False
    permute_colors: bool = False

    def __call__(self, views: Views, generator: torch.Generator) -> Views:
        """Change a scene, drawing equally many random numbers whatever the switches."""
        coin, order = torch.rand((), generator=generator), torch.randperm(3, generator=generator)
        if self.mirror and coin < 0.5:
            views = mirror(views)
        return permute_colors(views, order.tolist()) if self.permute_colors else views


def mirror(views: Views) -> Views:
    """The scene's mirror image in the world's plane x = 0: images flipped left to right, camera positions and axes
    reflected.

    With S = diag(-1, 1, 1, 1) the mirrored camera is S c2w S, again a proper rotation; the principal point moves to 1 -
    cx."""
    signs = torch.tensor([-1.0, 1.0, 1.0, 1.0]).to(views.cameras.c2w)
    K = views.cameras.K.clone()
    K[..., 0, 2] = 1 - K[..., 0, 2]
    cameras = Cameras(views.cameras.c2w * signs[:, None] * signs, K, views.cameras.near, views.cameras.far)
    return Views(views.images.flip(-1), cameras, None if views.alpha is None else views.alpha.flip(-1))


def permute_colors(views: Views, order: list[int]) -> Views:
    """Swap the color channels of all views: order [2, 1, 0] makes a red car blue."""
    return Views(views.images[..., order, :, :], views.cameras, views.alpha)
