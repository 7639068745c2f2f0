"""A hash grid of one scene: its entries are parameters. No input view is used."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from vcgen.encoders.base import OptimizedScene, Recipe
from vcgen.fields.hashgrid import HashGrid, HashGridField
from vcgen.schema import AtLeastOne, Count, Finite, Length
from vcgen.types import Scene, Views


class SceneHashGrid(OptimizedScene):
    """A hash grid of one scene as the field of every input view, which is not used.

    Args:
        grid: The encoding.
        half_size: Half the side of the grid's cube, in world units.
        radius: Of the sphere that the scene fits, in world units.
        center: Of cube and sphere, in world units.
        hidden: Width of the MLP.
        depth: Hidden layers of the MLP.
        blob: Height and standard deviation (world units) of the initial density's Gaussian, see :class:`HashGridField`.
        density_bias: Added to the first logit of the density, so that a negative one makes space begin nearly empty;
            then learned.
    """

    def __init__(
        self,
        grid: HashGrid,
        half_size: Length = 1.0,
        radius: Length = 1.0,
        center: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0),
        hidden: AtLeastOne = 64,
        depth: Count = 2,
        blob: tuple[Finite, Length] = (0.0, 0.2),
        density_bias: Finite = 0.0,
    ):
        super().__init__()
        if half_size <= 0 or radius <= 0 or blob[1] <= 0:
            raise ValueError(
                f"half_size, radius and the blob's width must be positive; got {half_size}, {radius}, {blob[1]}"
            )
        widths = [grid.width] + [hidden] * depth
        layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU(inplace=True))]
        last = nn.Linear(widths[-1], 4)
        with torch.no_grad():
            last.bias[0] += density_bias
        self.grid, self.decoder = grid, nn.Sequential(*layers, last)
        self.half_size, self.radius, self.blob, self.density_bias = half_size, radius, blob, density_bias
        self.register_buffer("center", torch.tensor(center))

    def forward(self, context: Views) -> HashGridField:
        """``context`` gives only the batch size."""
        return self.scene(len(context.images))

    def scene(self, batch: int = 1) -> HashGridField:
        """See :meth:`OptimizedScene.scene`."""
        center = self.center.expand(batch, 3)
        return HashGridField(
            self.grid, self.decoder, center, center.new_full((batch,), self.radius), self.half_size, self.blob
        )

    def show(self, coarse: bool) -> None:
        """See :meth:`OptimizedScene.show`: half of the grid's levels."""
        self.grid.active_levels = math.ceil(self.grid.levels / 2) if coarse else self.grid.levels

    def entries(self) -> list[nn.Parameter]:
        """See :meth:`OptimizedScene.entries`."""
        return [self.grid.table]

    @property
    def arguments(self) -> dict[str, Any]:
        """See :meth:`OptimizedScene.arguments`."""
        grid = {
            "levels": self.grid.levels,
            "features": self.grid.features,
            "log2_size": self.grid.log2_size,
            "coarsest": self.grid.sizes[0],
            "finest": self.grid.sizes[-1],
        }
        return {
            "grid": {"class_path": f"{HashGrid.__module__}.{HashGrid.__qualname__}", "init_args": grid},
            "half_size": self.half_size,
            "radius": self.radius,
            "center": self.center.tolist(),
            "hidden": self.decoder[0].out_features,
            "depth": len(self.decoder) // 2,
            "blob": list(self.blob),
            "density_bias": self.density_bias,  # as it began: the weights hold what has become of it
        }

    def recipe(self, scene: Scene, arguments: Mapping[str, Any]) -> Recipe:
        """See :meth:`Encoder.recipe`: its own, with the scene's weights."""
        field = cast(HashGridField, scene)
        parts = {"grid": field.grid, "decoder": field.decoder}
        weights = {
            f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
        }
        return Recipe(type(self), dict(arguments), {**weights, "center": field.center[0]})
