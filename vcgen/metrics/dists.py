"""DISTS (Ding et al. 2020, https://arxiv.org/abs/2004.07728): structure and texture compared in the layers of VGG-16.

torchmetrics ships the learned weights of the layers, not the network beneath, whose file is that of LPIPS on VGG.
torchmetrics' own class downloads it without a word, for each batch: hence this one, which gives its values."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from vcgen.io import file_sha256
from vcgen.metrics.base import Column, Metric
from vcgen.metrics.lpips import SOURCES
from vcgen.metrics.weights import fill, find

DISTS = Column(
    "DISTS",
    "vgg16: deep image structure and texture similarity, torchmetrics' weights, inputs in [0, 1] at their own size",
    higher_is_better=False,
    low=-0.001,
    high=2.0,
)
#: VGG's layers from one comparison to the next, and its poolings between them, which are others here.
STAGES = (range(4), range(5, 9), range(10, 16), range(17, 23), range(24, 30))
CHANNELS = (3, 64, 128, 256, 512, 512)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Dists(Metric):
    """DISTS of images in [0, 1]. path: the file of VGG's weights. Raises UserError for a file without them."""

    name, column = "dists", DISTS

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        from torchmetrics.functional.image import dists
        from torchvision.models import vgg16

        features = vgg16(weights=None).features
        fill(nn.ModuleDict({"features": features}), path)
        self.stages = [nn.Sequential(*(features[layer] for layer in stage)).to(device) for stage in STAGES]
        learned = torch.load(dists._PATH_WEIGHT_DISTS, map_location=device, weights_only=True)
        total = learned["alpha"].sum() + learned["beta"].sum()
        self.mean_weights, self.structure_weights = (
            (learned[name].detach().flatten() / total).split(CHANNELS) for name in ("alpha", "beta")
        )
        self.device, self.sha256 = torch.device(device), file_sha256(path)

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """See :class:`vcgen.metrics.base.Metric`."""
        distance = torch.ones(len(truth), device=self.device)
        # Without TF32: a GPU must give the CPU's numbers to the printed digits.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            layers = zip(self.layers(prediction), self.layers(truth), strict=True)
            for (x, y), alpha, beta in zip(layers, self.mean_weights, self.structure_weights, strict=True):
                mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
                texture = (2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6)
                variances = x.var((2, 3), correction=0) + y.var((2, 3), correction=0)
                covariance = (x * y).mean((2, 3)) - mean_x * mean_y
                structure = (2 * covariance + 1e-6) / (variances + 1e-6)
                distance -= texture @ alpha + structure @ beta
        return distance.double()

    def layers(self, images: Tensor) -> list[Tensor]:
        """The images and what each stage makes of them."""
        images = images.to(self.device, torch.float32)
        mean, deviation = (images.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        found, x = [images], (images - mean) / deviation
        for number, stage in enumerate(self.stages):
            x = stage(pooled(x) if number else x)
            found.append(x)
        return found


def pooled(images: Tensor) -> Tensor:
    """Half the size: the root of the squares' local means under a 3 x 3 Hann window."""
    line = images.new_tensor([0.5, 1.0, 0.5]) / 2
    kernel = torch.outer(line, line).expand(images.shape[1], 1, 3, 3)
    return (conv2d(images**2, kernel, stride=2, padding=1, groups=images.shape[1]) + 1e-12).sqrt()


def load_dists(device: torch.device | str = "cpu", offline: bool = False) -> Dists:
    """Find VGG's weights and build the metric; errors as :func:`vcgen.metrics.weights.find`."""
    return Dists(find(SOURCES["vgg"], "DISTS", offline), device)
