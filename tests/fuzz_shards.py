"""What the fuzzer spoils of shard folders: the index, cameras and images in the tar files, their bytes, the notes of
packing.
"""

import functools
import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from fuzz_mutations import plain, png_is_whole, spoil_bytes, spoil_json
from fuzz_specs import TEXT, any_of, cameras, one_of, rows, table, text
from fuzz_subject import Files, Subject, by_rule, spoil_one
from scenes import listing, make_record
from vcgen.data.shards import maps
from vcgen.data.shards.files import read_index, write_shards
from vcgen.data.shards.packing import Made, Plan, load_made, save_made
from vcgen.data.shards.record import decode_views
from vcgen.errors import UserError

SIZE = [8, 6]
#: Kind of a map -> how Pillow calls its pixels.
MODES = {"depth": "I;16", "normals": "RGB", "mask": "L"}


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them. folder: to make the whole files in."""
    records = [
        make_record(key, count=2, split="train", licence="CC0", source="s", maps=kinds)
        for key, kinds in (("a", made_maps()), ("b", made_maps("depth")), ("c", {}))
    ]
    write_shards(records, folder / "shards", (8, 6), samples_per_shard=2, source="s", split="train", licence="CC0")
    files = listing(folder / "shards")
    whole_index = json.loads(files["index.json"])
    index = functools.partial(index_holds, original=whole_index)
    yield Subject("index.json", files, spoil_one("index.json"), open_shards, by_rule("index.json", index), 2)
    remade = functools.partial(spoil_member, json.loads(files["index.json"]))
    scene = [lambda files: members_hold(files, whole_index)]
    yield Subject(
        "cameras.json", files, functools.partial(remade, r"\.cameras\.json", spoil_json), open_shards, scene[0], 3
    )
    image, kinds = r"\.\d+\.png", rf"({'|'.join(MODES)})\.png"
    yield Subject("image in a shard", files, functools.partial(remade, image, spoil_bytes), open_shards, scene[0], 2)
    yield Subject("map in a shard", files, functools.partial(remade, kinds, spoil_bytes), open_shards, scene[0], 2)
    yield Subject("tar", files, spoil_one("000000.tar", same_length), open_shards, scene[0], 2)
    plan, made = Plan("000000", [], "abc"), folder / "made"
    made.mkdir()
    save_made(made, plan, records, [("x", "broken")], [], (8, 6))
    note = Subject(
        "note of a shard",
        listing(made),
        spoil_one("000000.json"),
        functools.partial(load_note, plan=plan),
        note_holds,
        0.5,
    )
    yield note


def made_maps(*kinds: str) -> dict[str, list[bytes]]:
    """Maps of two views, of all kinds unless some are named."""
    hit = np.arange(48).reshape(SIZE) % 3 > 0
    towards = np.where(hit[..., None], [0.6, 0.0, 0.8], 0.0)
    depths = [np.where(hit, np.linspace(low, 1.7, 48).reshape(SIZE), 0.0) for low in (0.9, 1.1)]
    made = {
        "depth": [maps.encode_depth(depth, 1.8) for depth in depths],
        "normals": [maps.encode_normals(normals) for normals in (towards, towards[..., ::-1])],
        "mask": [maps.encode_mask(mask) for mask in (hit, hit[::-1])],
    }
    return {kind: made[kind] for kind in kinds or made}


def open_shards(folder: Path) -> Any:
    """Everything that the index and the scenes say, all pixels, and all maps."""
    index = read_index(folder)
    records = [index.read(number) for number in range(len(index.samples))]
    pixels = [decode_views(record, range(len(record.images))) for record in records]
    seen = [
        maps.decode_maps(record.maps, view, record.size, record.t_far, record.key)
        for record in records
        for view in range(len(record.views))
    ]
    about = (
        index.image_size,
        index.source,
        index.split,
        index.licence,
        list(index.samples),
        [(s.name, s.bytes, s.sha256) for s in index.shards],
    )
    return (
        about,
        [{name: value for name, value in vars(record).items() if name not in ("images", "maps")} for record in records],
        pixels,
        seen,
    )


def index_holds(tree: Any, original: Any) -> bool:
    """Free text may be another, scenes and whole files may be left out; all else is what the files say."""
    sample = [one_of(entry) for shard in original["shards"] for entry in shard["samples"]]
    shard = [
        table(
            name=one_of(s["name"]),
            bytes=one_of(s["bytes"]),
            sha256=text(64, 64, "[0-9a-f]*"),
            samples=rows(any_of(*map(one_of, s["samples"])), 1),
        )
        for s in original["shards"]
    ]
    rule = table(
        version=one_of(1),
        image_size=one_of(SIZE),
        source=TEXT,
        split=any_of(one_of("", "train")),
        licence=TEXT,
        shards=rows(any_of(*shard), 1),
    )
    return rule(tree) and len(sample) >= 1


def spoil_member(index: Any, ending: str, how, random: Random, files: Files) -> Files:
    """Spoil a file in a tar, and make the tar and the index anew, so that what lies deeper is reached. ending: a
    pattern.
    """
    shard, members, named = None, {}, []
    while not named:
        shard = random.choice(index["shards"])
        with tarfile.open(fileobj=io.BytesIO(files[shard["name"]])) as old:
            members = {member.name: old.extractfile(member).read() for member in old}
        named = [name for name in members if re.search(f"{ending}$", name)]
    chosen = random.choice(named)
    spoiled = how(random, members[chosen], list(members.values()))
    members[chosen] = random.choice(list(members.values())) if random.random() < 0.05 else spoiled
    buffer, offsets = io.BytesIO(), {}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for name, data in members.items():
            offsets.setdefault(name.split(".")[0], new.offset)
            header = tarfile.TarInfo(name)
            header.size = len(data)
            new.addfile(header, io.BytesIO(data))
        ends = [*list(offsets.values())[1:], new.offset]
    data = buffer.getvalue()
    samples = [
        {**s, "offset": offsets[s["key"]], "size": end - offsets[s["key"]]} for s, end in zip(shard["samples"], ends)
    ]
    entry = {**shard, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "samples": samples}
    changed = {**index, "shards": [entry if other is shard else other for other in index["shards"]]}
    return {shard["name"]: data, "index.json": json.dumps(changed).encode()}


def same_length(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """Spoiled bytes of the length that the index says."""
    return spoil_bytes(random, data, others)[: len(data)].ljust(len(data), b"\0")


def members_hold(files: Files, index: Any) -> bool:
    """Whether the scenes of the spoiled tar files can be what was packed: whole images, possible cameras, the index's
    keys and groups.
    """
    listed = json.loads(files["index.json"]) if "index.json" in files else index
    for shard in listed["shards"]:
        for sample in shard["samples"] if shard["name"] in files else ():
            piece = files[shard["name"]][sample["offset"] : sample["offset"] + sample["size"]]
            try:
                with tarfile.open(fileobj=io.BytesIO(piece), mode="r:") as tar:
                    members = {member.name: tar.extractfile(member).read() for member in tar}
                tree = plain(members.pop(f"{sample['key']}.cameras.json"))
            except (ValueError, KeyError, RecursionError, tarfile.TarError):
                return False
            group = sample["key"] if not tree.get("group") else tree["group"]
            kinds = Counter(kind_of(name) for name in members)
            images = kinds.pop("image", 0)
            if not cameras(tree, SIZE, images) or (group, images) != (sample["group"], sample["views"]):
                return False
            if any(kinds[kind] not in (0, images) for kind in MODES) or tree.get("split") not in ("", "train", None):
                return False
            modes = {"image": "RGBA", **MODES}
            if not all(png_holds(data, (6, 8), modes[kind_of(name)]) for name, data in members.items()):
                return False
    return True


def kind_of(name: str) -> str:
    """What a member of a tar holds, by its name."""
    return name.split(".")[2] if name.count(".") > 2 else "image"


def png_holds(data: bytes, size: tuple[int, int], mode: str) -> bool:
    """Whether it is a whole PNG file of such pixels."""
    if not png_is_whole(data):
        return False
    with Image.open(io.BytesIO(data)) as image:
        return image.size == size and image.mode == mode and bool(image.tobytes())


def load_note(folder: Path, plan: Plan) -> Made:
    """What a later run takes over of a finished shard; it makes the shard anew where the note says nothing."""
    found = load_made(folder, plan)
    if found is None:
        raise UserError("made anew")
    return found


def note_holds(files: Files) -> bool:
    """Its texts and checksum may be others, and scenes that the shard does not hold; all that is published is read
    again.
    """
    return by_rule("000000.json", lambda tree: tree["fingerprint"] == "abc")(files)
