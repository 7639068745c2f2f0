"""A category of CO3D's second version, laid out as published: films of dots, by cameras that are known."""

import gzip
import json
from pathlib import Path

import numpy as np
from PIL import Image

from colmap_files import WORLD
from scenes import looking_inwards, png
from seen_dots import draw_dots

#: Height and width of an image, and its intrinsics.
SIZE = 90, 120
K = np.array([[1.1, 0, 0.52], [0, 1.1 * 120 / 90, 0.47], [0, 0, 1]])
VIEWS = 6
C2W = looking_inwards(VIEWS, distance=2.0, seed=3)
#: Where the mask is, rows and columns.
COVERED = slice(20, 75), slice(30, 100)


def in_world(c2w: np.ndarray, world: np.ndarray) -> np.ndarray:
    """Poses in a world that is turned, scaled and moved by a similarity."""
    moved = world @ c2w
    moved[:, :3, :3] /= np.cbrt(np.linalg.det(world[:3, :3]))
    return moved


def viewpoint(c2w: np.ndarray, kind: str) -> dict:
    """PyTorch3D's: for row vectors, x left, y up, and intrinsics in its units, which run the other way."""
    R = c2w[:3, :3] @ np.diag([-1.0, -1.0, 1.0])
    half = np.array(SIZE[::-1]) / 2
    unit = half if kind == "ndc_norm_image_bounds" else np.array([min(half)] * 2)
    focal, center = np.array([K[0, 0], K[1, 1]]) * 2 * half, K[:2, 2] * 2 * half
    return {
        "R": R.tolist(),
        "T": (-c2w[:3, 3] @ R).tolist(),
        "focal_length": (focal / unit).tolist(),
        "principal_point": ((half - center) / unit).tolist(),
        "intrinsics_format": kind,
    }


def frames(sequence: str, kind: str = "ndc_isotropic", world: np.ndarray = WORLD, category: str = "cup") -> list[dict]:
    """The annotations of a sequence. Numbers in names begin elsewhere than those of frames."""
    return [
        {
            "sequence_name": sequence,
            "frame_number": number,
            "frame_timestamp": 0.1 * number,
            "image": {"path": f"{category}/{sequence}/images/frame{number + 8:06d}.jpg", "size": list(SIZE)},
            "depth": {"path": "x.png", "scale_adjustment": 1.0, "mask_path": None},
            "mask": {"path": f"{category}/{sequence}/masks/frame{number + 8:06d}.png", "mass": 100.0},
            "viewpoint": viewpoint(pose, kind),
            "meta": {"frame_type": "train_known"},
        }
        for number, pose in enumerate(in_world(C2W, world))
    ]


def write_jgz(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))


def write_category(root: Path, sequences: tuple[str, ...] = ("1_2_3", "4_5_6"), **options) -> list[dict]:
    """Images, masks, annotations and lists; returns the frames' annotations. options: of :func:`frames`."""
    found = [frame for name in sequences for frame in frames(name, **options)]
    for number, frame in enumerate(found):
        for part in ("image", "mask"):
            (root / frame[part]["path"]).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(draw_dots(SIZE, C2W[number % VIEWS], K))
        image.save(root / frame["image"]["path"], quality=98, subsampling=0)
        mask = np.zeros((*SIZE, 3), np.uint8)
        mask[COVERED] = 255
        (root / frame["mask"]["path"]).write_bytes(png(mask))
    category = root / options.get("category", "cup")
    write_jgz(category / "frame_annotations.jgz", found)
    scores = [
        {"sequence_name": name, "category": "cup", "viewpoint_quality_score": 1.0 + i}
        for i, name in enumerate(sequences)
    ]
    write_jgz(category / "sequence_annotations.jgz", scores)
    items = [[frame["sequence_name"], frame["frame_number"], frame["image"]["path"]] for frame in found]
    lists = {"train": items[: VIEWS - 2], "val": items[VIEWS - 2 : VIEWS], "test": items[VIEWS:]}
    (category / "set_lists").mkdir(exist_ok=True)
    (category / "set_lists" / "set_lists_fewview_dev.json").write_text(json.dumps(lists))
    return found
