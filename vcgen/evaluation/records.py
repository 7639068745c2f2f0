"""One file per scored object: an evaluation can stop, resume, and run in parallel, and nobody overwrites anybody's numbers."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vcgen.data.shards import create_folder, write_atomically
from vcgen.errors import UserError


@dataclass(frozen=True)
class Fingerprint:
    """What must agree before two records may be averaged: SHA-256 of model, protocol and shard index, and the metrics' names."""

    model: str
    protocol: str
    data: str
    metrics: tuple[str, ...]

    def difference(self, other: "Fingerprint") -> str:
        """The names of the fields that differ, for a message; "" if none does."""
        mine, theirs = asdict(self), asdict(other)
        return " and ".join(name for name in mine if mine[name] != theirs[name])


@dataclass(frozen=True)
class ImageScore:
    """One predicted view. view: index in the object's views; name: its file name in the source; metrics: column -> value."""

    view: int
    name: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class ObjectScore:
    """All predicted views of one object, by ascending view. group: objects of one group share a model. seconds: wall time it took."""

    object: str
    group: str
    seconds: float
    images: tuple[ImageScore, ...]


class RecordFolder:
    """The records of an evaluation, ``FOLDER/OBJECT.json`` each. Opening it refuses, or with ``overwrite`` deletes, foreign records."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, overwrite: bool = False):
        self.folder, self.fingerprint = folder, fingerprint
        create_folder(folder)
        for path in sorted(folder.glob("*.json")):
            found, _ = _read(path)
            if difference := fingerprint.difference(found):
                if not overwrite:
                    raise UserError(
                        f"{folder.parent}: holds results of another evaluation (other {difference}); give another --out, or add --overwrite"
                    )
                path.unlink()

    def read(self, key: str) -> ObjectScore | None:
        """The record of an object, or None while it has none."""
        path = self.folder / f"{key}.json"
        return _read(path)[1] if path.is_file() else None

    def write(self, score: ObjectScore) -> None:
        """Store a record, atomically."""
        content = {"fingerprint": asdict(self.fingerprint), **asdict(score)}
        write_atomically(self.folder / f"{score.object}.json", (json.dumps(content, allow_nan=False) + "\n").encode())


def _read(path: Path) -> tuple[Fingerprint, ObjectScore]:
    try:
        content = json.loads(path.read_bytes())
        fingerprint = content["fingerprint"]
        images = tuple(ImageScore(**image) for image in content["images"])
        score = ObjectScore(content["object"], content["group"], content["seconds"], images)
        return Fingerprint(**(fingerprint | {"metrics": tuple(fingerprint["metrics"])})), score
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a record of vcgen evaluate ({type(error).__name__}: {error}); delete it and run again") from error
