"""A scene as members of a tar: ``KEY.cameras.json``, ``KEY.000.png``, ``KEY.001.png``, ..., and then its maps, kind
after kind, as ``KEY.000.depth.png``. Kinds of maps that are not known are passed over.
"""

import io
import json
import re
import tarfile
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


def read_members(data: bytes) -> dict[str, bytes]:
    """The files in a piece of a plain tar, by name.

    Raises UserError for a member that is no plain file whose bytes lie in the piece (a link, a device, a file with
    holes, which could be of any size) and for a name that occurs twice; TarError or ValueError for what is no tar, or a
    compressed one."""
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            end = member.offset_data + member.size
            if (
                member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE)
                or member.issparse()
                or not member.offset_data <= end <= len(data)
            ):
                raise UserError(f"damaged: {member.name!r} is no plain file")
            if member.name in members:
                raise UserError(f"damaged: {member.name!r} is there twice")
            members[member.name] = data[member.offset_data : end]
    return members


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a member whose header holds nothing that varies between runs (time 0, user 0, mode 0644)."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
