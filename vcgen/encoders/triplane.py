"""Image -> triplane, the amortized part of NerfDiff (arXiv 2302.10109, section 3.1): a U-Net; planes aligned with the
input camera.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.cameras import Cameras
from vcgen.encoders.base import Encoder, Recipe
from vcgen.fields.pooled import PooledTriplanes, pooled
from vcgen.fields.triplane import Projection, TriplaneDecoder, TriplaneField
from vcgen.schema import GROUPS, HEAD, AtLeastOne, Length, PlaneSide, check_levels
from vcgen.types import Scene, Views


class TriplaneEncoder(Encoder):
    """One input view -> :class:`TriplaneField` in that view's camera space (NerfDiff, arXiv 2302.10109, section 3.1).

    Several, of cameras that look at one point, give a field each, which are pooled (ours, see
    :class:`PooledTriplanes`). Only relative poses matter: no canonical frame is used. A perspective view of the sphere
    is wider than the sphere: ``half_size`` should be at least radius / sqrt(1 - (radius / distance)^2).

    Args:
        decoder: Turns plane features into density and color.
        plane_size: Texels per side of a plane, R.
        plane_channels: Features per texel; the decoder's ``channels``.
        channels: U-Net widths, finest level first.
        layers: Residual blocks per level.
        attention: Whether each level has self-attention, finest first; as many as ``channels``.
        patch: Pixels per U-Net cell: the U-Net runs at plane_size / patch, and planes are un-shuffled from its output.
        distance: From the camera to the object's center along the optical axis, in world units.
        radius: The object fits this sphere around that point, in world units.
        half_size: Half the side of the box that the planes span, in world units.
        projection: How points are projected onto the planes that face the camera: "orthographic" or "perspective".
    """

    def __init__(
        self,
        decoder: TriplaneDecoder,
        plane_size: PlaneSide = 64,
        plane_channels: AtLeastOne = 32,
        channels: Sequence[AtLeastOne] = (64, 128, 192),
        layers: AtLeastOne = 2,
        attention: Sequence[bool] = (False, True, True),
        patch: AtLeastOne = 2,
        distance: Length = 1.3,
        radius: Length = 0.51,
        half_size: Length = 0.56,
        projection: Projection = "orthographic",
    ):
        super().__init__()
        decoder.check_channels(plane_channels)
        check_levels("plane_size", plane_size, patch, channels, attention)
        self.decoder = decoder
        self.plane_size, self.plane_channels, self.patch = plane_size, plane_channels, patch
        self.distance, self.radius, self.half_size, self.projection = distance, radius, half_size, projection
        self.object_distance = distance
        self.unet = UNet2DModel(
            sample_size=plane_size // patch,
            in_channels=3 * patch**2,
            out_channels=3 * plane_channels * patch**2,
            layers_per_block=layers,
            attention_head_dim=HEAD,
            block_out_channels=tuple(channels),
            norm_num_groups=GROUPS,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        )

        # The (x, y) plane lies on the image: its colors get there by a short way, past the bottleneck (ours).
        self.skip = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, plane_channels, 3, padding=1)
        )

    def forward(self, context: Views) -> TriplaneField | PooledTriplanes:
        """context: (batch, n) views -> a field of ``batch`` scenes."""
        count = context.cameras.shape[1]
        fields = self.field_of(context.reshape(-1))
        return fields if count == 1 else pooled(fields, count)

    def field_of(self, view: Views) -> TriplaneField:
        """view: (batch,) views -> a field of ``batch`` scenes."""
        camera = view.cameras
        image = self.resample(view.on(1.0), camera)
        signed = image * 2 - 1
        # a tensor: diffusers would copy a number to the GPU, and wait for it
        no_time = torch.zeros((), dtype=torch.long, device=signed.device)
        out = self.unet(F.pixel_unshuffle(signed, self.patch), no_time).sample
        xy, xz, yz = F.pixel_shuffle(out, self.patch).unflatten(1, (3, self.plane_channels)).unbind(1)
        planes = torch.stack([xy + self.skip(signed), xz, yz], 1)
        frame = camera.c2w.clone()
        frame[:, :3, 3] = camera.centers + self.distance * camera.c2w[:, :3, 2]
        radius = torch.full_like(camera.near, self.radius)
        return TriplaneField(planes, self.decoder, frame, self.half_size, radius, self.projection, self.distance)

    def recipe(self, scene: Scene, arguments: Mapping[str, Any]) -> Recipe:
        """See :meth:`Encoder.recipe`: that of a SceneTriplane."""
        from vcgen.encoders.scene_triplane import SceneTriplane

        return SceneTriplane.holding(scene, arguments["decoder"])

    def resample(self, image: Tensor, camera: Cameras) -> Tensor:
        """Crop (batch, 3, H, W) to what the box's middle plane spans, plane_size x plane_size.

        The image then lies on the (x, y) plane, whatever the focal length.
        """
        steps = (torch.arange(self.plane_size, device=image.device, dtype=image.dtype) + 0.5) / self.plane_size * 2 - 1
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        focal = torch.stack([camera.K[:, 0, 0], camera.K[:, 1, 1]], -1)[:, None, None]
        uv = torch.stack([x, y], -1) * self.half_size / self.distance * focal + camera.K[:, None, None, :2, 2]
        return F.grid_sample(image, uv * 2 - 1, align_corners=False, padding_mode="border")
