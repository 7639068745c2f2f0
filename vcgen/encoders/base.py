"""What every encoder is."""

from abc import ABC, abstractmethod

from torch import nn

from vcgen.types import Scene, Views


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
