"""One posed scene as it is stored: PNG images, their cameras, and where they came from. Imports numpy and Pillow, never
torch.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from vcgen.data.images.reading import MAX_VIEW_PIXELS, PNG_END, PNG_START, check_size, decode_png
from vcgen.data.shards.maps import check_maps
from vcgen.errors import UserError
from vcgen.schema import Name, Side, Text
from vcgen.terminal import one_line

VERSION = 1
#: Of positions and distances in a scene, in world units: float32 has seven digits.
FARTHEST = 1e6
BACKGROUNDS = ("white", "black", "alpha", "none")
_PNG_COLOR, _PNG_COLOR_ALPHA = 2, 6
_JSON_FIELDS = ("t_near", "t_far", "distance", "background", "scale", "source", "split", "licence", "group")
Row = tuple[float, float, float, float]
Vector = tuple[float, float, float]


class CamerasFile(Struct, forbid_unknown_fields=True, gc=False):
    """What ``cameras.json`` holds; see :class:`SceneRecord`, which checks the values."""

    version: Literal[1]
    c2w: list[tuple[Row, Row, Row, Row]]
    K: list[tuple[Vector, Vector, Vector]]
    size: tuple[Side, Side]
    t_near: float
    t_far: float
    up: Vector
    views: list[Annotated[str, Meta(max_length=1000)]] | None = None
    distance: str = "euclidean"
    background: str = "none"
    scale: float = 1.0
    source: Text = ""
    split: Name = ""
    licence: Text = ""
    group: Name = ""


#: Made once: loaders read a file for every scene.
DECODER = msgspec.json.Decoder(CamerasFile)


@dataclass(frozen=True)
class SceneRecord:
    """A scene: V >= 2 images of one thing with calibrated cameras. The stored form of ``cameras.json`` plus images.

    key: unique name; letters, digits, ``_`` and ``-``, at most 80 (it names files in a tar, where a dot ends the name).
    images: V PNG files as bytes, 8-bit RGB, or 8-bit RGBA with *straight* color where ``background`` is "alpha".
    c2w: (V, 4, 4) float64 camera-to-world, OpenCV axes (x right, y down, z forward).
    K: (V, 3, 3) float64 intrinsics normalized by the image size (fx/W, fy/H, cx/W, cy/H; pixel centers at +0.5).
    size: (height, width) in pixels, the same for all images. t_near, t_far: ray bounds in world units, Euclidean
        distance.
    views: V unique names of the images in their source, in natural order ("r_2" before "r_10").
    background: what is behind the object: "white", "black", "alpha" (the PNGs carry coverage) or "none" (a real
        backdrop).
    up: the world's up vector. scale: world units stored / world units of the source. group: scenes with one group are
    variants of one model and count as one in statistics. source, split, licence: free text. maps: by kind, one PNG for
    each view.
    """

    key: str
    images: list[bytes]
    c2w: np.ndarray
    K: np.ndarray
    size: tuple[int, int]
    t_near: float
    t_far: float
    views: list[str]
    background: str = "none"
    distance: str = "euclidean"
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    scale: float = 1.0
    source: str = ""
    split: str = ""
    licence: str = ""
    group: str = ""
    maps: dict[str, list[bytes]] = dataclasses.field(default_factory=dict)

    def validate(self) -> "SceneRecord":
        """Check everything that can be checked without decoding pixels; returns itself, raises UserError naming scene
        and view.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", self.key):
            raise UserError(f"scene key {self.key!r}: use 1 to 80 letters, digits, '_' or '-' only")
        self._check_settings()
        self._check_counts()
        # All views at once, because loaders come by here for every scene; then those that look wrong one by one, to say
        # why.
        for index in np.flatnonzero(~(_plausible_poses(self.c2w) & _plausible_intrinsics(self.K))).tolist():
            where = f"scene {self.key}, view {self.views[index]}"
            check_pose(self.c2w[index], where)
            check_intrinsics(self.K[index], where)
        for index, view in enumerate(self.views):
            where = f"scene {self.key}, view {view}"
            check_png(self.images[index], self.size, self.background == "alpha", where)
        check_maps(self.maps, len(self.views), self.size, f"scene {self.key}")
        return self

    def _check_settings(self) -> None:
        where = f"scene {self.key}"
        if self.distance != "euclidean":
            raise UserError(
                f"{where}: distance kind {self.distance!r} is not supported, near and far must be 'euclidean'"
            )
        if self.background not in BACKGROUNDS:
            raise UserError(f"{where}: background {self.background!r} is not one of {', '.join(BACKGROUNDS)}")
        # float32 is what cameras are in training: rays must not end where they begin.
        if not 0 <= self.t_near < self.t_far <= FARTHEST or not np.float32(self.t_near) < np.float32(self.t_far):
            raise UserError(
                f"{where}: near {self.t_near} and far {self.t_far} must satisfy 0 <= near < far <= {FARTHEST:g}"
            )
        if len(self.up) != 3 or not np.isfinite(self.up).all() or not 1e-6 <= np.abs(self.up).max() <= 1e6:
            raise UserError(f"{where}: up vector {self.up} must be three finite numbers, not all zero")
        if not 1e-12 <= self.scale <= 1e12:
            raise UserError(f"{where}: scale {self.scale} must be positive and finite")

    def _check_counts(self) -> None:
        where, count = f"scene {self.key}", len(self.views)
        if count < 2:
            raise UserError(f"{where}: has {count} view(s), at least 2 are needed")
        if len(self.images) != count or self.c2w.shape != (count, 4, 4) or self.K.shape != (count, 3, 3):
            raise UserError(
                f"{where}: {count} view names, {len(self.images)} images, poses {self.c2w.shape}, K {self.K.shape} do"
                " not agree"
            )
        if len(set(self.views)) != count:
            twice = next(view for view in self.views if self.views.count(view) > 1)
            raise UserError(f"{where}: view name {twice!r} occurs more than once")
        if list(self.views) != sorted(self.views, key=natural_order):
            raise UserError(f"{where}: views are not in natural order of their names")

    def cameras_json(self) -> dict[str, Any]:
        """Everything but key and images as a JSON-ready dict; :meth:`from_cameras_json` is the inverse."""
        values = {name: getattr(self, name) for name in _JSON_FIELDS}
        arrays = {
            "c2w": self.c2w.tolist(),
            "K": self.K.tolist(),
            "size": list(self.size),
            "up": list(self.up),
            "views": self.views,
        }
        return {"version": VERSION, **arrays, **values, "group": self.group or self.key}

    @staticmethod
    def from_cameras_json(
        key: str, cameras: bytes, images: list[bytes], maps: dict[str, list[bytes]] | None = None
    ) -> "SceneRecord":
        """Read a ``cameras.json``. Raises UserError for another version, and missing or malformed entries. Does not
        validate.
        """
        try:
            file = DECODER.decode(cameras)
        except (ValueError, RecursionError) as error:
            raise UserError(
                one_line(f"scene {key}: cameras.json: {error}", "pack the data again with this vcgen")
            ) from error
        values = {name: getattr(file, name) for name in _JSON_FIELDS}
        views = [f"{number:06d}" for number in range(len(images))] if file.views is None else file.views
        c2w, K = np.array(file.c2w, dtype=np.float64), np.array(file.K, dtype=np.float64)
        return SceneRecord(
            key=key, images=images, size=file.size, up=file.up, views=views, c2w=c2w, K=K, maps=maps or {}, **values
        ).with_group_default()

    def with_group_default(self) -> "SceneRecord":
        """The same record, its group named after the key where none is given."""
        return self if self.group else dataclasses.replace(self, group=self.key)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which numbers inside names count as numbers: r_2 < r_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def check_pose(c2w: np.ndarray, where: str, tolerance: float = 1e-4) -> None:
    """Raise UserError unless (4, 4) ``c2w`` is finite and rigid: orthonormal rotation, det +1, last row 0 0 0 1, within
    ``tolerance``.
    """
    if not (np.abs(c2w) < FARTHEST).all():
        raise UserError(f"{where}: the camera pose has a NaN, infinite or huge entry (recenter and scale the scene)")
    rotation = c2w[:3, :3]
    deviation = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if deviation > tolerance:
        scale = np.sqrt(np.trace(rotation.T @ rotation) / 3)
        scaled = scale > 0 and np.abs(rotation.T @ rotation / scale**2 - np.eye(3)).max() < tolerance
        why = f"scaled by {scale:.4g}: divide by that" if scaled else f"off by {deviation:.2g}, allowed {tolerance:g}"
        raise UserError(f"{where}: the pose's rotation is not orthonormal ({why})")
    if np.linalg.det(rotation) < 0:
        raise UserError(f"{where}: the pose's rotation is a mirror (det -1); an axis is flipped in the source")
    if np.abs(c2w[3] - [0, 0, 0, 1]).max() > tolerance:
        transposed = "; is the matrix transposed?" if np.abs(c2w[:, 3] - [0, 0, 0, 1]).max() <= tolerance else ""
        raise UserError(f"{where}: the pose's last row is {c2w[3].tolist()}, expected [0, 0, 0, 1]{transposed}")


def check_intrinsics(K: np.ndarray, where: str) -> None:
    """Raise UserError unless (3, 3) normalized ``K`` is a plausible pinhole: focal lengths 0.1 to 50 image sizes, the
    principal point at most two image sizes outside, as in a crop."""
    if not np.isfinite(K).all():
        raise UserError(f"{where}: the intrinsics have a NaN or infinite entry")
    if not (0.1 <= K[0, 0] <= 50 and 0.1 <= K[1, 1] <= 50):
        raise UserError(
            f"{where}: normalized focal lengths {K[0, 0]:.4g}, {K[1, 1]:.4g} are outside 0.1 to 50 (in pixels by"
            " mistake?)"
        )
    if not (-2 <= K[0, 2] <= 3 and -2 <= K[1, 2] <= 3):
        raise UserError(
            f"{where}: the principal point {K[0, 2]:.4g}, {K[1, 2]:.4g} (normalized) is far outside the image (in"
            " pixels?)"
        )
    if np.abs(K[[0, 1, 2, 2], [1, 0, 0, 1]]).max() > 1e-6 or abs(K[2, 2] - 1) > 1e-6:
        raise UserError(
            f"{where}: the intrinsics have skew or an unusual last row; only [[fx,0,cx],[0,fy,cy],[0,0,1]] is supported"
        )


def _plausible_poses(c2w: np.ndarray) -> np.ndarray:
    """(V, 4, 4) -> (V,) bool: False where :func:`check_pose` has something to say."""
    rotation = c2w[:, :3, :3]
    with np.errstate(invalid="ignore", over="ignore"):
        deviation = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max((1, 2))
        last = np.abs(c2w[:, 3] - [0, 0, 0, 1]).max(1)
        return (np.abs(c2w) < FARTHEST).all((1, 2)) & (deviation < 1e-5) & (np.linalg.det(rotation) > 0) & (last < 1e-5)


def _plausible_intrinsics(K: np.ndarray) -> np.ndarray:
    """(V, 3, 3) -> (V,) bool: False where :func:`check_intrinsics` has something to say."""
    focal, center, rest = K[:, [0, 1], [0, 1]], K[:, :2, 2], K[:, [0, 1, 2, 2], [1, 0, 0, 1]]
    inside = ((focal >= 0.1) & (focal <= 50) & (center >= -2) & (center <= 3)).all(1)
    return inside & (np.abs(rest).max(1) < 1e-7) & (np.abs(K[:, 2, 2] - 1) < 1e-7)


def check_png(data: bytes, size: tuple[int, int], has_alpha: bool, where: str) -> None:
    """Raise UserError unless ``data`` starts and ends as a complete 8-bit PNG of ``size``, RGBA if ``has_alpha`` else
    RGB.
    """
    if not data.startswith(PNG_START) or len(data) < 33:
        raise UserError(f"{where}: the image is not a PNG file ({len(data)} bytes)")
    if not data.endswith(PNG_END):
        raise UserError(f"{where}: the PNG is truncated ({len(data)} bytes, no end mark)")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if (height, width) != tuple(size):
        raise UserError(
            f"{where}: the image is {height} x {width} (height x width), the scene's size is {size[0]} x {size[1]}"
        )
    check_size(width, height, where, MAX_VIEW_PIXELS)
    expected = _PNG_COLOR_ALPHA if has_alpha else _PNG_COLOR
    if (data[24], data[25]) != (8, expected):
        kinds = {0: "gray", 2: "RGB", 3: "palette", 4: "gray + alpha", 6: "RGBA"}
        found = f"{data[24]}-bit {kinds.get(data[25], data[25])}"
        raise UserError(
            f"{where}: the PNG is {found}, the scene needs 8-bit {kinds[expected]}; all views must be alike"
        )


def decode_views(record: SceneRecord, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode chosen views. Returns straight color (n, 3, H, W) float32 in [0, 1] and alpha (n, 1, H, W), None for
    opaque images.
    """
    shape = (*record.size, 4 if record.background == "alpha" else 3)
    pixels = np.stack(
        [decode_png(record.images[i], shape, f"scene {record.key}, view {record.views[i]}") for i in indices]
    )
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / 255
    return images[:, :3], (images[:, 3:] if record.background == "alpha" else None)
