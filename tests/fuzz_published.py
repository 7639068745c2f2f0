"""What the fuzzer spoils of RealEstate10K, Amazon Berkeley Objects and CLEVR3D."""

import functools
from collections.abc import Iterator
from pathlib import Path

import abo_files
import re10k_files
import test_clevr3d
from fuzz_layouts import packed
from fuzz_mutations import plain, spoil_bytes
from fuzz_sources import spoil_text
from fuzz_specs import rigid
from fuzz_subject import Files, Subject, spoil_one
from scenes import listing
from vcgen.data.formats.abo import Abo
from vcgen.data.formats.clevr3d import Clevr3d
from vcgen.data.formats.re10k import Re10k

INDEX, METADATA, TRANSFORMS = "index.json", "B00/metadata.json", "B00/transforms.json"


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them. folder: to make the whole files in."""
    load = functools.partial(packed, Re10k(), {"up": "z"})
    re10k_files.write_clip(folder / "clip", "a")
    yield Subject("re10k camera file", listing(folder / "clip"), spoil_one("a.txt", spoil_text), load, filmed)
    re10k_files.write_chunks(folder / "chunks", [re10k_files.example(name) for name in "ab"])
    files = listing(folder / "chunks")
    yield Subject("re10k chunk", files, spoil_one("000000.torch", spoil_bytes), load)  # it carries checksums
    yield Subject("re10k index.json", files, spoil_one(INDEX), load, indexed, 0.5)
    load = functools.partial(packed, Abo(), {})
    abo_files.write_benchmark(folder / "benchmark" / "B00", ("0",))
    yield Subject("abo metadata.json", listing(folder / "benchmark"), spoil_one(METADATA), load, lit)
    abo_files.write_renderings(folder / "renderings" / "B00", "B00")
    yield Subject("abo transforms.json", listing(folder / "renderings"), spoil_one(TRANSFORMS), load, rendered)
    test_clevr3d.write_scenes(folder / "clevr3d", (0, 1), total=2)
    load, spoil = functools.partial(packed, Clevr3d(), {}), spoil_one("metadata.npz", spoil_bytes)
    yield Subject("clevr3d metadata.npz", listing(folder / "clevr3d"), spoil, load)  # it carries checksums


def filmed(files: Files) -> bool:
    """At least two frames, each of a time that there is, with a possible lens and a rigid camera."""
    lines = files["a.txt"].decode("utf-8-sig").splitlines()
    rows = [[float(word) for word in line.split()] for line in lines[1:] if line.strip()]
    times = [int(row[0]) for row in rows]
    lenses = all(0.1 <= f <= 50 and -2 <= c <= 3 for row in rows for f, c in zip(row[1:3], row[3:5]))
    poses = all(len(row) == 19 and rigid([row[7:11], row[11:15], row[15:]]) for row in rows)
    whole = len(set(times)) == len(times) >= 2 and set(times) <= set(re10k_files.TIMES)
    return whole and lenses and poses and not any(row[5] or row[6] for row in rows)


def indexed(files: Files) -> bool:
    """Some of the clips that the chunk has."""
    found = plain(files[INDEX])
    return bool(found) and found.items() <= {"a": "000000.torch", "b": "000000.torch"}.items()


def flat(values: list) -> list:
    """Numbers in a list, or in lists in it."""
    return [number for part in values for number in (part if isinstance(part, list) else [part])]


def lit(files: Files) -> bool:
    """At least two views that have images, each once, with a lens in pixels and a rigid camera."""
    views = plain(files[METADATA])["views"]
    numbers = [view["index"] for view in views]
    lenses = [flat(view["K"]) for view in views]
    lens = all(9.6 <= K[i] <= 4800 and 0 < K[j] < 96 for K in lenses for i, j in ((0, 2), (4, 5)))
    poses = [flat(view["pose"]) for view in views]
    whole = len(set(numbers)) == len(numbers) >= 2 and set(numbers) <= set(abo_files.NUMBERS)
    return whole and lens and all(rigid([pose[i : i + 4] for i in range(0, 16, 4)]) for pose in poses)


def rendered(files: Files) -> bool:
    """At least two frames that have images, each once, with angles and a rigid camera."""
    frames = plain(files[TRANSFORMS])["frames"]
    names = [frame["file_path"].replace("\\", "/").rpartition("/")[2] for frame in frames]
    known = {f"B00_{number:02d}{end}" for number in range(len(abo_files.NUMBERS)) for end in ("", ".png")}
    angles = all(0.0199 < frame["camera"][axis] < 2.75 for frame in frames for axis in ("angle_x", "angle_y"))
    whole = len(set(names)) == len(names) >= 2 and set(names) <= known
    return whole and angles and all(rigid(frame["transform_matrix"]) for frame in frames)
