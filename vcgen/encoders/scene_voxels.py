"""Voxels of one scene: their entries are parameters. No input view is used."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vcgen.encoders.base import OptimizedScene, Recipe
from vcgen.fields.voxels import Colors, VoxelField, Voxels
from vcgen.schema import Finite, Length, PlaneSide
from vcgen.types import Scene, Views


class SceneVoxels(OptimizedScene):
    """Voxels of one scene as the field of every input view, which is not used.

    Args:
        size: Voxels per side.
        half_size: Half the side of their cube, in world units.
        radius: Of the sphere that the scene fits, in world units.
        center: Of cube and sphere, in world units.
        colors: What a voxel holds: the logits of a color ("sigmoid"), a color that is clamped to [0, 1] ("clamp"), or
            four numbers, a "latent" of the text prior, so that renderings need no encoder (score Jacobian chaining).
        density_bias: The density is softplus(d + density_bias) with d = 0 at the start.
        blob: Height and standard deviation (world units) of a Gaussian that is added in the softplus, so that matter
            begins in the middle.
    """

    def __init__(
        self,
        size: PlaneSide = 100,
        half_size: Length = 1.0,
        radius: Length = 1.0,
        center: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0),
        colors: Colors = "sigmoid",
        density_bias: Finite = -1.0,
        blob: tuple[Finite, Length] = (0.0, 0.2),
    ):
        super().__init__()
        if size > 512:
            raise ValueError(f"size must be at most 512, not {size}: that many voxels per side take gigabytes")
        self.voxels = Voxels(size, 4 if colors == "latent" else 3)
        self.half_size, self.radius, self.colors, self.density_bias, self.blob = (
            half_size, radius, colors, density_bias, blob,
        )  # fmt: skip
        self.register_buffer("center", torch.tensor(center))

    @property
    def latent(self) -> bool:
        """See :attr:`OptimizedScene.latent`."""
        return self.colors == "latent"

    def forward(self, context: Views) -> VoxelField:
        """``context`` gives only the batch size."""
        return self.scene(len(context.images))

    def scene(self, batch: int = 1) -> VoxelField:
        """See :meth:`OptimizedScene.scene`."""
        center = self.center.expand(batch, 3)
        radius = center.new_full((batch,), self.radius)
        return VoxelField(self.voxels, center, radius, self.half_size, self.density_bias, self.blob, self.colors)

    def entries(self) -> list[nn.Parameter]:
        """See :meth:`OptimizedScene.entries`: all there are."""
        return list(self.parameters())

    def colored(self, colors: Float[Tensor, "channels+1 3"]) -> "SceneVoxels":
        """The same scene with colors that are a linear function of its latents and 1."""
        made = SceneVoxels(**{**self.arguments, "colors": "clamp"}).to(self.center.device)
        with torch.no_grad():
            made.voxels.density.copy_(self.voxels.density)
            made.voxels.log_scale.copy_(self.voxels.log_scale)
            linear = torch.einsum("cxyz,cd->dxyz", self.voxels.features, colors[:-1])
            made.voxels.features.copy_(linear + colors[-1, :, None, None, None])
        return made

    @property
    def arguments(self) -> dict[str, Any]:
        """See :meth:`OptimizedScene.arguments`."""
        return {
            "size": self.voxels.size,
            "half_size": self.half_size,
            "radius": self.radius,
            "center": self.center.tolist(),
            "colors": self.colors,
            "density_bias": self.density_bias,
            "blob": list(self.blob),
        }

    def recipe(self, scene: Scene, arguments: Mapping[str, Any]) -> Recipe:
        """See :meth:`Encoder.recipe`: its own, with the scene's weights."""
        field = cast(VoxelField, scene)
        weights = {f"voxels.{name}": value for name, value in field.voxels.state_dict().items()}
        return Recipe(type(self), dict(arguments), {**weights, "center": field.center[0]})
