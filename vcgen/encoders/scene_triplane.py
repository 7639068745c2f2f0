"""A triplane of one scene: the planes are parameters. No input view is used."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from vcgen.encoders.base import Encoder, Recipe
from vcgen.fields.triplane import Projection, TriplaneDecoder, TriplaneField
from vcgen.schema import AtLeastOne, Finite, Length, NotNegative, PlaneSide
from vcgen.types import Scene, Views


class SceneTriplane(Encoder):
    """One scene on feature planes of its own: the amortized encoder's field without the encoder.

    The box has the world's axes, unless the field was taken over from elsewhere (``frame`` is stored with the weights).

    Args:
        decoder: Turns plane features into density and color.
        plane_size: Texels per side of a plane.
        plane_channels: Features per texel; the decoder's ``channels``.
        half_size: Half the side of the box that the planes span, in world units.
        radius: The scene must fit this sphere around the center, in world units.
        center: Of box and sphere, in world units.
        scale: Standard deviation of the initial planes.
        projection: "orthographic" or "perspective", see :class:`TriplaneField`.
        eye_distance: From the eye of a perspective projection to the center, in world units.
    """

    frame: Tensor

    def __init__(
        self,
        decoder: TriplaneDecoder,
        plane_size: PlaneSide = 128,
        plane_channels: AtLeastOne = 32,
        half_size: Length = 1.5,
        radius: Length = 1.5,
        center: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0),
        scale: NotNegative = 0.1,
        projection: Projection = "orthographic",
        eye_distance: Finite = 0.0,
    ):
        super().__init__()
        decoder.check_channels(plane_channels)
        self.decoder = decoder
        self.planes = nn.Parameter(scale * torch.randn(1, 3, plane_channels, plane_size, plane_size))
        self.half_size, self.radius, self.projection, self.eye_distance = half_size, radius, projection, eye_distance
        frame = torch.eye(4)
        frame[:3, 3] = torch.tensor(center)
        self.register_buffer("frame", frame)

    def forward(self, context: Views) -> TriplaneField:
        """``context`` gives only the batch size."""
        batch = len(context.images)
        frame = self.frame.expand(batch, 4, 4)
        planes: Tensor = self.planes.expand(batch, -1, -1, -1, -1)
        radius = frame.new_full((batch,), self.radius)
        return TriplaneField(planes, self.decoder, frame, self.half_size, radius, self.projection, self.eye_distance)

    def recipe(self, scene: Scene, arguments: Mapping[str, Any]) -> Recipe:
        """See :meth:`Encoder.recipe`."""
        return self.holding(scene, arguments["decoder"])

    @staticmethod
    def holding(scene: Scene, decoder: Any) -> Recipe:
        """The recipe of the first scene of a TriplaneField. decoder: its class and arguments, as in a model folder."""
        field = cast(TriplaneField, scene)
        arguments = {
            "decoder": decoder,
            "plane_size": field.planes.shape[-1],
            "plane_channels": field.planes.shape[2],
            "half_size": field.half_size,
            "radius": float(field.radius[0]),
            "projection": field.projection,
            "eye_distance": field.eye_distance,
        }
        weights = {"planes": field.planes[:1], "frame": field.frame[0]}
        weights |= {f"decoder.{name}": value for name, value in field.decoder.state_dict().items()}
        return Recipe(SceneTriplane, arguments, weights)
