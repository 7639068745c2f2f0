"""One scene as the run that fitted it showed it: what that run skipped as empty is empty. No input view is used."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from vcgen.encoders.base import Encoder, OptimizedScene, Recipe
from vcgen.fields.occupancy import ShownField
from vcgen.schema import PlaneSide
from vcgen.types import Finetunable, Scene, Views


class ShownScene(Encoder):
    """A scene and where it is seen: what a run that skips empty space leaves behind.

    Seen are cells of a cube around its sphere; to begin with, all.

    Args:
        scene: The scene.
        cells: Per side of the cube.
    """

    seen: Bool[Tensor, "cells cells cells"]

    def __init__(self, scene: OptimizedScene, cells: PlaneSide = 48):
        super().__init__()
        self.inner = scene
        self.register_buffer("seen", torch.ones((cells,) * 3, dtype=torch.bool))

    def forward(self, context: Views) -> ShownField:
        """``context`` gives only the batch size."""
        return self.scene(len(context.images))

    def scene(self, batch: int = 1) -> ShownField:
        """The scene, given to a batch."""
        return ShownField(cast(Finetunable, self.inner.scene(batch)), self.seen)

    @classmethod
    def of(cls, scene: OptimizedScene, seen: Bool[Tensor, "cells cells cells"]) -> "ShownScene":
        """A scene that is seen in these cells, indexed [x, y, z]."""
        made = cls(scene, len(seen))
        made.seen = seen
        return made

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of its constructor, as in a model folder."""
        kind = type(self.inner)
        inner = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": self.inner.arguments}
        return {"scene": inner, "cells": len(self.seen)}

    def recipe(self, scene: Scene, arguments: Mapping[str, Any]) -> Recipe:
        """See :meth:`Encoder.recipe`: its own, with the scene's weights."""
        field = cast(ShownField, scene)
        inner = self.inner.recipe(field.field, arguments["scene"]["init_args"])
        weights = {f"inner.{name}": value for name, value in inner.weights.items()}
        return Recipe(type(self), dict(arguments), {**weights, "seen": field.seen})
