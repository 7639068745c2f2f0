"""Views -> epipolar transformers (LFNR, arXiv 2112.09687; GPNR, arXiv 2207.10662): one convolution describes the
surroundings of every pixel, all else is asked by ray.
"""

import math
from typing import Literal

import torch
from torch import nn

from vcgen.encoders.base import Encoder
from vcgen.fields.epipolar import POINT, POSE, RAY, EpipolarScene
from vcgen.fields.epipolar_network import EpipolarNetwork
from vcgen.fields.source_views import SourceViews
from vcgen.schema import AtLeastOne, Length
from vcgen.types import Views


class EpipolarEncoder(Encoder):
    """Epipolar transformers (GPNR, arXiv 2207.10662; LFNR, arXiv 2112.09687): views -> :class:`EpipolarScene`.

    With ``view_attention`` and ``canonical`` it is Generalizable Patch-Based Neural Rendering (GPNR), without both
    Light Field Neural Rendering (LFNR).

    Differs from the papers in what is said to be ours.

    Args:
        view_attention: A transformer over the views at every point comes first (GPNR).
        canonical: Rays, points and cameras are described in the frame of the ray that is rendered (GPNR), and the
            poses of the source cameras too; false: along the world's axes, so that objects need canonical poses
            (LFNR; Pluecker coordinates there are ours).
        color: "predicted" by a linear layer, with the blend of source pixels as a second output that is trained, too
            (published code), or the blend itself, "blended", which has learned to see after far fewer steps (ours).
        points: On a ray, evenly spaced between its entry into the sphere and its exit (published: 127 for GPNR, 191
            for LFNR).
        width: Of the transformers' tokens (published: 256).
        layers: Of each transformer (published: 8).
        features: Channels of the convolution that describes a pixel's surroundings (published: 32).
        patch: Its side in pixels, odd (published: 11 for GPNR, 5 for LFNR).
        sources: Input views that a ray looks at, those at the smallest angles to its origin; null: all (published: 10
            drawn from the 20 nearest).
        distance: From a camera to the object's center along the optical axis, in world units; null: the center is the
            world's origin. The mean over cameras is taken.
        radius: The object fits this sphere around that point, in world units; null: everything between near and far.
    """

    def __init__(
        self,
        view_attention: bool = True,
        canonical: bool = True,
        color: Literal["predicted", "blended"] = "predicted",
        points: AtLeastOne = 127,
        width: AtLeastOne = 256,
        layers: AtLeastOne = 8,
        features: AtLeastOne = 32,
        patch: AtLeastOne = 11,
        sources: AtLeastOne | None = None,
        distance: Length | None = 1.3,
        radius: Length | None = 0.51,
    ):
        super().__init__()
        if patch % 2 == 0:
            raise ValueError(f"patch must be odd, so that a pixel is in its middle; {patch} is even")
        self.canonical, self.points, self.sources = canonical, points, sources
        self.distance, self.radius = distance, math.inf if radius is None else radius
        self.object_distance = distance
        self.surroundings = nn.Conv2d(3, features, patch, padding=patch // 2)
        place = [RAY, POINT, features, 3] + ([POSE] if canonical else [])
        self.network = EpipolarNetwork(RAY, place, width, layers, view_attention, color == "predicted")

    def forward(self, context: Views) -> EpipolarScene:
        """context: (batch, n) views -> scenes of ``batch`` objects. Transparent views are put on white."""
        images, cameras = context.on(1.0), context.cameras
        features = self.surroundings(images.flatten(0, 1)).relu().unflatten(0, images.shape[:2]).to(images)
        sources = SourceViews(images, torch.cat([features, context.coverage], 2), cameras)
        center = torch.zeros_like(cameras.centers[:, 0])
        if self.distance is not None:
            center = (cameras.centers + self.distance * cameras.c2w[..., :3, 2]).mean(1)
        radius = torch.full_like(center[:, 0], self.radius)
        return EpipolarScene(center, radius, sources, self.network, self.points, self.sources, self.canonical)
