"""Images -> feature volumes (GeNVS, arXiv 2304.02602): a U-Net gives every input view a volume in its own frustum."""

from collections.abc import Sequence

import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional as F

from vcgen.encoders.base import Encoder
from vcgen.errors import UserError
from vcgen.fields.feature_volume import FeatureColors, FeatureDecoder, FeatureField
from vcgen.schema import GROUPS, HEAD, AtLeastOne, Length, check_levels
from vcgen.types import Views


class FeatureVolume(Encoder):
    """Input views -> a field of features in their frusta (GeNVS, arXiv 2304.02602).

    Takes any number of views; the field is seen in color, see :class:`FeatureColors`. Only relative poses matter: no
    canonical frame is used. The scene's center is that of the first input view.

    Args:
        features: Channels of the volumes, and of the field (published: 16); at least 3, which are shown as color.
        depths: Cells of a volume along the depth (published: 64).
        hidden: Width of the MLP's two hidden layers (published: 64).
        channels: U-Net widths, finest level first (ours; published: DeepLabV3+).
        layers: Residual blocks per level.
        attention: Whether each level has self-attention, finest first; as many as ``channels``.
        patch: Pixels of the image per cell of the volume along both sides.
        distance: From the first camera to the object's center along the optical axis, in world units.
        radius: The object fits this sphere around that point, in world units; the volumes reach as far before and
            behind it.
    """

    def __init__(
        self,
        features: AtLeastOne = 16,
        depths: AtLeastOne = 64,
        hidden: AtLeastOne = 64,
        channels: Sequence[AtLeastOne] = (64, 128, 256),
        layers: AtLeastOne = 2,
        attention: Sequence[bool] = (False, True, True),
        patch: AtLeastOne = 2,
        distance: Length = 1.3,
        radius: Length = 0.51,
    ):
        super().__init__()
        if features < 3:
            raise UserError(f"FeatureVolume: features is {features}; give at least 3, which are shown as color")
        self.patch = patch
        self.side = patch * 2 ** (len(channels) - 1)
        check_levels("patch * 2 ** (levels - 1)", self.side, patch, channels, attention)
        self.depths, self.distance, self.radius = depths, distance, radius
        self.object_distance = distance
        self.unet = UNet2DModel(
            in_channels=3 * patch**2,
            out_channels=features * depths,
            layers_per_block=layers,
            attention_head_dim=HEAD,
            block_out_channels=tuple(channels),
            norm_num_groups=GROUPS,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        )
        # Colors get to their pixels' volumes by a short way, past the bottleneck (ours; published: skips).
        self.skip = nn.Conv2d(3 * patch**2, features * depths, 1)
        self.decoder = FeatureDecoder(features, hidden)

    def forward(self, context: Views) -> FeatureColors:
        """context: (batch, n) views -> fields of ``batch`` scenes. Raises UserError for images whose sides the U-Net's
        levels do not divide.
        """
        if any(side % self.side for side in context.size):
            found = "{} x {}".format(*context.size)
            raise UserError(f"FeatureVolume: images have {found} pixels; their sides must be multiples of {self.side}")
        camera = context.cameras[:, 0]
        cells = F.pixel_unshuffle(context.on(1.0).flatten(0, 1) * 2 - 1, self.patch)
        # a tensor: diffusers would copy a number to the GPU, and wait for it
        no_time = torch.zeros((), dtype=torch.long, device=cells.device)
        out = self.unet(cells, no_time).sample + self.skip(cells)
        volumes = out.unflatten(1, (-1, self.depths)).unflatten(0, context.cameras.shape)
        center = camera.centers + self.distance * camera.c2w[:, :3, 2]
        radius = torch.full_like(camera.near, self.radius)
        return FeatureField(center, radius, volumes, context.cameras, self.decoder).colors
