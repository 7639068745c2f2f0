"""What every encoder is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from vcgen.errors import UserError
from vcgen.types import Scene, Views


class Recipe(NamedTuple):
    """How to build an encoder that gives one certain scene whatever it is shown: its class, arguments as in a model
    folder, and weights.
    """

    kind: "type[Encoder]"
    init_args: dict[str, Any]
    weights: dict[str, Tensor]


class Encoder(nn.Module, ABC):
    """What turns posed views into a scene: the part of a system that a configuration, or a model folder, chooses by its
    class. Scenes that hold one object's parameters are encoders, too, which do not look at the views.
    """

    #: Input views of a scene that it can look at; None: any number.
    most_views: int | None = None
    #: Names of the penalties that its scenes add to a training step's losses, see :class:`vcgen.types.RayRendering`.
    penalties: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, context: Views) -> Scene:
        """context: (batch, n) views -> ``batch`` scenes."""

    def recipe(self, scene: Scene, arguments: Mapping[str, Any]) -> Recipe:
        """Of the first of scenes that it made and that were finetuned since. arguments: its own, as in a model folder.

        Raises UserError where single scenes cannot be kept, as here.
        """
        raise UserError(f"a single scene of {type(self).__name__} cannot be kept: give it a method `recipe`")
