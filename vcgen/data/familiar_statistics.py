"""The statistics of a training set's images, which export keeps in the model folder."""

import numpy as np
import torch

from vcgen.data.familiar import FEATURES, KNOWN, Familiar, elevations, features
from vcgen.data.shards.files import ShardIndex
from vcgen.data.views import scene_views
from vcgen.errors import UserError

#: Training images that are looked at, about: evenly spaced scenes, evenly spaced views of each.
ENOUGH = 2000
#: Standard deviation that a feature has at least (the first nine are logarithms or of that order): what never varies in
#: training says little about a slight change.
LEAST = 0.02


def familiar(index: ShardIndex) -> Familiar:
    """The statistics of a shard folder's images. Raises UserError when a scene cannot be read, or of fewer than two
    objects or 10 images a feature."""
    total = len(index.samples)
    numbers = np.unique(np.linspace(0, total - 1, min(total, ENOUGH)).astype(int))
    found, halves = [], []
    places = {group: place for place, group in enumerate(dict.fromkeys(index.scenes[int(n)].group for n in numbers))}
    for number in map(int, numbers):
        record = index.read(number)
        wanted = min(len(record.views), -(-ENOUGH // len(numbers)))
        views = scene_views(record, np.linspace(0, len(record.views) - 1, wanted).astype(int).tolist())
        found.append(features(views, elevations(views.cameras.centers, record.up)))
        halves += [places[index.scenes[number].group] % 2] * wanted
    values, half = torch.cat(found).numpy(), np.array(halves)
    if min((half == 0).sum(), (half == 1).sum()) < 5 * len(FEATURES):
        raise UserError(f"{index.folder}: {len(values)} images of {len(places)} objects are too few for statistics")
    distances = [_distances(values[half == side], values[half != side]) for side in (0, 1)]
    mean, covariance = _moments(values)
    limit = float(np.quantile(np.concatenate(distances), KNOWN))
    return Familiar(tuple(mean.tolist()), tuple(map(tuple, covariance.tolist())), limit)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(0), np.cov(values.T) + LEAST**2 * np.eye(values.shape[1])


def _distances(known: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distances of other images (n, features) from known ones."""
    mean, covariance = _moments(known)
    offsets = others - mean
    return np.sqrt(np.einsum("ij,jk,ik->i", offsets, np.linalg.inv(covariance), offsets))
