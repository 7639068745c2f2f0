"""IBRNet's feature network (arXiv 2102.13090): the first stages of a residual network, and a way back up with skips.

Parameter names are those of the released checkpoints (github.com/googleinterns/IBRNet).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResUNet(nn.Module):
    """Images (b, 3, height, width) in [0, 1] -> feature maps (b, channels, height / stride, width / stride), rounded
    up.

    channels: of the maps. widths: of the three stages, each of which halves the resolution. blocks: residual blocks of
    each. stride: pixels per cell of the maps, 2 or 4.
    """

    def __init__(
        self, channels: int, widths: Sequence[int] = (64, 128, 256), blocks: Sequence[int] = (3, 4, 6), stride: int = 4
    ):
        super().__init__()
        first, second, third = widths
        self.conv1 = convolution(3, first, 7, stride // 2)
        self.bn1 = norm(first)
        self.layer1 = stage(first, first, blocks[0])
        self.layer2 = stage(first, second, blocks[1])
        self.layer3 = stage(second, third, blocks[2])
        self.upconv3 = Up(third, second)
        self.iconv3 = Convolution(2 * second, second)
        self.upconv2 = Up(second, first)
        self.iconv2 = Convolution(2 * first, channels)
        self.out_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x1 = self.layer1(self.bn1(self.conv1(images)).relu())
        x2 = self.layer2(x1)
        x = self.upconv3(self.layer3(x2), x2)
        x = self.upconv2(self.iconv3(x), x1)
        return self.out_conv(self.iconv2(x))


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, outputs, 3, stride), norm(outputs)
        self.conv2, self.bn2 = convolution(outputs, outputs, 3), norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) -> (b, outputs, h / stride, w / stride)."""
        kept = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        return (kept + self.bn2(self.conv2(x))).relu()


class Convolution(nn.Module):
    """A 3 x 3 convolution, normalized, with an ELU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv, self.bn = convolution(inputs, outputs, 3, bias=True), norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) -> (b, outputs, h, w)."""
        return F.elu(self.bn(self.conv(x)))


class Up(nn.Module):
    """Enlarged to the size of a finer map, convolved, and put before it."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = Convolution(inputs, outputs)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """(b, inputs, h, w), (b, c, H, W) -> (b, outputs + c, H, W)."""
        x = F.interpolate(x, finer.shape[-2:], mode="bilinear", align_corners=True)
        return torch.cat([self.conv(x), finer], 1)


def stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """Residual blocks, the first of which halves the resolution."""
    return nn.Sequential(Block(inputs, outputs, 2), *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that mirrors the image at its border."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias, padding_mode="reflect")


def norm(channels: int) -> nn.InstanceNorm2d:
    """Normalization of each image by itself."""
    return nn.InstanceNorm2d(channels, affine=True)
