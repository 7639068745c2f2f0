"""``vcgen data inspect FOLDER``: what is in a shard folder, in numbers and in images that show a wrong camera
convention at once.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vcgen.cli import usage
from vcgen.data.formats.plausible import odd_pixels, odd_place, odd_poses
from vcgen.data.formats.remarks import print_remarks
from vcgen.data.shards.files import ShardIndex, read_index
from vcgen.data.shards.maps import decode_maps, odd_maps
from vcgen.data.shards.record import SceneRecord, decode_views
from vcgen.errors import UserError
from vcgen.folders import create_folder
from vcgen.io import write_bytes
from vcgen.terminal import say


def main(arguments: list[str]) -> None:
    """Parse ``arguments`` (everything after ``vcgen data inspect``), print the summary and draw the images."""
    usage.run(inspect, arguments, "vcgen data inspect", positional=True)


def inspect(folder: str, out: str | None = None, scene: str | None = None) -> None:
    """Check a shard folder scene by scene, print a summary, and draw three images of it.

    contact_sheet.png: views of several scenes. cameras.png: camera positions and viewing
    directions of one scene from above and from the side; object data shows cameras around the origin, all looking
    inwards. epipolar.png: points marked in one view and, in other views, the lines on which they must lie; where a line
    misses the marked spot of the object, the camera convention is wrong.

    Args:
        folder: shard folder, made by `vcgen data pack`.
        out: folder for the images; outputs/inspect/PARENT/NAME by default, after the last two names of the shard
            folder's path; "none" draws none. They are never put into the shard folder.
        scene: key of the scene in cameras.png and epipolar.png; the first one by default.
    """
    index = read_index(folder)
    keys = [sample.key for _, sample in index.samples]
    if scene is not None and scene not in keys:
        raise UserError(f"{folder}: has no scene {scene!r}; the first are {', '.join(keys[:5])}")
    place = choose_place(Path(folder), out)
    index.verify_checksums()
    remarks: list[tuple[str, str]] = []
    say(*(f"{name + ':':<17}{value}" for name, value in summarize(index, remarks).items()))
    print_remarks(remarks)
    if place is not None:
        chosen = index.read(keys.index(scene) if scene else 0)
        say(f"{'images:':<17}{', '.join(str(path) for path in draw(index, chosen, place))}")


def choose_place(folder: Path, out: str | None) -> Path | None:
    """Where the images of the shard folder ``folder`` go, None for "none". Raises UserError for a place inside
    ``folder``.
    """
    if out == "none":
        return None
    # The last name alone is "train" or "test" most of the time.
    place = Path(out) if out is not None else Path("outputs", "inspect", *folder.resolve().parts[1:][-2:])
    if place.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{place}: lies in the data folder {folder}, which is left as it is; choose another --out, or --out none"
        )
    return place


def summarize(index: ShardIndex, remarks: list[tuple[str, str]]) -> dict[str, str]:
    """Name -> value over all scenes; validates each and decodes one image of each, and its maps. Raises UserError for
    the first bad one.

    Adds (scene, text) to ``remarks`` for poses and maps that look wrong.
    """
    distances, elevations, bounds, backgrounds, maps = [], [], set(), set(), Counter[str]()
    for number in range(len(index.samples)):
        record = index.read(number)
        decode_views(record, [0])
        if record.maps:
            where = f"scene {record.key}, view {record.views[0]}"
            decoded = decode_maps(record.maps, 0, record.size, record.t_far, where)
            remarks += [(record.key, text) for text in odd_maps(decoded, record.t_near)]
            maps.update(decoded.keys())
        centers = record.c2w[:, :3, 3]
        distance = np.linalg.norm(centers, axis=-1)
        distances += distance.tolist()
        up = np.asarray(record.up) / np.linalg.norm(record.up)
        elevations += np.degrees(np.arcsin(np.clip(centers @ up / np.maximum(distance, 1e-9), -1, 1))).tolist()
        texts = odd_poses(record.c2w) or odd_place(
            record.c2w, record.t_near, record.t_far, np.asarray(record.up, dtype=float)
        )
        remarks += [(record.key, text) for text in (*texts, *odd_pixels(record.K, record.size))]
        bounds.add((record.t_near, record.t_far))
        backgrounds.add(record.background)
    views = [sample.views for _, sample in index.samples]
    groups = {sample.group for _, sample in index.samples}
    return {
        "data set": (
            f"{index.source or 'unnamed'}, split {index.split or 'unnamed'}, licence {index.licence or 'not stated'}"
        ),
        "scenes": f"{len(views)} in {len(groups)} groups, {len(index.shards)} shards, checksums good",
        "views": f"{sum(views)} ({_range(views)} a scene)",
        "image size": f"{index.image_size[0]} x {index.image_size[1]} (height x width)",
        "maps": ", ".join(f"{kind} of {number} scene{'s' * (number > 1)}" for kind, number in maps.items()) or "none",
        "bytes": f"{sum(shard.bytes for shard in index.shards):,}",
        "near, far": "; ".join(f"{near:g}, {far:g}" for near, far in sorted(bounds)) + " (Euclidean)",
        "camera distance": f"{_range(distances)} from the origin",
        "elevation": f"{_range(elevations)} degrees above the horizon",
        "background": ", ".join(sorted(backgrounds)) + (" (images carry coverage)" if backgrounds == {"alpha"} else ""),
    }


def draw(index: ShardIndex, record: SceneRecord, out: Path) -> list[Path]:
    """Write contact_sheet.png, cameras.png and epipolar.png into ``out``; returns their paths."""
    from vcgen.data.drawing import contact_sheet, draw_cameras, draw_epipolar_lines

    create_folder(out)
    chosen = np.unique(np.linspace(0, len(index.samples) - 1, 8).astype(int))
    images = {
        "contact_sheet.png": contact_sheet([index.read(int(number)) for number in chosen]),
        "cameras.png": draw_cameras(record),
        "epipolar.png": draw_epipolar_lines(record),
    }
    for name, data in images.items():
        write_bytes(out / name, data)
    return [out / name for name in images]


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4g}" if np.isclose(low, high) else f"{low:.4g} to {high:.4g}"
