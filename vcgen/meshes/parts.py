"""What trimesh holds -> :class:`Surface`: parts in their places, with normals and materials."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vcgen.errors import UserError
from vcgen.meshes.gltf import Header
from vcgen.meshes.loading import ADVICE, open_mesh, quiet
from vcgen.meshes.materials import decode, look_of
from vcgen.meshes.surface import MASK, OPAQUE, UPRIGHT, Surface, Up, joined
from vcgen.terminal import one_line

if TYPE_CHECKING:
    import trimesh


def read_surface(path: Path, up: Up, most_faces: int, plain: bool = False) -> Surface:
    """The object in a mesh file, its axis ``up`` turned to z. Raises UserError, as :func:`open_mesh`, and for one
    without faces or with coordinates that are not finite."""
    scene, header = open_mesh(path, most_faces, plain)
    images: dict[int, Tensor] = {}
    try:
        with quiet():
            parts = [part(mesh, matrix, header, images, path) for mesh, matrix in placed(scene)]
    except UserError:
        raise
    except (
        Exception
    ) as error:  # trimesh hands on what it does not understand: arrays of other shapes, materials of other types
        raise UserError(
            one_line(f"{path}: has a damaged part ({str(error) or type(error).__name__})", ADVICE)
        ) from error
    parts = [found for found in parts if len(found)]
    if not parts:
        raise UserError(f"{path}: has no faces; {ADVICE}")
    surface = joined(parts).moved(torch.tensor(UPRIGHT[up], dtype=torch.float64))
    sizes = (
        values.abs().amax() for values in (surface.triangles, surface.normals, surface.uv, surface.rgba, surface.cutoff)
    )
    if not all(bool(size < 1e12) for size in sizes):  # NaN is not less
        raise UserError(f"{path}: has coordinates or colors that are NaN, infinite or huge; {ADVICE}")
    if not float((surface.triangles.amax((0, 1)) - surface.triangles.amin((0, 1))).max()) > 1e-9:
        raise UserError(f"{path}: all faces lie in one point; {ADVICE}")
    return surface


def placed(scene: "trimesh.Scene") -> "Iterator[tuple[trimesh.Trimesh, np.ndarray]]":
    """The meshes of a scene and their (4, 4) matrices, in the order of their nodes' names."""
    import trimesh

    for node in sorted(scene.graph.nodes_geometry):
        matrix, name = scene.graph[node]
        if isinstance(scene.geometry[name], trimesh.Trimesh):
            yield scene.geometry[name], matrix


def part(mesh: "trimesh.Trimesh", matrix: np.ndarray, header: Header, images: dict[int, Tensor], path: Path) -> Surface:
    """One mesh in the file's world. images: those already decoded, by the id of Pillow's object, which the scene keeps
    alive.
    """
    tables = np.asarray(mesh.faces), np.asarray(mesh.vertices)
    if any(table.size and (table.ndim != 2 or table.shape[1] != 3) for table in tables):
        raise UserError(f"{path}: has faces without three corners, or corners without three coordinates; {ADVICE}")
    faces = torch.tensor(tables[0], dtype=torch.int64).reshape(-1, 3)
    vertices = torch.tensor(tables[1], dtype=torch.float64).reshape(-1, 3)
    if len(faces) and not (int(faces.min()) >= 0 and int(faces.max()) < len(vertices)):
        raise UserError(f"{path}: faces name vertices beyond the {len(vertices)} that there are; {ADVICE}")
    look = look_of(mesh, header)
    textures: tuple[Tensor, ...] = ()
    mode = look.mode
    if look.image is not None and look.uv is not None:
        if id(look.image) not in images:
            images[id(look.image)] = decode(look.image, path)
        textures = (images[id(look.image)],)
        mode = MASK if mode is None and bool((textures[0][..., 3] < 255).any()) else mode
    count, world = len(faces), torch.tensor(np.asarray(matrix), dtype=torch.float64)
    if abs(float(torch.linalg.det(world[:3, :3]))) < 1e-30:
        raise UserError(f"{path}: a node is scaled to nothing along an axis; {ADVICE}")
    uv = torch.zeros(count, 3, 2) if look.uv is None else look.uv[faces]
    rgba = look.rgba[faces] if look.rgba.ndim == 2 else look.rgba.expand(count, 3, 4).clone()
    each = {
        "texture": 0 if textures else -1,
        "mode": OPAQUE if mode is None else mode,
        "cutoff": look.cutoff,
        "double": look.double,
    }
    filled = {name: torch.full((count,), value) for name, value in each.items()}
    surface = Surface(vertices[faces], torch.zeros(count, 3, 3), uv, rgba, **filled, textures=textures)
    moved = with_normals(surface, mesh, faces).moved(world[:3, :3])
    return replace(moved, triangles=moved.triangles + world[:3, 3])


def with_normals(surface: Surface, mesh: "trimesh.Trimesh", faces: Tensor) -> Surface:
    """The file's own normals at corners, those of the faces where it has none, or none that can be used."""
    surface = surface.faceted()
    if "vertex_normals" not in mesh._cache:  # trimesh would compute smooth ones, where files without mean flat faces
        return surface
    stated = torch.nn.functional.normalize(
        torch.tensor(np.asarray(mesh.vertex_normals), dtype=torch.float32)[faces], dim=-1
    )
    usable = stated.isfinite().all(-1, keepdim=True) & ((stated * surface.normals).sum(-1, keepdim=True) > 0)
    return replace(surface, normals=torch.where(usable, stated, surface.normals))
