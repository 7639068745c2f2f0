"""What the fuzzer spoils of the layouts whose cameras lie in one file: folders of one's own, NMR and CO3D."""

import contextlib
import functools
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import co3d_files
import test_nmr
import test_posed_folder
from fuzz_mutations import plain, spoil_bytes, spoil_json
from fuzz_specs import rigid
from fuzz_subject import Files, Subject, spoil_one
from scenes import listing
from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.co3d import Co3d
from vcgen.data.formats.nmr import Nmr
from vcgen.data.formats.posed_folder import PosedFolder
from vcgen.data.shards.conversion import convert_one
from vcgen.data.shards.record import SceneRecord, decode_views
from vcgen.errors import UserError

FRAMES, LISTS = "cup/frame_annotations.jgz", "cup/set_lists/set_lists_fewview_dev.json"


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them. folder: to make the whole files in."""
    test_posed_folder.write_scene(folder / "own" / "scene", views=test_posed_folder.NAMES)
    load = functools.partial(packed, PosedFolder(), {})
    yield Subject("folder cameras.json", listing(folder / "own"), spoil_one("scene/cameras.json"), load, posed)
    test_nmr.write_object(folder / "nmr" / test_nmr.CAR / "car")
    spoil = spoil_one(f"{test_nmr.CAR}/car/cameras.npz", spoil_bytes)  # it carries checksums
    yield Subject("nmr cameras.npz", listing(folder / "nmr"), spoil, functools.partial(packed, Nmr(), {"lists": ""}))
    co3d_files.write_category(folder / "co3d", ("1_2_3",))
    load, files = functools.partial(packed, Co3d(), {"up": "z"}), listing(folder / "co3d")
    yield Subject("co3d frame_annotations.jgz", files, spoil_one(FRAMES, spoil_jgz), load, annotated)
    yield Subject("co3d set_lists.json", files, spoil_one(LISTS), load, listed, 0.5)


def packed(form: SceneFormat, own: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What packing makes of all scenes; how many frames are left out is said, and no fault."""
    settings = form.settings((16, 16), form.near, form.far, form.background, "s", "train", "CC0", "", **own)
    found = []
    with contextlib.redirect_stdout(io.StringIO()):
        scenes = form.list_scenes(folder, settings)
    for scene in scenes:
        scene.files()
        record, _ = convert_one(form.read_scene, scene, settings)
        if not isinstance(record, SceneRecord):
            raise UserError(record)
        found.append({**vars(record), "images": decode_views(record, range(len(record.images)))})
    return found


def spoil_jgz(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """What is compressed, or what it is compressed to."""
    if random.random() < 0.2:
        return spoil_bytes(random, data, others)
    return gzip.compress(spoil_json(random, gzip.decompress(data)), mtime=0)


def posed(files: Files) -> bool:
    """Poses are rigid, lenses possible, and each image is named once."""
    tree = plain(files["scene/cameras.json"])
    lenses = all(0.1 <= K[i][i] <= 50 and -2 <= K[i][2] <= 3 for K in tree["K"] for i in (0, 1))
    near, far = tree["t_near"], tree["t_far"]
    return all(map(rigid, tree["c2w"])) and lenses and 0 < near < far and len(set(tree["views"])) == len(tree["c2w"])


def annotated(files: Files) -> bool:
    """Cameras are rigid, whose transposes are, too; which frames have any may change."""
    data = files[FRAMES]
    views = [frame["viewpoint"] for frame in plain(gzip.decompress(data)) if frame.get("viewpoint")]
    return all(rigid([[*row, x] for row, x in zip(zip(*view["R"]), view["T"], strict=True)]) for view in views)


def listed(files: Files) -> bool:
    """Of the frames there are at least two are named."""
    numbers = {number for sequence, number, _ in plain(files[LISTS])["train"] if sequence == "1_2_3"}
    return len(numbers & set(range(co3d_files.VIEWS))) >= 2
