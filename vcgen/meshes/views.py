"""Mesh files as scenes for the packing loop: what there is, and the record of one object or variant."""

import os
import zlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from vcgen.data.formats.files import visible
from vcgen.data.formats.scene import SceneFolder, scene_key
from vcgen.data.shards.record import SceneRecord
from vcgen.errors import UserError
from vcgen.meshes.loading import KINDS
from vcgen.meshes.parts import read_surface
from vcgen.meshes.posed import DrawnScene, DrawSettings, draw_record, single_thread

#: Kinds that name other files: what lies in their folder belongs to them.
NAMING = ("gltf", "obj", "ply")
#: Folders below the one that is given.
DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class MeshSettings(DrawSettings):
    """How meshes become records. up: axis of the files that points up, "auto" by their kind. kinds: of files. variants:
    of each object. plain: without materials."""

    up: Literal["auto", "x", "y", "z"] = "auto"
    kinds: tuple[str, ...] = KINDS
    variants: int = 1
    plain: bool = False
    max_faces: int = 1_000_000


@dataclass(frozen=True)
class MeshFile(DrawnScene):
    """A mesh file, and which variant of it the scene is."""

    name: str = ""
    variant: int = 0

    def files(self) -> list[tuple[str, int]]:
        """The file, and for kinds that name others what is beside it, as one number."""
        found = [(self.folder.name, self.folder.stat().st_size)]
        return found + ([("beside", _contents(self.folder.parent))] if self.folder.suffix[1:].lower() in NAMING else [])


def list_scenes(source: Path, settings: MeshSettings, cameras: str = "sphere") -> list[SceneFolder]:
    """Every variant of every mesh file at or below ``source``, see :func:`object_name`, in sorted order. UserError
    where there is none.
    """
    if not source.exists():
        raise UserError(f"{source}: is missing; give a mesh file, or a folder of such files")
    paths = [source] if source.is_file() else sorted(_below(source, settings.kinds, DEPTH))
    if not paths or (source.is_file() and not _is_mesh(source, KINDS)):
        raise UserError(
            f"{source}: no mesh file ({', '.join('.' + kind for kind in settings.kinds)}); give one, or a folder of"
            " them"
        )
    root = source.parent if source.is_file() else source
    named = [(path, object_name(path.relative_to(root))) for path in paths]
    keys = (lambda name, number: f"{name[:76]}_{number}") if settings.variants > 1 else (lambda name, number: name)
    return [
        MeshFile(keys(name, number), path, cameras, name, number)
        for path, name in named
        for number in range(settings.variants)
    ]


def object_name(path: Path) -> str:
    """The name of the object in a file at a path below the folder that is given: chair for chair.obj and
    chair/chair.obj, shop_chair for shop/chair.obj.
    """
    path = path.with_suffix("")
    return scene_key("_".join((path.parent if path.name == path.parent.name else path).parts))


def up_axis(path: Path, up: Literal["auto", "x", "y", "z"]) -> Literal["x", "y", "z"]:
    """The axis of a file that points up; "auto": y for glTF, whose standard says so, and .obj, z for .ply and .stl, as
    most have it.
    """
    return up if up != "auto" else "z" if path.suffix[1:].lower() in ("ply", "stl") else "y"


def read_scene(scene: MeshFile, settings: MeshSettings) -> SceneRecord:
    """Draw all views of an object. Its record's group is the object's, whatever the variant. Raises UserError for a
    broken mesh.
    """
    with single_thread():
        surface = read_surface(scene.folder, up_axis(scene.folder, settings.up), settings.max_faces, settings.plain)
        random = np.random.default_rng(zlib.crc32(f"{scene.name}_{scene.variant}".encode()))
        record = draw_record(scene, settings, surface.varied(scene.variant, random), random)
    return replace(record, group=settings.group(scene.name))


def _below(folder: Path, kinds: tuple[str, ...], depth: int) -> list[Path]:
    """Mesh files at any depth; folders that are links are not entered, lest one lead back."""
    found = []
    for path in visible(folder):
        if path.is_dir() and not path.is_symlink() and depth:
            found += _below(path, kinds, depth - 1)
        elif path.is_file() and _is_mesh(path, kinds):
            found.append(path)
    return found


def _is_mesh(path: Path, kinds: tuple[str, ...]) -> bool:
    return path.suffix[1:].lower() in kinds


@cache
def _contents(folder: Path) -> int:
    """A number for the names and sizes of the files at and below a folder."""
    files = sorted((os.path.relpath(path, folder), path.stat().st_size) for path in folder.rglob("*") if path.is_file())
    return zlib.crc32(repr(files).encode())
