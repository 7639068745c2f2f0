"""Mesh files that anybody may have made -> surfaces, or a refusal in one line. trimesh reads them, and sees no more
than it needs.

Bytes, numbers of faces and pixels are bounded; files that one names must lie in its folder or below; images go through
the formats and the limits of ``vcgen.data.images.reading``; nothing is fetched."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import unquote

import numpy as np

from vcgen.data.images.reading import FORMATS, check_size
from vcgen.errors import UserError
from vcgen.io import read_bytes
from vcgen.meshes.gltf import Header, read_header
from vcgen.terminal import one_line

if TYPE_CHECKING:
    import trimesh

#: Mesh files, by the end of their names.
KINDS = ("glb", "gltf", "obj", "ply", "stl")
#: Bytes of a mesh file, or of one that it names.
MAX_BYTES = 500_000_000
ADVICE = "mend it, or leave it out with --skip-broken"


class Beside:
    """The files that a mesh file may name: those in its folder and below. What goes wrong is kept in ``faults``:
    trimesh swallows it.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.faults: list[str] = []

    def get(self, name: str) -> bytes:
        """The content of a file; UserError where it is missing, elsewhere, or too long."""
        try:
            # glTF's names are those of addresses
            candidates = [self.folder / text.strip().replace("\\", "/") for text in (name, unquote(name))]
            path = next((path for path in candidates if path.is_file()), candidates[0]).resolve()
            if not path.is_relative_to(self.folder):
                raise UserError(f"names {name!r}, which is not in its folder")
            if not path.is_file():
                raise UserError(f"names {name!r}, which is missing")
            return read_bytes(path, MAX_BYTES)
        except (UserError, OSError, ValueError, RuntimeError) as error:
            self.faults.append(str(error))
            raise UserError(str(error)) from error

    __getitem__ = get


def open_mesh(path: Path, most_faces: int, plain: bool = False) -> "tuple[trimesh.Scene, Header]":
    """What trimesh makes of a file, and the header of a glTF file (else an empty one). plain: without materials, whose
    files may miss.

    Raises UserError for a file that is unreadable, too long, names what is missing or elsewhere, or has more than
    ``most_faces`` faces."""
    import trimesh

    data = read_bytes(path, MAX_BYTES, ADVICE)
    kind = path.suffix[1:].lower()
    beside = Beside(path.parent)
    try:
        header = read_header(data, kind, 3 * most_faces) if kind in ("glb", "gltf") else Header()
        with quiet(), known_images(beside.faults):
            scene = trimesh.load_scene(
                io.BytesIO(data), file_type=kind, resolver=beside, process=False, skip_materials=plain
            )
            faces = sum(
                len(getattr(scene.geometry[scene.graph[node][1]], "faces", ())) for node in scene.graph.nodes_geometry
            )
    except UserError as error:
        raise UserError(one_line(f"{path}: {next(iter(beside.faults), error)}", ADVICE)) from error
    except (
        Exception
    ) as error:  # the readers raise whatever a damaged file leads them to, MemoryError and RecursionError among them
        reason = next(iter(beside.faults), f"cannot be read as .{kind} ({str(error) or type(error).__name__})")
        raise UserError(one_line(f"{path}: {reason}", ADVICE)) from error
    if beside.faults:
        raise UserError(one_line(f"{path}: {beside.faults[0]}", ADVICE))
    if faces > most_faces:
        raise UserError(f"{path}: has {faces:,} faces, more than {most_faces:,}; simplify it, or raise --max-faces")
    return scene, header


@contextmanager
def known_images(faults: list[str]) -> Iterator[None]:
    """Inside, Pillow opens images of ``FORMATS`` and of an allowed size only; why others are refused is added to
    ``faults``.
    """
    from PIL import Image

    opened = Image.open

    def open_known(file: Any, *_: Any, **__: Any) -> Image.Image:
        try:
            image = opened(file, formats=FORMATS)
            check_size(image.width, image.height, "a texture")
            return image
        except Exception as error:
            faults.append(
                str(error) if isinstance(error, UserError) else "a texture is damaged, or none of " + ", ".join(FORMATS)
            )
            raise

    with patch.object(Image, "open", open_known):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, trimesh logs nothing and numbers that do not fit are not warned of: what matters is raised here."""
    logger = logging.getLogger("trimesh")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logger.setLevel(before)
