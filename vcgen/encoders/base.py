"""What every encoder is."""

from abc import ABC, abstractmethod

from torch import nn

from vcgen.types import Field, Views


class Encoder(nn.Module, ABC):
    """What turns posed views into a scene: the part of a system that a configuration, or a model folder, chooses by its
    class. Scenes that hold one object's parameters are encoders, too, which do not look at the views.
    """

    #: Input views of a scene that it can look at; None: any number.
    most_views: int | None = None

    @abstractmethod
    def forward(self, context: Views) -> Field:
        """context: (batch, n) views -> ``batch`` scenes."""
