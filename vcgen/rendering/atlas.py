"""Where each face of a mesh lies in a texture: in charts by xatlas where that is installed, else each in a patch."""

import importlib.util
import math

import numpy as np
from numpy.typing import NDArray

from vcgen.errors import UserError

#: Texels between what belongs to different charts.
PADDING = 2
#: Texels along a cell of two patches, at least; along its sides, and on both sides of its diagonal, some are left free,
#: so that no texel is read for both patches.
LEAST_CELL, SIDE, DIAGONAL = 7, 1.0, 2.5


def charts_at_hand() -> bool:
    """Whether xatlas is installed."""
    return importlib.util.find_spec("xatlas") is not None


def size_for(count: int) -> int:
    """Texels along a side, a power of two, that do for ``count`` faces: 1024, or what patches of these need."""
    return max(1024, 0 if charts_at_hand() else 1 << (LEAST_CELL * _columns(count) - 1).bit_length())


def unwrap(vertices: NDArray[np.float64], faces: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """(F, 3, 2) texture coordinates, u right and v down, of the corners of faces (F, 3) between vertices (V, 3), for a
    texture of ``size`` texels a side. Raises UserError where so many faces do not fit."""
    return _charts(vertices, faces, size) if charts_at_hand() else _patches(len(faces), size)


def _charts(vertices: NDArray[np.float64], faces: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """By xatlas (https://github.com/jpcy/xatlas): few pieces, angles and areas nearly kept."""
    import xatlas

    atlas, packing = xatlas.Atlas(), xatlas.PackOptions()
    packing.resolution, packing.padding = size, PADDING
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    atlas.generate(pack_options=packing)
    _, corners, uv = atlas[0]
    return np.asarray(uv[corners], np.float64)


def _patches(count: int, size: int) -> NDArray[np.float64]:
    """Right triangles, two in each cell of a square grid, all of one size whatever the faces'."""
    columns = _columns(count)
    cell = size // columns
    if cell < LEAST_CELL:
        raise UserError(
            f"a texture of {size} texels a side is too small for {count} faces: use at least {columns * LEAST_CELL},"
            " or fewer faces, or install xatlas (pip install 'vcgen[atlas]')"
        )
    near, far = SIDE, cell - SIDE - DIAGONAL
    patch = np.array([(near, near), (far, near), (near, far)])
    both = np.stack([patch, cell - patch])
    number = np.arange(count)
    corner = cell * np.stack([number // 2 % columns, number // 2 // columns], 1)
    return np.asarray((corner[:, None] + both[number % 2]) / size)


def _columns(count: int) -> int:
    """Cells along a side of the square grid that holds ``count`` patches."""
    return max(1, math.ceil(math.sqrt(math.ceil(count / 2))))
