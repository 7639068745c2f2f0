"""Predictors that know no geometry, with the contract of a system: what a model must beat before its numbers mean
anything.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.data.shards.files import read_index
from vcgen.evaluation.protocol import Protocol
from vcgen.evaluation.runner import views_of
from vcgen.types import Behind, Rendering, Views


class CopyInput:
    """Predicts the input view, of several the one whose camera is nearest. ``name`` labels its results, ``hashes`` say
    what it is.
    """

    name = "copy the input view"
    hashes = {"predictor": "copy the input view"}

    def field(self, context: Views) -> Views:
        """The context itself, (batch, n) views: there is no field to predict."""
        return context

    def render(self, field: Views, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """An input view over the background, for every one of the (batch, V) cameras; ``size`` must be that of the
        input.
        """
        chosen = self.choose(field.cameras, cameras)
        return _flat(field.on(background)[torch.arange(len(chosen))[:, None], chosen], cameras)

    def choose(self, inputs: Cameras, cameras: Cameras) -> Tensor:
        """Which of the input views' cameras (batch, n) stands for each of the (batch, V): numbers (batch, V)."""
        return _nearest(cameras.centers, inputs.centers)


class CopyNearest(CopyInput):
    """Predicts the input view whose camera looks most nearly in the same direction; of one input view, that one."""

    name = "copy the nearest input view"
    hashes = {"predictor": "copy the nearest input view, by viewing direction"}

    def choose(self, inputs: Cameras, cameras: Cameras) -> Tensor:
        """The least angles between optical axes."""
        return _nearest(cameras.c2w[..., :3, 2], inputs.c2w[..., :3, 2])


@dataclass(frozen=True)
class MeanImage:
    """Predicts one image for every object and camera: the mean of a training set. image: (3, height, width) in [0, 1].
    hashes: the SHA-256 of its float32 values."""

    image: Tensor
    hashes: dict[str, str]
    name: str = "mean training image"

    @staticmethod
    def of(folder: Path, protocol: Protocol) -> "MeanImage":
        """The mean over all views of all scenes of a shard folder, by the protocol's rules for alpha and over its
        background. Raises UserError for images of another size, or painted on another background.
        """
        index = read_index(folder)
        protocol.check_size(index.image_size, folder)
        total, count = torch.zeros(3, *index.image_size, dtype=torch.float64), 0
        for number in range(len(index.samples)):
            record = index.read(number)
            images = views_of(record, range(len(record.images)), protocol, "cpu")[0].on(protocol.background)
            total += images.double().sum(0)
            count += len(images)
        mean = (total / count).float()
        return MeanImage(mean, {"predictor": hashlib.sha256(mean.numpy().tobytes()).hexdigest()})

    def field(self, context: Views) -> Views:
        """The context itself; it is not looked at."""
        return context

    def render(self, field: Views, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """The mean image for every one of the (batch, V) cameras."""
        return _flat(self.image.to(cameras.c2w.device)[None, None], cameras)


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    """Which of ``others`` (batch, n, 3) lies nearest to each of points (batch, V, 3): numbers (batch, V).

    By differences: products, of which cosines and a fast ``cdist`` are made, do not tell near neighbors apart.
    """
    return (points[:, :, None] - others[:, None]).square().sum(-1).argmin(-1)


def _flat(images: Tensor, cameras: Cameras) -> Rendering:
    """Images, (batch or 1, V or 1, 3, height, width), for all cameras: opaque, and as far away as the cameras see."""
    rgb = images.expand(*cameras.shape, *images.shape[-3:])
    alpha = torch.ones_like(rgb[..., :1, :, :])
    return Rendering(rgb, alpha, alpha * cameras.far[..., None, None, None])
