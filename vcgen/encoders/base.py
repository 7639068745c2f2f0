"""The base classes of encoders."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from vcgen.errors import UserError
from vcgen.types import Example, Field, Scene, Views


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
    #: Where it takes the object's center to be, from a camera along its optical axis, world units; None: anywhere.
    object_distance: float | None = None
    #: Names of the penalties that its scenes add to a training step's losses, see :class:`vcgen.types.RayRendering`.
    penalties: tuple[str, ...] = ()

    #: Whether it knows training scenes by their keys, which changed ones must not have, too.
    knows_keys = False

    @abstractmethod
    def forward(self, context: Views) -> Scene:
        """context: (batch, n) views -> ``batch`` scenes."""

    def begin(self, keys: Sequence[str]) -> None:
        """Told, before training begins, of which scenes it will learn; to most encoders that does not matter."""

    def known(self, example: Example) -> Scene:
        """The scenes of a training batch; those of its context, unless an encoder has them by their keys."""
        return self(example.context)

    def recipe(self, scene: Scene, arguments: Mapping[str, Any]) -> Recipe:
        """The recipe of the first of some scenes that it made and that were finetuned since. arguments: its own, as in
        a model folder.

        Raises UserError where single scenes cannot be kept, as here.
        """
        raise UserError(f"a single scene of {type(self).__name__} cannot be kept: give it a method `recipe`")


class OptimizedScene(Encoder):
    """The parameters of one scene, which a system fits by rendering it: as an encoder it looks at no view.

    center: (3,) and radius of the sphere that the scene fits, world units.
    """

    center: Tensor
    radius: float

    @property
    def latent(self) -> bool:
        """Whether its colors are latents of a text prior, which are distilled without an encoder."""
        return False

    @abstractmethod
    def scene(self, batch: int = 1) -> Field:
        """The scene as it is now, given to a batch."""

    def show(self, coarse: bool) -> None:
        """Leave the fine part of the scene out, as the first steps of a fit do; here there is none."""

    @abstractmethod
    def entries(self) -> list[nn.Parameter]:
        """What of its parameters is stored by place and learns at a rate of its own, as a grid's entries; the others
        are networks'.
        """

    def colored(self, colors: Tensor) -> "OptimizedScene":
        """The same scene in colors, where it has latents. colors: (channels + 1, 3), by which a latent and 1 are
        multiplied.
        """
        raise NotImplementedError(f"{type(self).__name__} has no latents")

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The arguments of its constructor that the weights do not replace, as in a model folder."""
