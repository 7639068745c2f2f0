"""FID and KID of an evaluation: the features of each object's images, and the distances of all of them together."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from msgspec import Struct
from torch import Tensor, nn

from vcgen.errors import UserError
from vcgen.metrics.distribution import DISTANCES
from vcgen.metrics.features import NETWORKS
from vcgen.metrics.image import quantise
from vcgen.schema import Count, Finite, Text


class Distance(Struct, frozen=True, forbid_unknown_fields=True):
    """A distance between all predicted and all true images. predicted, true: how many there are of each."""

    value: Finite
    definition: Text
    predicted: Count
    true: Count


class Networks(dict[str, nn.Module]):
    """The networks whose features an evaluation keeps, by their short names."""

    def add(self, distance: str, device: str, offline: bool) -> None:
        """Load the network of a distance. Raises UserError where its weights are missing."""
        name = DISTANCES[distance].network
        if name not in self:
            self[name] = NETWORKS[name][0](device, offline)

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of their weights, by "features_NETWORK"."""
        return {f"features_{name}": str(network.sha256) for name, network in self.items()}

    def features(self, images: Tensor, kind: str) -> dict[str, Tensor]:
        """The features of images (batch, 3, height, width), clamped and rounded to 8 bit first: "NETWORK.kind" ->
        (batch, d).
        """
        pixels = (quantise(images) * 255).float()
        # Without TF32: a GPU must give the CPU's numbers to the printed digits.
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return {f"{name}.{kind}": network(pixels).cpu() for name, network in self.items()}


def joined(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Features of several batches as those of one."""
    found: dict[str, list[Tensor]] = {}
    for part in parts:
        for name, features in part.items():
            found.setdefault(name, []).append(features)
    return {name: torch.cat(features) for name, features in found.items()}


def distances(names: Sequence[str], features: Mapping[str, Tensor]) -> dict[str, Distance]:
    """The distances of these names. Raises UserError where there are fewer than two images of either kind."""
    found = {}
    for name in names:
        known = DISTANCES[name]
        predicted, true = (features[f"{known.network}.{kind}"] for kind in ("predicted", "true"))
        if min(len(predicted), len(true)) < 2:
            raise UserError(f"{name} needs two images at least, not {len(predicted)}; score more views or objects")
        definition = f"{known.definition}; {NETWORKS[known.network][1]}; all predicted images, against all views"
        definition += " of the same objects, input included"
        found[name] = Distance(known.function(predicted, true), definition, len(predicted), len(true))
    return found
