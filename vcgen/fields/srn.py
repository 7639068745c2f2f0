"""Scene representation networks (SRN: Sitzmann, Zollhoefer, Wetzstein, NeurIPS 2019, arXiv 1906.01618): a recurrent
network walks along a ray to the point where it meets the object, and the features there become the ray's color.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vcgen.fields.coded import CodedScene, normalized_layers, premultiplied
from vcgen.rays import Rays
from vcgen.types import RayRendering

#: The gradient of the marcher's memory is clamped to this, at each step and number (published).
MOST_GRADIENT = 10.0


class RayMarcher(nn.Module):
    """Features of a point (n, features) and a memory -> how far to go on along the ray (n,), in world units, and the
    memory after it: an LSTM cell and one linear layer (SRN, section 3.2).
    """

    def __init__(self, features: int, memory: int):
        super().__init__()
        self.lstm, self.length = nn.LSTMCell(features, memory), nn.Linear(memory, 1)
        with torch.no_grad():
            for bias in (self.lstm.bias_ih, self.lstm.bias_hh):
                bias[memory : 2 * memory] = 1  # of the forget gate

    def forward(
        self, features: Float[Tensor, "n features"], memory: tuple[Tensor, Tensor] | None
    ) -> tuple[Float[Tensor, " n"], tuple[Tensor, Tensor]]:
        """memory: None before the first step."""
        memory = self.lstm(features, memory)
        if memory[0].requires_grad:
            memory[0].register_hook(lambda gradient: gradient.clamp(-MOST_GRADIENT, MOST_GRADIENT))
        return self.length(memory[0])[:, 0], memory


def march(
    advance: Callable[[Tensor, Any], tuple[Float[Tensor, "*rays"], Any]],
    origins: Float[Tensor, "*rays 3"],
    directions: Float[Tensor, "*rays 3"],
    start: Float[Tensor, "*rays"],
    steps: int,
) -> Float[Tensor, "*rays"]:
    """The distances along rays after ``steps`` steps from ``start`` (SRN, algorithm 1).

    advance: of points (..., 3) and a memory, at first None, the lengths of the next steps and the memory after it. With
    the distance to a surface this is sphere tracing.
    """
    distance, memory = start, None
    for _ in range(steps):
        length, memory = advance(origins + distance[..., None] * directions, memory)
        distance = distance + length
    return distance


@dataclass(frozen=True)
class SrnScene(CodedScene):
    """A :class:`vcgen.types.RayScene`: per scene a network from points to features, whose layers all end in
    normalization and ReLU, and for all scenes together a marcher and a network from features to color and opacity.

    steps: of the march. start: distance from the camera, in world units, where it begins; None: where the ray enters
        the sphere.
    """

    marcher: RayMarcher
    colors: nn.Module
    steps: int
    start: float | None

    @property
    def queries(self) -> int:
        """One at each step, and one where the march ends."""
        return self.steps + 1

    def shoot(self, rays: Rays, generator: torch.Generator | None = None) -> RayRendering:
        """See :class:`vcgen.types.RayScene`. The depth is where the march ends, also outside of the sphere. Penalties:
        "latent", and "behind", the mean over rays of min(distance, 0)^2: ends behind the camera.
        """
        with torch.autocast(rays.origins.device.type, enabled=False):  # steps add up: eight bits would not do
            origins, directions = self.local(rays.origins, rays.directions)

            def advance(points: Tensor, memory: Any) -> tuple[Tensor, Any]:
                length, memory = self.marcher(normalized_layers(points, self.weights).flatten(0, 1), memory)
                return length.unflatten(0, points.shape[:2]), memory

            start = rays.near if self.start is None else torch.full_like(rays.near, self.start)
            distance = march(advance, origins, directions, start, self.steps)
            features = normalized_layers(origins + distance[..., None] * directions, self.weights)
            color, alpha = premultiplied(self.colors(features))
        penalties = {"latent": self.size, "behind": behind(distance)}
        return RayRendering(color, alpha, alpha * distance, penalties=penalties)


def behind(distance: Float[Tensor, "*rays"]) -> Float[Tensor, ""]:
    """The mean of min(distance, 0)^2."""
    return distance.clamp(max=0).square().mean()
