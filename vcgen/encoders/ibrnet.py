"""Posed views -> a scene that blends them (IBRNet, arXiv 2102.13090)."""

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import nn

from vcgen.encoders.base import Encoder
from vcgen.encoders.res_unet import ResUNet
from vcgen.errors import UserError
from vcgen.fields.ibrnet import IbrSampling, IbrScene, ViewBlending
from vcgen.fields.source_views import SourceViews
from vcgen.schema import AtLeastOne, Length
from vcgen.types import Views


class IbrNet(Encoder):
    """IBRNet (arXiv 2102.13090): several posed views of a scene -> :class:`IbrScene`, which blends their colors.

    With one view all samples have its colors, and nothing says how deep they lie: give three at least.

    Args:
        sampling: How rays are sampled, and which views they look at.
        features: Channels of each pass's feature maps (published: 32).
        widths: Channels of the feature network's three stages (published: 64, 128, 256).
        blocks: Residual blocks of each stage (published: 3, 4, 6).
        stride: Pixels per cell of the feature maps, 4 (published) or 2.
        radius: Rays that miss this sphere around the world's origin see the background, in world units; null: samples
            lie in all of [near, far], as published.
    """

    def __init__(
        self,
        sampling: IbrSampling = IbrSampling(),
        features: AtLeastOne = 32,
        widths: Sequence[AtLeastOne] = (64, 128, 256),
        blocks: Sequence[AtLeastOne] = (3, 4, 6),
        stride: Literal[2, 4] = 4,
        radius: Length | None = None,
    ):
        super().__init__()
        if len(widths) != 3 or len(blocks) != 3:
            raise UserError(
                f"IbrNet: widths has {len(widths)} numbers and blocks {len(blocks)}; give three, one per stage"
            )
        self.sampling, self.stride = sampling, stride
        self.radius = math.inf if radius is None else radius
        passes = 2 if sampling.importance else 1
        self.feature_net = ResUNet(passes * features, widths, blocks, stride)
        self.networks = nn.ModuleList(ViewBlending(features) for _ in range(passes))

    def forward(self, context: Views) -> IbrScene:
        """context: (batch, n) views. Transparent views are put on white."""
        if min(context.size) < (least := 4 * self.stride + 1):
            raise UserError(
                "IbrNet: images have {} x {} pixels;".format(*context.size)
                + f" with stride {self.stride} they need at least {least} a side"
            )
        images = context.on(1.0)
        features = self.feature_net(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        views = [SourceViews(images, maps, context.cameras) for maps in features.chunk(len(self.networks), 2)]
        center = context.cameras.centers.new_zeros(len(images), 3)
        radius = torch.full_like(center[:, 0], self.radius)
        return IbrScene(center, radius, views, cast(Sequence[ViewBlending], self.networks), self.sampling)
