"""What the input images of a training set are like, in a few numbers, and how far another image is from them.

Eleven features of an image and its camera, their means and covariance over training images, and the Mahalanobis
distance from them. That tells other exposure, framing, backgrounds and elevations, and most other kinds of objects; it
does not tell another car from a car."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor

from vcgen.schema import Finite, NotNegative
from vcgen.types import Views

#: The features by their names for people. Elevation stands twice, linear and squared: images from above differ.
FEATURES = (
    *("brightness", "contrast", "saturation", "detail", "detail", "size in the frame", "width", "height"),
    *("light from above", "elevation", "elevation"),
)
#: Of the images that were left out of the statistics, this fraction is nearer than ``Familiar.limit``.
KNOWN = 0.95
_Row = Annotated[tuple[Finite, ...], Meta(min_length=len(FEATURES), max_length=len(FEATURES))]


@dataclass(frozen=True)
class Familiar:
    """The statistics of a training set's images; "familiar" in a model folder's config.json.

    mean, covariance: of the features, over training images. limit: the distance below which ``KNOWN`` of the images of
    other objects are: each half of the objects is measured by the statistics of the other half."""

    mean: _Row
    covariance: Annotated[tuple[_Row, ...], Meta(min_length=len(FEATURES), max_length=len(FEATURES))]
    limit: NotNegative

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Familiar | None":
        """That of a model folder's config; None where it has none."""
        return msgspec.convert(config.get("familiar"), cls | None)

    def distance(self, view: Views) -> float:
        """The Mahalanobis distance of an input view, batch shape (1, 1), whose camera stands in a z-up world."""
        offset = self._offset(view)
        return float(np.sqrt(max(0.0, offset @ np.linalg.pinv(np.array(self.covariance)) @ offset)))

    def warning(self, view: Views) -> str:
        """What is to be said of an input view, in one line; "" of one that is no farther than the limit."""
        if not (distance := self.distance(view)) > self.limit:
            return ""
        apart = np.abs(self._offset(view)) / np.sqrt(np.maximum(np.diag(self.covariance), 1e-12))
        most = FEATURES[apart.argmax()] if apart.max() > 2 else "how its features go together"
        found = f"unlike the images that the model learned from, most of all in {most} (distance {distance:.1f}"
        return (
            f"{found}; {KNOWN:.0%} of held-out ones are below {self.limit:.1f}): expect little of its other sides; show"
            " an object of the kind it learned, cut out and lit like those, and say the camera's elevation"
        )

    def _offset(self, view: Views) -> np.ndarray:
        centers = view.cameras.centers.reshape(-1, 3).cpu()
        found = features(view.reshape(-1).to("cpu"), elevations(centers, (0.0, 0.0, 1.0)))
        return found[0].numpy() - np.array(self.mean)


@torch.no_grad()
def features(views: Views, elevations: Tensor) -> Float[Tensor, "n 11"]:
    """The :data:`FEATURES` of views (n,), in double precision; elevations: (n,) degrees. Of images without alpha, what
    is not white counts as the object.
    """
    images, alpha = views.images.double(), views.alpha
    coverage = (images.amin(1, keepdim=True) < 0.98).double() if alpha is None else alpha.double()
    weight = coverage.sum((1, 2, 3)).clamp(min=1e-3)

    def mean(values: Tensor) -> Tensor:
        """Over the object: (n, 1 or 3, h, w) -> (n, 1, 1, 1)."""
        return ((values * coverage).sum((1, 2, 3)) / weight)[:, None, None, None]

    gray, (height, width) = images.mean(1, keepdim=True), views.size
    x = ((torch.arange(width) + 0.5) / width).expand_as(gray)
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand_as(gray)
    light, middle = mean(gray), mean(y)
    logarithms = [
        light,
        mean((gray - light).square()).sqrt(),
        mean(images.amax(1, keepdim=True) - images.amin(1, keepdim=True)),
        mean(F.pad(gray.diff(dim=3).abs(), (1, 0))),
        mean(F.pad(gray.diff(dim=2).abs(), (0, 0, 1, 0))),
        coverage.mean((1, 2, 3), keepdim=True),
        mean((x - mean(x)).square()).sqrt(),
        mean((y - middle).square()).sqrt(),
    ]
    above = mean((y < middle) * gray) - light / 2
    tilt = elevations.double() / 30
    columns = [*((value + 0.02).log().flatten() for value in logarithms), above.flatten(), tilt, tilt.square()]
    return torch.stack(columns, 1)


def elevations(centers: Tensor, up: Sequence[float]) -> Tensor:
    """Degrees above the horizon of camera centers (n, 3)."""
    direction = F.normalize(torch.tensor(up, dtype=centers.dtype), dim=0)
    return torch.rad2deg((F.normalize(centers, dim=-1) @ direction).clamp(-1, 1).asin())
