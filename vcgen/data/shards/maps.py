"""What a scene may hold beside its images: maps of depth, normals and masks of the same views, one PNG each.

Maps are of what the centers of pixels see, without smoothing. ``KEY.000.depth.png``: 16-bit gray; value / 65535 * t_far
is the Euclidean distance from the camera, 0 where nothing is hit. ``KEY.000.normals.png``: 8-bit RGB; value / 255 * 2 -
1 are the world's x, y and z of the unit normal turned to the camera, black where nothing is hit. ``KEY.000.mask.png``:
8-bit gray, 255 where something is hit, else 0.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcgen.data.images.reading import PNG_END, PNG_START, chunks_are_whole, encode_png
from vcgen.errors import UserError
from vcgen.terminal import one_line

#: Kind -> what its PNGs have: bits a channel, number of the color type, and type of the decoded values.
KINDS = {"depth": (16, 0, np.uint16), "normals": (8, 2, np.uint8), "mask": (8, 0, np.uint8)}
_DEEPEST = 65535


def encode_depth(distance: NDArray[np.float64], t_far: float) -> bytes:
    """A PNG file of distances (height, width), 0 where nothing is hit. Raises UserError for one beyond ``t_far``."""
    if (farthest := float(distance.max())) > t_far:
        raise UserError(f"a depth of {farthest:.6g} lies beyond t_far, {t_far:.6g}; raise it in the file of cameras")
    values = np.round(distance / t_far * _DEEPEST)
    return encode_png(np.where(distance > 0, values.clip(1), 0).astype(np.uint16))


def encode_normals(normals: NDArray[np.float64]) -> bytes:
    """A PNG file of unit vectors (height, width, 3), 0 where nothing is hit."""
    hit = np.abs(normals).max(-1, keepdims=True) > 0
    return encode_png(np.where(hit, np.round((normals + 1) / 2 * 255), 0).astype(np.uint8))


def encode_mask(hit: NDArray[np.bool_]) -> bytes:
    """A PNG file of truth values (height, width)."""
    return encode_png(hit.astype(np.uint8) * 255)


def decode_depth(data: bytes, size: tuple[int, int], t_far: float, where: str = "a map") -> NDArray[np.float64]:
    """(height, width) Euclidean distances in world units, 0 where nothing is hit. where: what messages call it."""
    return _decode(data, "depth", size, where).astype(np.float64) / _DEEPEST * t_far


def decode_normals(data: bytes, size: tuple[int, int], where: str = "a map") -> NDArray[np.float64]:
    """(height, width, 3) unit vectors in the world, 0 where nothing is hit. Raises UserError for other vectors, of
    which eight bits leave lengths between 0.99 and 1.01.
    """
    values = _decode(data, "normals", size, where).astype(np.float64)
    normals, hit = values / 255 * 2 - 1, values.max(-1, keepdims=True) > 0
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    if (odd := np.abs(lengths - 1)[hit] > 0.1).any():
        raise UserError(f"{where} of normals has vectors of other lengths than 1, {odd.sum()} of {odd.size}")
    return np.where(hit, normals / lengths.clip(1e-9), 0)


def decode_mask(data: bytes, size: tuple[int, int], where: str = "a map") -> NDArray[np.bool_]:
    """(height, width) truth values."""
    return _decode(data, "mask", size, where) > 127


def decode_maps(
    maps: Mapping[str, list[bytes]], view: int, size: tuple[int, int], t_far: float, where: str
) -> dict[str, NDArray[Any]]:
    """All maps of a view by their kinds, as the functions above return them."""
    where = f"{where}: the map"
    decoders: dict[str, Callable[[bytes], NDArray[Any]]] = {
        "depth": lambda data: decode_depth(data, size, t_far, where),
        "normals": lambda data: decode_normals(data, size, where),
        "mask": lambda data: decode_mask(data, size, where),
    }
    return {kind: decoders[kind](files[view]) for kind, files in maps.items()}


def odd_maps(decoded: Mapping[str, NDArray[Any]], near: float) -> list[str]:
    """What does not fit together in the maps of a view, one line each."""
    hits = {kind: values.any(-1) if values.ndim == 3 else values > 0 for kind, values in decoded.items()}
    (first, covered), *others = hits.items()
    texts = [
        f"maps of {first} and {kind} cover different pixels, {(hit != covered).sum()} of {hit.size}"
        for kind, hit in others
        if (hit != covered).any()
    ]
    if "depth" in decoded and (before := (hits["depth"] & (decoded["depth"] < 0.999 * near)).sum()):
        texts.append(f"{before} pixels of the map of depth lie before near, {near:g}")
    return texts


def check_maps(maps: dict[str, list[bytes]], count: int, size: tuple[int, int], scene: str) -> None:
    """Raise UserError unless every kind is known and has a map of ``size`` for each of ``count`` views."""
    for kind, files in maps.items():
        if kind not in KINDS or len(files) != count:
            raise UserError(f"{scene}: {len(files)} maps {kind!r} of {count} views; maps are {', '.join(KINDS)}")
        for number, data in enumerate(files):
            found = (int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"), *data[24:26])
            if not data.startswith(PNG_START) or found != (*size, *KINDS[kind][:2]):
                raise UserError(f"{scene}: map {number} of {kind} is no PNG of {size[0]} x {size[1]} as it must be")
            if not data.endswith(PNG_END):
                raise UserError(f"{scene}: map {number} of {kind} is truncated ({len(data)} bytes, no end mark)")


def _decode(data: bytes, kind: str, size: tuple[int, int], where: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The values of a map, which :func:`check_maps` has seen."""
    from PIL import Image

    if not chunks_are_whole(io.BytesIO(data)):
        raise UserError(one_line(f"{where} of {kind} is damaged (a checksum is wrong)", "pack the data again"))
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(one_line(f"{where} of {kind} is damaged ({error})", "pack the data again")) from error
    if pixels.shape[:2] != size or pixels.ndim != (3 if kind == "normals" else 2):
        raise UserError(f"{where} of {kind} decodes to the shape {pixels.shape}; pack the data again")
    return pixels.astype(KINDS[kind][2])
