"""A scene as the files of a tar: ``KEY.cameras.json``, ``KEY.000.png``, ``KEY.001.png``, ..., and then its maps, kind
after kind, as ``KEY.000.depth.png``. Kinds of maps that are not known are passed over.
"""

import json
import re
from collections.abc import Iterator

from vcgen.data.shards.maps import KINDS
from vcgen.data.shards.record import SceneRecord
from vcgen.errors import UserError


def members_of(record: SceneRecord) -> Iterator[tuple[str, bytes]]:
    """Names and contents, in order."""
    yield f"{record.key}.cameras.json", json.dumps(record.cameras_json(), allow_nan=False).encode()
    for number, image in enumerate(record.images):
        yield f"{record.key}.{number:03d}.png", image
    for kind in (kind for kind in KINDS if kind in record.maps):
        for number, image in enumerate(record.maps[kind]):
            yield f"{record.key}.{number:03d}.{kind}.png", image


def record_of(members: dict[str, bytes]) -> SceneRecord:
    """The record of a scene's members; raises UserError where they are not as above, or the record is invalid."""
    names = list(members)
    key = names[0].split(".", 1)[0] if names else ""
    pattern = re.compile(rf"{re.escape(key)}\.(\d{{3,}})\.([a-z0-9_]+)\.[a-z0-9]+")
    maps = [(name, found) for name in names if (found := pattern.fullmatch(name))]
    first, images = names[:1], [name for name in names[1:] if not pattern.fullmatch(name)]
    numbered = [f"{key}.{number:03d}.png" for number in range(len(images))]
    if [*first, *images] != [f"{key}.cameras.json", *numbered]:
        raise UserError(
            f"damaged: scene {key!r} should hold cameras.json and numbered PNGs, found"
            f" {', '.join(names[:3]) or 'nothing'}"
        )
    kept: dict[str, list[bytes]] = {}
    for name, found in maps:
        if (kind := found[2]) in KINDS:
            if name != f"{key}.{len(kept.setdefault(kind, [])):03d}.{kind}.png":
                raise UserError(f"damaged: {name} is out of order")
            kept[kind].append(members[name])
    return SceneRecord.from_cameras_json(key, members[names[0]], [members[name] for name in images], kept).validate()
