"""One file per scored object: an evaluation can stop, resume, and run in parallel, and nobody overwrites anybody's
numbers.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, structs, to_builtins
from torch import Tensor

from vcgen.errors import UserError
from vcgen.folders import create_folder
from vcgen.io import read_json, replacing, write_bytes
from vcgen.metrics.image import check_values
from vcgen.schema import Key, Name, NotNegative, Text, ViewNumber
from vcgen.tensors import read_tensors, write_tensors

ADVICE = "not a record of this vcgen evaluate: delete it and run again"


class Fingerprint(Struct, frozen=True, forbid_unknown_fields=True):
    """What must agree before two records may be averaged: SHA-256 of model, protocol and shard index, the metrics'
    names, those of the networks whose features are kept, and SHA-256 of the weights of both.
    """

    model: Text
    protocol: Text
    data: Text
    metrics: tuple[str, ...]
    features: tuple[str, ...] = ()
    weights: dict[str, Text] = {}

    def difference(self, other: "Fingerprint") -> str:
        """The names of the fields that differ, for a message; "" if none does. Of the weights those count that both
        have.
        """
        plain = [name for name in self.__struct_fields__ if name != "weights"]
        found = [name for name in plain if getattr(self, name) != getattr(other, name)]
        shared = self.weights.keys() & other.weights.keys()
        if any(self.weights[name] != other.weights[name] for name in shared):
            found.append("weights")
        return " and ".join(found)


class ImageScore(Struct, frozen=True, forbid_unknown_fields=True):
    """One predicted view. view: index in the object's views; name: its file name in the source; metrics: column ->
    value.
    """

    view: ViewNumber
    name: str
    metrics: dict[str, float]

    def __post_init__(self) -> None:
        check_values(self.metrics)


class ObjectScore(Struct, frozen=True, forbid_unknown_fields=True):
    """All predicted views of one object, by ascending view. group: objects of one group share a model. seconds: wall
    time it took.
    """

    object: Key
    group: Name
    seconds: NotNegative
    images: tuple[ImageScore, ...]

    def __post_init__(self) -> None:
        views = [image.view for image in self.images]
        if not views or views != sorted(set(views)):
            raise ValueError("needs images in the order of their views, each once")
        if len({tuple(image.metrics) for image in self.images}) > 1:
            raise ValueError("the images have different metrics")


class RecordFile(ObjectScore, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a file holds."""

    fingerprint: Fingerprint

    def __post_init__(self) -> None:
        super().__post_init__()
        if tuple(self.images[0].metrics) != self.fingerprint.metrics:
            raise ValueError("its metrics are not those that its fingerprint names")


class RecordFolder:
    """The records of an evaluation, ``FOLDER/OBJECT.json`` each, with ``OBJECT.safetensors`` beside it where features
    of the images are kept. Opening it refuses, or with ``overwrite`` deletes, foreign records.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint, overwrite: bool = False):
        self.folder, self.fingerprint = folder, fingerprint
        create_folder(folder)
        for path in sorted(folder.glob("[!.]*.json")):
            found = _read(path).fingerprint
            if difference := fingerprint.difference(found):
                if not overwrite:
                    raise UserError(
                        f"{folder.parent}: holds results of another evaluation (other {difference}); give another"
                        " --out, or add --overwrite"
                    )
                path.unlink()
                self._features(path.stem).unlink(missing_ok=True)

    def read(self, key: str) -> ObjectScore | None:
        """The record of an object, or None while it has none."""
        path = self.folder / f"{key}.json"
        if not path.is_file() or (self.fingerprint.features and not self._features(key).is_file()):
            return None
        record = _read(path)
        if record.object != key:
            raise UserError(f"{path}: is the record of {record.object}; delete it and run again")
        return ObjectScore(*(getattr(record, name) for name in ObjectScore.__struct_fields__))

    def read_features(self, score: ObjectScore) -> dict[str, Tensor]:
        """The features of an object's images, "NETWORK.predicted" and "NETWORK.true". Raises UserError for those of
        others.
        """
        path = self._features(score.object)
        found = read_tensors(path, ADVICE)
        names = {f"{network}.{kind}" for network in self.fingerprint.features for kind in ("predicted", "true")}
        counts = {len(tensor) for name, tensor in found.items() if tensor.ndim == 2 and name.endswith(".predicted")}
        if found.keys() != names or any(x.ndim != 2 for x in found.values()) or counts != {len(score.images)}:
            raise UserError(f"{path}: holds features of other images than its record; {ADVICE}")
        return found

    def write(self, score: ObjectScore, features: Mapping[str, Tensor] = {}) -> None:
        """Store a record, atomically, and the features before it."""
        if features:
            with replacing(self._features(score.object)) as path:
                write_tensors(features, path)
        content = to_builtins(RecordFile(**structs.asdict(score), fingerprint=self.fingerprint))
        write_bytes(self.folder / f"{score.object}.json", (json.dumps(content, allow_nan=False) + "\n").encode())

    def _features(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def _read(path: Path) -> RecordFile:
    return read_json(path, RecordFile, ADVICE)
