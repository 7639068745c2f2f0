"""Small images for a report: photographs, error maps and depth maps as PNGs inside the page."""

import base64
import io

import torch
from torch import Tensor

#: Error maps are white at 0 and reach the last color at this mean absolute difference over the channels, range 1.
ERROR_SCALE = 0.5
_ERROR_COLORS = torch.tensor([[1.0, 1.0, 1.0], [0.99, 0.80, 0.55], [0.90, 0.33, 0.22], [0.45, 0.04, 0.15]])
_DEPTH_COLORS = torch.tensor([[0.99, 0.91, 0.15], [0.13, 0.57, 0.55], [0.27, 0.0, 0.33]])


def data_address(image: Tensor) -> str:
    """(3, height, width) in [0, 1] -> a ``data:`` address holding the image as PNG."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def error_map(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of two (3, height, width) images as colors, white for none."""
    return _color((prediction - truth).abs().mean(0) / ERROR_SCALE, _ERROR_COLORS)


def depth_map(depth: Tensor, alpha: Tensor) -> Tensor:
    """(1, height, width) distances as colors, yellow near to violet far over the range that is seen; white where alpha
    is 0.
    """
    seen = depth[alpha > 0.5]
    if len(seen) == 0 or seen.max() == seen.min():
        return torch.ones(3, *depth.shape[-2:])
    scaled = (depth[0] - seen.min()) / (seen.max() - seen.min())
    return _color(scaled, _DEPTH_COLORS) * alpha + (1 - alpha)


def _color(values: Tensor, colors: Tensor) -> Tensor:
    """(height, width) values, clamped to [0, 1], along a path of (n, 3) colors -> (3, height, width)."""
    position = values.clamp(0, 1) * (len(colors) - 1)
    below = position.floor().long().clamp(max=len(colors) - 2)
    fraction = (position - below)[..., None]
    return (colors[below] * (1 - fraction) + colors[below + 1] * fraction).permute(2, 0, 1)
