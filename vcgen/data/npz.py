"""NumPy's archives, as anybody may have made them: numbers alone, read within bounds and never unpickled."""

import math
import zipfile
from collections.abc import Container
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from vcgen.errors import UserError
from vcgen.io import open_regular
from vcgen.terminal import one_line

#: Bytes allowed in an archive, as stored and once decompressed, and arrays in it.
MAX_NPZ, MOST_ARRAYS = 1 << 30, 100_000
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(
    path: Path, advice: str = "", limit: int = MAX_NPZ, names: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file by name. names: those that are read; None reads all.

    Raises UserError, in one line that ends in ``advice``, for a file that is missing, damaged, longer than ``limit``
    bytes or decompresses to more, and for arrays that hold anything but numbers and truth values.
    """
    with open_regular(path, limit, advice) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                wanted = [e for e in archive.infolist() if names is None or e.filename.removesuffix(".npy") in names]
                if len(wanted) > MOST_ARRAYS or sum(entry.file_size for entry in wanted) > limit:
                    raise ValueError(f"more than {MOST_ARRAYS} arrays, or {limit / 1e6:.0f} MB")
                return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in wanted}
        except Exception as error:  # zipfile, its decompressors and NumPy raise a dozen types for damaged files
            reason = str(error) or type(error).__name__
            raise UserError(
                one_line(f"{path}: cannot be read as an .npz file of numbers ({reason})"[:300], advice)
            ) from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One member. Its header is compared with its length before any memory is taken."""
    with archive.open(entry) as member:
        shape, is_fortran, kind = HEADERS[npy.read_magic(member)](member)
        if kind.kind not in "biuf":
            raise ValueError(f"{entry.filename} holds no numbers")
        if math.prod(shape) * kind.itemsize != entry.file_size - member.tell():
            raise ValueError(f"{entry.filename} is cut short, or longer than its shape {shape} says")
        return np.frombuffer(member.read(), kind).reshape(shape, order="F" if is_fortran else "C")
