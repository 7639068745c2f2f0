"""Cameras as a user may write them: one JSON file of poses and intrinsics, with images or for images to be drawn."""

import math
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from vcgen.data.shards.record import check_intrinsics, check_pose
from vcgen.errors import UserError
from vcgen.io import read_json
from vcgen.schema import Finite, Name, Positive

Row = tuple[Finite, Finite, Finite, Finite]
Vector = tuple[Finite, Finite, Finite]


class CameraFile(Struct):
    """A file of cameras; ``KEY.cameras.json`` of a shard is one, too. c2w: camera-to-world, OpenCV axes, z up. K:
    intrinsics divided by the image's size, one for all views or one for each. t_near, t_far: ray bounds, Euclidean.
    views: names."""

    c2w: Annotated[list[tuple[Row, Row, Row, Row]], Meta(min_length=1, max_length=10_000)]
    K: Annotated[list[tuple[Vector, Vector, Vector]], Meta(min_length=1, max_length=10_000)]
    t_near: Positive | None = None
    t_far: Positive | None = None
    views: list[Name] | None = None


class StatedCameras(NamedTuple):
    """What a file says, checked. c2w: (V, 4, 4). K: (V, 3, 3). near, far, names: None where it does not say."""

    c2w: np.ndarray
    K: np.ndarray
    near: float | None
    far: float | None
    names: list[str] | None


def read_camera_file(path: Path, least: int = 2) -> StatedCameras:
    """The cameras of a JSON file, ``least`` at least; see :class:`CameraFile`. Raises UserError for one that cannot be
    used.
    """
    file = read_json(path, CameraFile, "it must hold c2w and K as docs/formats.md says")
    c2w, K = (np.array(matrices, dtype=np.float64) for matrices in (file.c2w, file.K))
    if len(c2w) < least:
        raise UserError(f"{path}: has {len(c2w)} pose, at least {least} are needed")
    if len(K) not in (1, len(c2w)):
        raise UserError(f"{path}: {len(c2w)} poses and {len(K)} intrinsics; give one K for all views, or one for each")
    if file.views is not None and (len(file.views) != len(c2w) or len(set(file.views)) != len(c2w)):
        raise UserError(f"{path}: views must be {len(c2w)} different names, one for each pose")
    if (file.t_near or 0) >= (file.t_far or math.inf):
        raise UserError(f"{path}: t_near must be less than t_far")
    K = np.broadcast_to(K, (len(c2w), 3, 3))
    for number in range(len(c2w)):
        view = f"{path}, view {number if file.views is None else file.views[number]}"
        check_pose(c2w[number], view)
        check_intrinsics(K[number], view)
    return StatedCameras(c2w, K, file.t_near, file.t_far, file.views)
