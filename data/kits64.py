"""Low-poly kits as folders of .ply files, parted by maker, for ``vcgen data render``: see README.md beside this file.

    python data/kits64.py KITS OUT

KITS has a folder for each category, with a file MAKER_NAME.npz for each model: vertices (V, 3) with y up, faces (F, 3),
corner_rgb (F, 3, 3) in uint8. OUT/train and OUT/test get their models as CATEGORY/MAKER_NAME.ply, OUT/families.json
the lists of near-copies. Cars are in cars64 already; buildings and trees are left out, as no objects of a household;
so are models that are flat, and those of which too much is drawn twice, in two colors that no camera can tell apart.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np

from vcgen.data.formats.files import visible
from vcgen.errors import UserError
from vcgen.folders import replacing_folder
from vcgen.meshes.furniture import FLAT
from vcgen.terminal import complain, say

CATEGORIES = ("fish", "food", "furniture", "seats", "spaceships")
#: Whose models are tested on; those of Kenney and Quaternius are trained on.
TEST_MAKER = "kaykit"
#: Letters by which names of near-copies agree, at their beginning or where one name ends with the other.
BEGIN, END = 3, 4
#: Fraction of a model's surface that may have two colors in one place, and how much those differ, of 255.
TWICE, DIFFERENT = 0.05, 20


def main(source: Path, out: Path) -> None:
    """Write the folders. Raises UserError for a source without models, and for one that is damaged."""
    files = [file for name in CATEGORIES if (source / name).is_dir() for file in visible(source / name)]
    files = [file for file in files if file.suffix == ".npz"]
    if not files:
        raise UserError(f"{source}: has no models CATEGORY/MAKER_NAME.npz of {', '.join(CATEGORIES)}")
    kept, flat, twice = [], [], []
    with replacing_folder(out) as folder:
        for file in files:
            vertices, faces, colors = read_kit(file)
            sides = np.ptp(vertices[faces].reshape(-1, 3), axis=0)
            if sides.min() < FLAT * sides.max():
                flat.append(file.stem)
                continue
            if drawn_twice(vertices, faces, colors) > TWICE:
                twice.append(file.stem)
                continue
            kept.append(file)
            split = "test" if file.stem.startswith(TEST_MAKER) else "train"
            target = folder / split / file.parent.name / f"{file.stem}.ply"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(ply(vertices, faces, colors))
        (folder / "families.json").write_text(json.dumps(families(kept), indent=1) + "\n")
    say(f"{out}: {len(kept)} models")
    for reason, names in (("flat", flat), ("drawn twice", twice)):
        say(f"left out {len(names)}, {reason}: {', '.join(names)}")


def read_kit(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and the colors of their corners."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["vertices"], arrays["faces"], arrays["corner_rgb"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: cannot be read ({error}); copy it again") from error


def drawn_twice(vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> float:
    """The fraction of a surface whose faces share their corners with one of another color."""
    corners = vertices[faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    _, number = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True)
    number, mean = number.reshape(-1), colors.mean(1)
    low, high = np.full((len(faces), 3), np.inf), np.full((len(faces), 3), -np.inf)
    np.minimum.at(low, number, mean)
    np.maximum.at(high, number, mean)
    return float(areas[(high - low).max(1)[number] > DIFFERENT].sum() / areas.sum())


def ply(vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> bytes:
    """A binary .ply file in which every face has corners of its own, with their colors."""
    names = ("x", "y", "z", "red", "green", "blue")
    corners = np.zeros(3 * len(faces), [(name, "<f4" if name in "xyz" else "u1") for name in names])
    for number, name in enumerate(names):
        table = vertices[faces] if name in "xyz" else colors
        corners[name] = table.reshape(-1, 3)[:, number % 3]
    triangles = np.zeros(len(faces), [("count", "u1"), ("index", "<i4", 3)])
    triangles["count"], triangles["index"] = 3, np.arange(3 * len(faces)).reshape(-1, 3)
    kinds = (f"property {'float' if name in 'xyz' else 'uchar'} {name}" for name in names)
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(corners)}", *kinds]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    return ("\n".join(lines) + "\n").encode() + corners.tobytes() + triangles.tobytes()


def families(files: list[Path]) -> list[list[str]]:
    """Near-copies among the models, as the rendered objects are called: CATEGORY_MAKER_NAME."""
    groups: list[list[Path]] = []
    for file in files:
        near = [group for group in groups if any(alike(file.stem, other.stem) for other in group)]
        groups = [group for group in groups if group not in near] + [[*itertools.chain(*near), file]]
    return sorted(sorted(f"{file.parent.name}_{file.stem}" for file in group) for group in groups if len(group) > 1)


def alike(one: str, other: str) -> bool:
    """Whether two models, MAKER_NAME each, may be near-copies. Editions of a maker's kits are told apart by a number or
    a letter."""
    (first, a), (second, b) = (name.split("_", 1) for name in (one, other))
    ends = min(len(a), len(b)) >= END and (a.endswith(b) or b.endswith(a))
    return first[:6] == second[:6] and (a[:BEGIN] == b[:BEGIN] or ends)


if __name__ == "__main__":
    try:
        if len(sys.argv) != 3:
            raise UserError("write python data/kits64.py KITS OUT")
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        complain(str(error))
        sys.exit(2)
