"""Images -> codes -> scenes: the form of SRN and LFN with an encoder."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from vcgen.encoders.base import Encoder
from vcgen.encoders.hypernetwork import CodeDecoder, Place
from vcgen.schema import GROUPS, AtLeastOne, Length
from vcgen.types import Scene, Views

#: Cells per side of the feature map that the code is read from.
CELLS = 4


class CodeEncoder(Encoder):
    """A convolutional network that gives an object's code, of which ``decoder`` makes the scene.

    Args:
        decoder: LightFieldDecoder (LFN) or SrnDecoder (SRN).
        channels: Of the convolutions of stride 2 (ours; LFN's own, in its code: ResNet-18).
        frame: Axes along which rays are described: "camera", the input view's (ours: objects need no canonical pose),
            or "world", as published, where codes of several views are averaged (ours).
        distance: From the camera to the object's center along the optical axis, in world units; for "world" the center
            is the origin.
        radius: The object fits this sphere around that point, in world units.
    """

    def __init__(
        self,
        decoder: CodeDecoder,
        channels: Sequence[AtLeastOne] = (64, 128, 256, 512),
        frame: Literal["camera", "world"] = "camera",
        distance: Length = 1.3,
        radius: Length = 0.51,
    ):
        super().__init__()
        self.decoder, self.penalties = decoder, decoder.penalties
        self.most_views = 1 if frame == "camera" else None
        self.frame, self.distance, self.radius = frame, distance, radius
        self.object_distance = distance if frame == "camera" else None
        self.convolutions = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.GroupNorm(math.gcd(GROUPS, o), o), nn.SiLU())
                for i, o in pairwise((3, *channels))
            ),
            nn.AdaptiveAvgPool2d(CELLS),
            nn.Flatten(),
        )
        self.to_code = nn.Linear(channels[-1] * CELLS**2, decoder.code)

    def forward(self, context: Views) -> Scene:
        """context: (batch, n) views -> scenes of ``batch`` objects. Raises UserError for several in the camera's
        frame.
        """
        images = context.on(1.0) * 2 - 1
        code = self.to_code(self.convolutions(images.flatten(0, 1))).unflatten(0, images.shape[:2]).mean(1)
        if self.frame == "world":
            return self.decoder(code, canonical(len(code), self.radius, images))
        camera = context.only(type(self).__name__).cameras
        center = camera.centers + self.distance * camera.c2w[:, :3, 2]
        return self.decoder(code, Place(center, torch.full_like(camera.near, self.radius), camera.c2w[:, :3, :3]))


def canonical(batch: int, radius: float, like: torch.Tensor) -> Place:
    """Objects about the world's origin, in its axes, on the device of ``like``."""
    axes = torch.eye(3, device=like.device).expand(batch, 3, 3)
    return Place(axes.new_zeros(batch, 3), axes.new_full((batch,), radius), axes)
