"""Parts of a small GeNVS, and views for them."""

import torch

from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.diffusion.feature_prior import FeaturePrior
from vcgen.encoders.feature_volume import FeatureVolume
from vcgen.types import Views

RADIUS, DISTANCE, SIDE = 0.5, 1.3, 16


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cameras(azimuths: list[float], focal: float = 1.0) -> Cameras:
    return orbit(
        torch.tensor(azimuths), torch.full((len(azimuths),), 20.0), DISTANCE, pinhole(focal), 0.8, 1.8
    ).reshape(1, -1)


def points(count: int = 200) -> torch.Tensor:
    return torch.rand(1, count, 3, generator=generator()) * 0.5 - 0.25


def context(views: int = 1, size: int = SIDE) -> Views:
    images = torch.rand(1, views, 3, size, size, generator=generator())
    return Views(images, cameras([40.0 * i for i in range(views)]))


def encoder() -> FeatureVolume:
    torch.manual_seed(0)
    return FeatureVolume(features=4, depths=3, hidden=8, channels=(16, 32), layers=1, attention=(False, False))


def prior(**options) -> FeaturePrior:
    small = {"features": 4, "channels": (16, 32), "layers": 1, "attention": (False, False), "size": SIDE}
    return FeaturePrior(**(small | options))
