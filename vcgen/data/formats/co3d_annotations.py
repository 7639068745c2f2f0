"""The annotations of CO3D's second version: gzipped JSON of frames and sequences, and lists of frames.

Sources: ``pytorch3d/implicitron/dataset/types.py`` for the schema, ``frame_data.py`` beside it for how intrinsics are
meant, and https://github.com/facebookresearch/co3d for the layout.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct

from vcgen.data.formats.files import checked_name
from vcgen.errors import UserError
from vcgen.io import parse_json, read_gzip, read_json
from vcgen.schema import Count, Finite, Label, Side

FRAMES, SEQUENCES, LISTS = "frame_annotations.jgz", "sequence_annotations.jgz", "set_lists"
#: Bytes allowed in annotations, once decompressed: the largest category has about 100 MB.
MAX_ANNOTATIONS = 1 << 29
ADVICE = "unpack the category again"
Vector = tuple[Finite, Finite, Finite]
FilePath = Annotated[str, Meta(min_length=1, max_length=1000)]


class Image(Struct, gc=False):
    """path: below the root of the data set. size: (height, width)."""

    path: FilePath
    size: tuple[Side, Side]


class Mask(Struct, gc=False):
    """path: of an image of the probability that a pixel shows the object."""

    path: FilePath


class Viewpoint(Struct, gc=False):
    """PyTorch3D's camera: ``x_camera = x_world R + T``, x left, y up, z forward; intrinsics in one of its two units."""

    R: tuple[Vector, Vector, Vector]
    T: Vector
    focal_length: tuple[Finite, Finite]
    principal_point: tuple[Finite, Finite]
    intrinsics_format: Literal["ndc_norm_image_bounds", "ndc_isotropic"] = "ndc_norm_image_bounds"


class Frame(Struct, gc=False):
    """What is used of a frame."""

    sequence_name: Label
    frame_number: Count
    image: Image
    mask: Mask | None = None
    viewpoint: Viewpoint | None = None


class SequenceScore(Struct, gc=False):
    """What is used of a sequence; the score grows with the quality of its cameras."""

    sequence_name: Label
    viewpoint_quality_score: Finite | None = None


def read_frames(category: Path) -> list[Frame]:
    """The frames of a category. Raises UserError for a damaged file, and for paths that leave the data set."""
    path = category / FRAMES
    frames = parse_json(read_gzip(path, MAX_ANNOTATIONS, ADVICE), list[Frame], str(path), ADVICE, by_hand=False)
    for frame in frames:
        checked_name(frame.image.path, path)
        if frame.mask:
            checked_name(frame.mask.path, path)
    return frames


def read_scores(category: Path) -> dict[str, float]:
    """Sequence -> the quality of its cameras, where it has one."""
    path = category / SEQUENCES
    data = read_gzip(path, MAX_ANNOTATIONS, ADVICE)
    found = parse_json(data, list[SequenceScore], str(path), ADVICE, by_hand=False)
    return {
        entry.sequence_name: entry.viewpoint_quality_score
        for entry in found
        if entry.viewpoint_quality_score is not None
    }


def read_list(category: Path, subset: str, split: str) -> set[tuple[str, int]]:
    """(sequence, frame number) of the frames that a subset's list gives to a split. Raises UserError, naming those
    there are, where there is no such list.
    """
    folder = category / LISTS
    path = folder / f"{LISTS}_{subset}.json"
    if not path.is_file():
        there = sorted(file.stem.removeprefix(f"{LISTS}_") for file in folder.glob(f"{LISTS}_*.json"))
        advice = f"--subset is one of {', '.join(there[:12])}" if there else 'give --subset "", which takes all frames'
        raise UserError(f"{path} is missing; {advice}")
    lists = read_json(path, dict[str, list[tuple[Label, Count, FilePath]]], ADVICE)
    if split not in lists:
        raise UserError(f"{path}: has no split {split}, but {', '.join(sorted(lists)[:10])}; choose with --split")
    return {(sequence, number) for sequence, number, _ in lists[split]}


def poses(frames: Sequence[Frame]) -> np.ndarray:
    """(V, 4, 4) camera-to-world with OpenCV axes, of frames that have a viewpoint: as
    :func:`vcgen.cameras.pytorch3d_to_c2w`, without PyTorch, which every process that packs would load.
    """
    R = np.array([frame.viewpoint.R for frame in frames if frame.viewpoint])
    T = np.array([frame.viewpoint.T for frame in frames if frame.viewpoint])
    c2w = np.tile(np.eye(4), (len(R), 1, 1))
    c2w[:, :3, :3], c2w[:, :3, 3] = R * [-1, -1, 1], -(R @ T[..., None])[..., 0]
    return c2w


def pinhole_pixels(frame: Frame, view: Viewpoint) -> tuple[np.ndarray, np.ndarray]:
    """Focal lengths and principal point (x, y) in pixels of an image of the annotated size.

    "ndc_norm_image_bounds": the image spans -1 to 1 both ways. "ndc_isotropic": its shorter side does. In both, x
    points left and y up.
    """
    half = np.array(frame.image.size[::-1]) / 2
    unit = half if view.intrinsics_format == "ndc_norm_image_bounds" else half.min()
    return np.array(view.focal_length) * unit, half - np.array(view.principal_point) * unit
