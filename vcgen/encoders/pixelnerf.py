"""pixelNeRF (Yu, Ye, Tancik, Kanazawa, CVPR 2021, arXiv 2012.02190): image features at the projections of a point, then
an MLP.

The published network, written anew: :class:`PixelNerf` turns context views into a :class:`PixelField`, which holds all
state. Parameter names are those of the released checkpoints (github.com/sxyu/pixel-nerf), which have some more that the
network never uses (``encoder.model.layer4``, ``code``). Their rays pass through the upper left corners of pixels, ours
through the centers; either way pixel (i, j) samples the feature that the first convolution centered on pixel (i, j).
"""

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vcgen.cameras import Cameras, rotate
from vcgen.encoders.base import Encoder
from vcgen.errors import UserError
from vcgen.fields.source_views import look_up
from vcgen.schema import AtLeastOne
from vcgen.types import Views

logger = logging.getLogger(__name__)

#: Channels of conv1 and layers 1 to 3 of ResNet-34, concatenated.
FEATURES = 64 + 64 + 128 + 256
OCTAVES = 6
BASE_FREQUENCY = 1.5
#: Encoded position (39) and plain view direction (3).
QUERY = 3 * (1 + 2 * OCTAVES) + 3


class PixelNerf(Encoder):
    """pixelNeRF (arXiv 2012.02190): views of a scene -> :class:`PixelField`.

    Args:
        first_pool: Keep ResNet's first max-pooling; published: true for SRN at 128 x 128, false for NMR at 64 x 64.
        pretrained: A torchvision ResNet-34 state dict (``.pth``), such as the ImageNet weights the published model
            starts from; null starts from *random* weights, which differs from the published model and learns more
            slowly.
        width: Hidden units of the two MLPs; published: 512.
        radius: The field is empty farther than this from the world's origin, in world units; null keeps everything in
            [near, far].
    """

    def __init__(
        self,
        first_pool: bool = True,
        pretrained: str | None = None,
        width: AtLeastOne = 512,
        radius: float | None = None,
    ):
        super().__init__()
        if radius is not None and not 0 < radius < math.inf:
            raise UserError(
                f"PixelNerf: radius is {radius}; give a positive number of world units, or null for no limit"
            )
        self.radius = math.inf if radius is None else radius
        self.encoder = SpatialEncoder(first_pool, pretrained)
        self.mlp_coarse = ResnetFC(width)
        self.mlp_fine = ResnetFC(width)

    def forward(self, context: Views) -> "PixelField":
        """Encode ``context``, batch shape (batch, n); the published benchmark has n = 1. Transparent views are put on
        white.
        """
        images = context.on(1.0)
        if images.ndim != 5:
            raise ValueError(
                f"PixelNerf: context images are {tuple(images.shape)}; expected (batch, views, 3, height, width)"
            )
        features = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        center = context.cameras.centers.new_zeros(len(images), 3)
        radius = torch.full_like(center[:, 0], self.radius)
        coarse = PixelField(center, radius, None, self.mlp_coarse, features, context.cameras, context.size)
        return PixelField(center, radius, coarse, self.mlp_fine, features, context.cameras, context.size)


@dataclass(frozen=True)
class PixelField:
    """A :class:`vcgen.types.Field`: the features of a batch of scenes and the MLP that reads them.

    features: (batch, n, 512, h, w). cameras: the (batch, n) cameras of the encoded views. size: (height, width) of
        these views in pixels.
    """

    center: Tensor
    radius: Tensor
    proposal: "PixelField | None"
    mlp: "ResnetFC"
    features: Tensor
    cameras: Cameras
    size: tuple[int, int]

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n, 3) world points and unit view directions -> density (batch, n), color (batch, n, 3) in [0, 1].

        Without gradients they are taken in as many parts as there are views, whose features would otherwise need so
        many times the memory."""
        parts = 1 if torch.is_grad_enabled() else self.features.shape[1]
        found = map(self._at, points.chunk(parts, 1), directions.chunk(parts, 1))
        density, color = zip(*found, strict=True)
        return torch.cat(density, 1), torch.cat(color, 1)

    def _at(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        query = torch.cat([octave_encoding(self.rotate_to_view(points)), self.rotate_to_view(directions)], -1)
        output = self.mlp(self.features_at(points), query).to(points)
        # Published: ReLU, on a random last layer. From random encoder weights, all of space was empty within forty
        # steps and, without a gradient there, for good; softplus on a last layer of zeros starts from a thin haze.
        return nn.functional.softplus(output[..., 3] - 1), output[..., :3].sigmoid()

    def density(self, points: Tensor) -> Tensor:
        """(batch, n, 3) world points -> density (batch, n), seen along the ray from the first encoded view.

        pixelNeRF's density depends on the view direction too; the full call gives the density that the published
        renderer integrates."""
        directions = nn.functional.normalize(points - self.cameras.centers[:, :1], dim=-1)
        return self(points, directions)[0]

    def rotate_to_view(self, vectors: Tensor) -> Tensor:
        """(batch, p, 3) in the world -> (batch, n, p, 3) along the axes of each encoded view, turned to OpenGL's as the
        network expects.

        Not translated: an object at the world's origin stays there, however far the camera (pixelNeRF's
        ``normalize_z``)."""
        local = rotate(vectors[:, None], self.cameras.c2w[..., :3, :3].transpose(-1, -2))
        x, y, z = local.unbind(-1)  # not a product with a tensor of signs: to copy that to a GPU waits for it
        return torch.stack([x, -y, -z], -1)

    def features_at(self, points: Tensor) -> Tensor:
        """(batch, p, 3) world points -> (batch, n, p, 512) features at their projections into each view, bilinear,
        border-padded.
        """
        return look_up(self.features, self.cameras.project(points[:, None])[0], self.size)


class SpatialEncoder(nn.Module):
    """ResNet-34 up to layer3, with batch normalization: images (b, 3, height, width) in [0, 1] -> features (b, 512,
    height/2, width/2).
    """

    def __init__(self, first_pool: bool = True, pretrained: str | None = None):
        super().__init__()
        from torchvision.models import resnet34  # seconds to import, and only this model needs it

        network = resnet34(weights=None)
        if pretrained is None:
            logger.info(
                "pixelNeRF's encoder starts from random weights; the published model starts from ImageNet's"
                " (`pretrained`)"
            )
        else:
            load_resnet_weights(network, pretrained)
        self.first_pool = first_pool
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
        self.model = nn.ModuleDict({name: getattr(network, name) for name in names})

    def forward(self, images: Tensor) -> Tensor:
        """The maps of conv1 and layers 1 to 3, resized to conv1's resolution and concatenated."""
        x = self.model["conv1"](images * 2 - 1)
        x = self.model["relu"](self.model["bn1"](x))
        maps = [x]
        if self.first_pool:
            x = self.model["maxpool"](x)
        for name in ("layer1", "layer2", "layer3"):
            x = self.model[name](x)
            maps.append(x)
        size = maps[0].shape[-2:]
        return torch.cat([nn.functional.interpolate(x, size, mode="bilinear", align_corners=True) for x in maps], 1)


def load_resnet_weights(network: nn.Module, path: str) -> None:
    """Load a torchvision state dict, every key of it, or raise UserError."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; set `pretrained` to torchvision's resnet34 .pth file"
        ) from error
    except Exception as error:  # torch.load has no common error for broken and refused files
        raise UserError(
            f"{path} is not a plain PyTorch state dict; set `pretrained` to torchvision's resnet34 .pth file"
        ) from error
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"{path} does not hold the weights of torchvision's resnet34; set `pretrained` to such a file"
        ) from error


class ResnetFC(nn.Module):
    """The residual MLP: 5 blocks; the image feature enters before blocks 0, 1 and 2, views are averaged before block
    3.
    """

    def __init__(self, width: int = 512):
        super().__init__()
        self.lin_in = linear(QUERY, width)
        self.lin_z = nn.ModuleList(linear(FEATURES, width) for _ in range(3))
        self.blocks = nn.ModuleList(ResnetBlock(width) for _ in range(5))
        self.lin_out = linear(width, 4)
        nn.init.zeros_(self.lin_out.weight)

    def forward(self, features: Tensor, query: Tensor) -> Tensor:
        """features (batch, n, p, 512) and query (batch, n, p, 42) of n views -> (batch, p, 4): color logits, raw
        density.
        """
        x = self.lin_in(query)
        for block, enter in zip(self.blocks[:3], self.lin_z, strict=True):
            x = block(x + enter(features))
        x = x.mean(1)
        for block in self.blocks[3:]:
            x = block(x)
        return self.lin_out(x.relu())


class ResnetBlock(nn.Module):
    """x + fc_1(relu(fc_0(relu(x)))), the identity at initialization."""

    def __init__(self, width: int):
        super().__init__()
        self.fc_0 = linear(width, width)
        self.fc_1 = linear(width, width)
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return x + self.fc_1(self.fc_0(x.relu()).relu())


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with Kaiming-normal weights and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def octave_encoding(x: Tensor) -> Tensor:
    """(..., 3) -> (..., 39): x, then sin(f x) and cos(f x) for f = 1.5, 3, 6, 12, 24, 48 radians per world unit."""
    frequencies = BASE_FREQUENCY * 2.0 ** torch.arange(OCTAVES, dtype=x.dtype, device=x.device)
    phases = frequencies[:, None] * x[..., None, :]
    waves = torch.stack([phases.sin(), phases.cos()], -2)
    return torch.cat([x, waves.flatten(-3)], -1)
