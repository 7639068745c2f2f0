"""Networks whose features stand for images in FID and KID. Each gives (batch, features) for (batch, 3, height, width)
images in [0, 255], whole numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from vcgen.io import file_sha256
from vcgen.metrics.lpips import load_lpips
from vcgen.metrics.weights import Source, fill, find

#: The network of the FID paper (Heusel et al. 2017, https://arxiv.org/abs/1706.08500), converted by torch-fidelity.
INCEPTION = Source(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "weights-inception-2015-12-05-6726825d.pth",
    whose="torch-fidelity's",
)
SIDE = 299


class SqueezeFeatures(nn.Module):
    """(batch, 512): the last features of LPIPS's SqueezeNet, of unit mean square at every place as LPIPS has them up to
    a factor, averaged over the image. No published number is to be compared with theirs; the weights are small, so that
    a computer without internet can have them.

    Raises UserError for missing weights.
    """

    def __init__(self, device: torch.device | str = "cpu", offline: bool = False):
        super().__init__()
        distance = load_lpips("squeeze", device, offline)
        self.scaling, self.net, self.sha256 = distance.model.scaling_layer, distance.model.net, distance.sha256

    def forward(self, images: Tensor) -> Tensor:
        """Features of images in [0, 255]."""
        features = self.net(self.scaling(images.float() / 127.5 - 1))[-1]
        return (features / features.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)).mean((2, 3))


class InceptionFeatures(nn.Module):
    """(batch, 2048): the pooled features of the Inception v3 of 2015-12-05, as FID is defined; torch-fidelity's own.

    It differs from torchvision's by its weights, by averages that leave padding out, by one pooling that takes the
    maximum, and by the resizing before it. Raises UserError for missing weights, and for a file without them.
    """

    def __init__(self, device: torch.device | str = "cpu", offline: bool = False):
        super().__init__()
        path = find(INCEPTION, "FID and KID of Inception", offline)
        self.net, self.sha256 = inception(), file_sha256(path)
        fill(self.net, path)
        self.net.to(device)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images in [0, 255]."""
        return self.net((resized(images.float()) - 128) / 128)


#: Short name -> what is built, and what stands beside the numbers.
NETWORKS: dict[str, tuple[type[SqueezeFeatures] | type[InceptionFeatures], str]] = {
    "inception": (InceptionFeatures, "pooled features of Inception v3 of 2015-12-05, resized as TensorFlow 1 does it"),
    "squeeze": (SqueezeFeatures, "last features of LPIPS's SqueezeNet 1.1, normalized and averaged over the image"),
}


def inception() -> nn.Module:
    """The network without its last layer, in evaluation mode, of random weights."""
    from torchvision.models import Inception3

    net = Inception3(aux_logits=False, transform_input=False, init_weights=False).eval()
    net.fc = net.dropout = nn.Identity()
    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        _pool_by(getattr(net, f"Mixed_{name}"), lambda x: avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    _pool_by(net.Mixed_7c, lambda x: max_pool2d(x, 3, 1, 1))
    return net


def _pool_by(block: Any, pool: Callable[[Tensor], Tensor]) -> None:
    """Give a block another pooling in the last of its branches."""
    branches = block._forward
    block._forward = lambda x: [*branches(x)[:-1], block.branch_pool(pool(x))]


def resized(images: Tensor) -> Tensor:
    """Bilinear to 299 x 299 as TensorFlow 1 does it: pixel i of the result lies at i times the ratio of the sizes."""
    for dim in (-2, -1):
        size = images.shape[dim]
        place = torch.arange(SIDE, device=images.device) * torch.tensor(size / SIDE, dtype=torch.float32)
        low = place.long()
        high = (low + 1).clamp(max=size - 1)
        part = (place - low).reshape(-1, *[1] * (-1 - dim))
        before, after = images.index_select(dim, low), images.index_select(dim, high)
        images = before + (after - before) * part
    return images
