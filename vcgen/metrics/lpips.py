"""LPIPS with weights whose origin is known, never random: the ``lpips`` package ships its linear heads, but not the
ImageNet networks under them, whose files :func:`vcgen.metrics.weights.find` looks for.
"""

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vcgen.errors import UserError
from vcgen.io import file_sha256
from vcgen.metrics.base import Column, Metric
from vcgen.metrics.weights import Source, fill, find

Network = Literal["vgg", "squeeze", "alex"]


SOURCES: dict[Network, Source] = {
    "vgg": Source("VGG16_Weights", "vgg16-397923af.pth", "vgg16_features.pth"),
    "squeeze": Source("SqueezeNet1_1_Weights", "squeezenet1_1-b8a52dc0.pth", "squeezenet1_1_features.pth"),
    "alex": Source("AlexNet_Weights", "alexnet-owt-7be5be79.pth", "alexnet_features.pth"),
}


#: Pixels that each side of an image needs: below, nothing is left of it in the network's last layers.
LEAST: dict[Network, int] = {"vgg": 16, "squeeze": 17, "alex": 31}

LPIPS = Column(
    "LPIPS",
    "v0.1: learned perceptual distance, inputs in [-1, 1], the package's linear heads on an ImageNet network named in"
    " the column",
    higher_is_better=False,
    low=0.0,
    high=100.0,
)


class PerceptualDistance(Metric):
    """LPIPS (Zhang et al. 2018, https://arxiv.org/abs/1801.03924), version 0.1, for images in [0, 1].

    network: the ImageNet network underneath. path: its weights file. sha256: that file's hash.
    """

    def __init__(self, network: Network, path: Path, device: torch.device | str = "cpu"):
        import lpips  # lazily: it imports torchvision

        self.network, self.path, self.sha256 = network, path, file_sha256(path)
        self.name, self.column = f"lpips_{network}", LPIPS
        # pnet_rand: the package's other way, pretrained=True, downloads without a word. Every random value is
        # overwritten below.
        with warnings.catch_warnings():
            # the package calls it in an old way
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            self.model = lpips.LPIPS(net=network, version="0.1", pnet_rand=True, verbose=False)
        fill(self.model.net, path, stored_name)
        self.model.to(device)

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Distance >= 0 of each pair; two (batch, 3, height, width) stacks in [0, 1] -> (batch,) float64.

        Raises ValueError where a value lies outside [0, 1]: images in [-1, 1] or [0, 255] would give a plausible, wrong
        number. Raises UserError for images smaller than ``LEAST``."""
        if min(truth.shape[-2:]) < (least := LEAST[self.network]):
            found = f"{self.name} needs images of at least {least} x {least} pixels, they are {tuple(truth.shape[-2:])}"
            raise UserError(f"{found}; score larger ones, or choose another network with --lpips")
        for name, images in (("prediction", prediction), ("truth", truth)):
            low, high = images.min().item(), images.max().item()
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    f"LPIPS: the {name} spans [{low:.3g}, {high:.3g}] but must lie in [0, 1]; clamp or rescale it"
                )
        # Without TF32: a GPU must give the CPU's numbers to the printed digits.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.distance(prediction, truth).double()

    def distance(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """The same in float32, unchecked and differentiable in both stacks."""
        device = next(self.model.parameters()).device
        return self.model(*(2 * images.to(device, torch.float32) - 1 for images in (prediction, truth))).flatten()


def find_weights(network: Network, offline: bool = False) -> Path:
    """The weights file of a network, downloaded if need be and allowed; see :func:`vcgen.metrics.weights.find`."""
    return find(SOURCES[network], f"LPIPS-{network}", offline)


def load_lpips(network: Network, device: torch.device | str = "cpu", offline: bool = False) -> PerceptualDistance:
    """Find the weights of a network and build its distance; errors as :func:`find_weights`."""
    return PerceptualDistance(network, find_weights(network, offline), device)


def stored_name(name: str) -> str:
    """What a file calls a weight of the package's networks: ``features.N.weight`` for ``sliceK.N.weight``."""
    return f"features.{name.split('.', 1)[1]}"
