"""A system whose field is known in closed form: a ball that shows its surface normals as colors."""

import torch
from torch import Tensor, nn

from vcgen.cameras import Cameras
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.systems.base import FieldSystem
from vcgen.types import Example, Rendering, Views


class Balls:
    """Balls with a soft skin: density = peak / (1 + exp(distance outside / skin)).

    The color at a point is (1 + normal) / 2 of the nearest ball, times ``tint``.
    """

    proposal = None

    def __init__(
        self,
        middles: Tensor,
        radii: Tensor,
        density: float = 200.0,
        tint: Tensor | float = 1.0,
        bound: float = 0.5,
        skin: float = 1e-3,
    ):
        self.middles, self.radii, self.peak, self.tint, self.skin = middles, radii, density, tint, skin
        self.center, self.radius = torch.zeros(1, 3), torch.full((1,), bound)

    def _nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        offsets = points[..., None, :] - self.middles
        outside = offsets.norm(dim=-1) - self.radii
        distance, index = outside.min(-1)
        return distance, offsets.gather(-2, index[..., None, None].expand(*index.shape, 1, 3))[..., 0, :]

    def density(self, points: Tensor) -> Tensor:
        return self.peak * torch.sigmoid(-self._nearest(points)[0] / self.skin)

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        normal = nn.functional.normalize(self._nearest(points)[1], dim=-1)
        return self.density(points), ((1 + normal) / 2 * self.tint).expand_as(points)


class BallSystem(FieldSystem):
    """Offers the contract of a system; ``size`` and ``tint`` are trainable, ``steps`` is a buffer."""

    def __init__(self, density: float = 200.0, size: float = 0.3):
        super().__init__(OptimizerOptions(), {})
        self.density = density
        self.size = nn.Parameter(torch.tensor([size]))
        self.tint = nn.Parameter(torch.ones(3))
        self.register_buffer("steps", torch.zeros(1))

    def field(self, context: Views) -> Balls:
        self.seen = context
        return Balls(torch.zeros(1, 3), self.size, self.density, self.tint)

    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        return {}

    def render(self, field: Balls, cameras: Cameras, size: tuple[int, int], background: float = 1.0) -> Rendering:
        return render_image(field, cameras, size, RenderOptions(samples=96), background=background)
