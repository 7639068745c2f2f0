"""What the fuzzer spoils of evaluations and captions: protocols, records, results, how objects are shared, what things
are called.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz_specs import CAPTIONS, KEY, METRICS, PROTOCOL, RECORD, RESULTS, table, whole
from fuzz_subject import Subject, by_rule, spoil_one
from scenes import listing
from vcgen.data.captions import read_things
from vcgen.evaluation.protocol import SUPPORTED_METRICS, load_protocol
from vcgen.evaluation.records import Fingerprint, ImageScore, ObjectScore, RecordFolder
from vcgen.evaluation.results import collect, load_results
from vcgen.evaluation.sharing import Shards
from vcgen.io import read_json

#: A protocol with every entry but lists, which name a file.
WHOLE = {
    "version": 2,
    "name": "p",
    "description": "d",
    "split": "test",
    "views": 9,
    "context": [0],
    "targets": "listed",
    "objects": {"a1": {"targets": [1, 2]}, "b1": {"targets": [1]}},
    "unlisted": "left out",
    "score_context": False,
    "alpha": "binary",
    "mask": "object",
    "crop": [2, 0, 14, 12],
    "size": [16, 12],
    "background": 1.0,
    "quantisation": "8-bit-rounded",
    "metrics": SUPPORTED_METRICS,
}


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them. folder: to make the whole files in."""
    yield from scored(folder)
    yield Subject(
        "shards.json",
        {"shards.json": b'{"shards": 4}'},
        spoil_one("shards.json"),
        lambda found: read_json(found / "shards.json", Shards),
        by_rule("shards.json", table(shards=whole(1, 1_000_000))),
        0.5,
    )
    things = {"car": {"names": ["taxi", "car"], "front": 90}, "tree": {"names": ["tree"]}}
    yield Subject(
        "captions",
        {"c.json": json.dumps(things).encode()},
        spoil_one("c.json"),
        lambda found: read_things(found / "c.json"),
        by_rule("c.json", CAPTIONS, lambda tree: all(map(KEY, tree))),
    )


def scored(folder: Path) -> Iterator[Subject]:
    """A protocol, what is recorded of an object under it, and the results."""
    yield Subject(
        "protocol",
        {"p.json": json.dumps(WHOLE).encode()},
        spoil_one("p.json"),
        functools.partial(protocol_of, "p.json"),
        by_rule("p.json", PROTOCOL, views_differ),
        1.5,
    )
    values = dict(zip(METRICS, (20.5, 0.5, 0.25)))
    scores = [
        ObjectScore(k, k[0], 1.0, tuple(ImageScore(v, f"{v}", values) for v in (1, 2))) for k in ("a1", "a2", "b1")
    ]
    fingerprint = Fingerprint("m", "p", "d", tuple(METRICS))
    (folder / "records").mkdir(parents=True)
    RecordFolder(folder / "records", fingerprint).write(scores[0])
    yield Subject(
        "record",
        listing(folder / "records"),
        spoil_one("a1.json"),
        functools.partial(record_of, fingerprint),
        by_rule("a1.json", RECORD, lambda tree: tree["object"] == "a1", in_order),
        1.5,
    )
    hashes = {"protocol": "p", "data": "d"}
    loaded = load_protocol(written(folder / "p.json", WHOLE))
    results = collect("m", scores, loaded, versions={}, hashes=hashes, run={})
    results.save(folder / "out")
    yield Subject(
        "results.json",
        listing(folder / "out"),
        spoil_one("results.json"),
        load_results,
        by_rule("results.json", RESULTS),
        1.5,
    )


def written(path: Path, tree: Any) -> Path:
    """A JSON file."""
    path.write_text(json.dumps(tree))
    return path


def protocol_of(name: str, folder: Path) -> Any:
    """Without the hash of the file's bytes."""
    return {key: value for key, value in vars(load_protocol(folder / name)).items() if key != "sha256"}


def views_differ(tree: Any) -> bool:
    """No view is named twice, lists are there where they are wanted, and the crop lies in the image."""
    fixed = [tree[name] for name in ("context", "targets") if isinstance(tree[name], list)]
    groups = fixed if tree.get("score_context") else [[view for views in fixed for view in views]]
    top, left, height, width = tree.get("crop") or (0, 0, 11, 11)
    inside = (top + height <= tree["size"][0] and left + width <= tree["size"][1]) or not tree.get("crop")
    listed = "listed" in (tree["context"], tree["targets"])
    return (
        all(len(set(views)) == len(views) for views in groups)
        and inside
        and min(height, width) >= 11
        and listed == (tree.get("objects") is not None)
    )


def in_order(tree: Any) -> bool:
    """Views by ascending number, each once."""
    views = [image["view"] for image in tree["images"]]
    return views == sorted(set(views)) and all(list(image["metrics"]) == list(METRICS) for image in tree["images"])


def record_of(fingerprint: Fingerprint, folder: Path) -> Any:
    """The record of an object, of this evaluation."""
    return RecordFolder(folder, fingerprint).read("a1")
