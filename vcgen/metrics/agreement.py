"""How well neighboring images of a path agree: a prior that draws each view by itself flickers."""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vcgen.cameras import Cameras
from vcgen.types import Rendering

#: Opacity from which a pixel belongs to the object.
OPAQUE = 0.9


def agreement(images: Tensor, rendering: Rendering, cameras: Cameras, tolerance: float = 0.02) -> float:
    """PSNR, in dB, between every image and the one before it on a path, moved to its camera by the scene's depth.

    The warping error of video (Lai et al. 2018, arXiv 1808.00449), with depth in place of optical flow. Only pixels
    count that are opaque in both images and show one point: its distance from the earlier camera and the depth that is
    rendered there differ by at most ``tolerance``. Images are read bilinearly, so that finely textured ones stay below
    infinity even where they agree, and blurred ones do better: compare with other images of the same path, depth and
    sharpness. nan where no pixel counts.

    Args:
        images: (views, 3, height, width) in [0, 1], along the path.
        rendering: The scene at ``cameras``, (1, views, ...), of the images' size.
        cameras: (views,).
        tolerance: World units.
    """
    height, width = images.shape[-2:]
    depth = _surface(rendering, cameras)
    rays = cameras[1:].rays(height, width)
    points = rays.origins + depth[1:].flatten(2).transpose(1, 2) * rays.directions
    uv, ahead = cameras[:-1].project(points)
    grid = (2 * uv - 1).unflatten(1, (height, width))

    def earlier(values: Tensor) -> Tensor:
        return grid_sample(values, grid, align_corners=False)

    distance = (points - cameras.centers[:-1, None]).norm(dim=-1).unflatten(1, (height, width))[:, None]
    same = (earlier(depth[:-1]) - distance).abs() <= tolerance
    opaque = (earlier(rendering.alpha[0, :-1]) > OPAQUE) & (rendering.alpha[0, 1:] > OPAQUE)
    counts = same & opaque & (ahead > 0).unflatten(1, (height, width))[:, None]
    if not bool(counts.any()):
        return math.nan
    squares = (earlier(images[:-1]) - images[1:]).double().square().mean(1, keepdim=True)
    # not a product: a point in a camera's plane has no place in its image, and reads NaN
    error = torch.where(counts, squares, 0.0).sum() / counts.sum()
    return float(-10 * torch.log10(error))


def _surface(rendering: Rendering, cameras: Cameras) -> Tensor:
    """Depth (views, 1, height, width) of what is seen, without the part of ``far`` that a rendering of less than full
    opacity has in its depth.
    """
    depth, alpha = rendering.depth[0], rendering.alpha[0]
    return (depth - (1 - alpha) * cameras.far[:, None, None, None]) / alpha.clamp(min=OPAQUE)
