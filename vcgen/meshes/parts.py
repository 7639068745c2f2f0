"""What trimesh holds -> :class:`Surface`: placed parts, their materials as factors, textures and kinds of alpha."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vcgen.data.images import image_to_array
from vcgen.errors import UserError
from vcgen.io import one_line
from vcgen.meshes.gltf import Header
from vcgen.meshes.loading import ADVICE, open_mesh
from vcgen.meshes.surface import BLEND, MASK, OPAQUE, UPRIGHT, Surface, Up, joined, to_linear

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

#: Linear base color of what has none, as Blender's.
GRAY = (0.8, 0.8, 0.8, 1.0)
#: Textures are shrunk until no side has more texels.
MOST_TEXELS = 2048
MODES = {"OPAQUE": OPAQUE, "MASK": MASK, "BLEND": BLEND}


def read_surface(path: Path, up: Up, most_faces: int, plain: bool = False) -> Surface:
    """The object in a mesh file, its axis ``up`` turned to z. Raises UserError, as :func:`open_mesh`, and for one without faces or with
    coordinates that are not finite."""
    scene, header = open_mesh(path, most_faces, plain)
    images: dict[int, Tensor] = {}
    parts = [part(mesh, matrix, header, images, path) for mesh, matrix in placed(scene)]
    parts = [found for found in parts if len(found)]
    if not parts:
        raise UserError(f"{path}: has no faces; {ADVICE}")
    surface = joined(parts).moved(torch.tensor(UPRIGHT[up], dtype=torch.float64))
    if not bool(surface.triangles.abs().amax() < 1e12):  # NaN is not less
        raise UserError(f"{path}: has coordinates that are NaN, infinite or huge; {ADVICE}")
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
    """One mesh in the file's world. images: those already decoded, by the id of Pillow's object, which the scene keeps alive."""
    faces = torch.tensor(np.asarray(mesh.faces), dtype=torch.int64).reshape(-1, 3)
    vertices = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float64).reshape(-1, 3)
    if len(faces) and not (0 <= int(faces.min()) and int(faces.max()) < len(vertices)):
        raise UserError(f"{path}: faces name vertices beyond the {len(vertices)} that there are; {ADVICE}")
    linear = torch.tensor(np.asarray(matrix)[:3, :3], dtype=torch.float64)
    uv, rgba, image, mode, cutoff, double = look(mesh, header, path)
    texture = []
    if image is not None and uv is not None:
        if id(image) not in images:
            images[id(image)] = decode(image, path)
        texture = [images[id(image)]]
        # an image without transparency, and a material that says nothing of alpha
        mode = MASK if mode is None and bool((texture[0][..., 3] < 255).any()) else mode
    count = len(faces)
    flat = torch.zeros(len(vertices), 2) if uv is None else uv
    corners = rgba[faces] if len(rgba) == len(vertices) and rgba.ndim == 2 else rgba.reshape(-1, 1, 4).expand(count, 3, 4)
    surface = Surface(
        vertices[faces], torch.zeros(count, 3, 3), flat[faces], corners.clone(), torch.full((count,), 0 if texture else -1),
        torch.full((count,), OPAQUE if mode is None else mode), torch.full((count,), cutoff), torch.full((count,), double), tuple(texture),
    )
    surface = with_normals(surface, mesh, faces)
    if abs(float(torch.linalg.det(linear))) < 1e-30:
        raise UserError(f"{path}: a node is scaled to nothing along an axis; {ADVICE}")
    moved = surface.moved(linear)
    return Surface(**{**vars(moved), "triangles": moved.triangles + torch.tensor(np.asarray(matrix)[:3, 3], dtype=torch.float64)})


def with_normals(surface: Surface, mesh: "trimesh.Trimesh", faces: Tensor) -> Surface:
    """The file's own normals at corners, those of the faces where it has none, or none that can be used."""
    flat = surface.face_normals().float()[:, None].expand(-1, 3, -1)
    if "vertex_normals" not in mesh._cache:  # trimesh would compute smooth ones, where files without mean flat faces
        return Surface(**{**vars(surface), "normals": flat.clone()})
    given = torch.nn.functional.normalize(torch.tensor(np.asarray(mesh.vertex_normals), dtype=torch.float32)[faces], dim=-1)
    usable = given.isfinite().all(-1, keepdim=True) & ((given * flat).sum(-1, keepdim=True) > 0)
    return Surface(**{**vars(surface), "normals": torch.where(usable, given, flat)})


def look(mesh: "trimesh.Trimesh", header: Header, path: Path) -> tuple[Tensor | None, Tensor, Any, int | None, float, bool]:
    """(V, 2) texture coordinates, v down; base color (4,), (V, 4) or (F, 1, 4) in linear light; Pillow's image or None; kind of alpha,
    None where nothing is said; alpha from which MASK shows; whether double-sided."""
    visual, count = mesh.visual, len(mesh.vertices)
    if visual.kind in ("vertex", "face"):
        colors = torch.tensor(np.asarray(visual.vertex_colors if visual.kind == "vertex" else visual.face_colors), dtype=torch.float32) / 255
        colors = colors if header.accessors else torch.cat([to_linear(colors[:, :3]), colors[:, 3:]], 1)  # of glTF they are linear
        colors = colors if visual.kind == "vertex" else colors[:, None]
        return None, colors, None, OPAQUE if bool((colors[..., 3] == 1).all()) else BLEND, 0.5, True
    if visual.kind != "texture":
        return None, torch.tensor(GRAY), None, OPAQUE, 0.5, True
    material = visual.material
    uv = None if visual.uv is None or np.shape(visual.uv) != (count, 2) else torch.tensor(np.asarray(visual.uv), dtype=torch.float32)
    uv = None if uv is None else torch.stack([uv[:, 0], 1 - uv[:, 1]], 1)
    if hasattr(material, "baseColorTexture"):
        factor = header.factor(material.name)
        if factor is None and material.baseColorFactor is not None:
            factor = np.asarray(material.baseColorFactor, dtype=np.float64) / 255
        rgba = torch.tensor([1.0] * 4 if factor is None else np.asarray(factor), dtype=torch.float32)
        colors = visual.vertex_attributes.get("color")
        if colors is not None and len(colors) == count:
            rgba = rgba * _unit(np.asarray(colors))
        mode = MODES[material.alphaMode or "OPAQUE"]
        return uv, rgba, material.baseColorTexture, mode, 0.5 if material.alphaCutoff is None else float(material.alphaCutoff), bool(material.doubleSided)
    given = getattr(material, "kwargs", {})
    color = [1.0] * 3 if material.image is not None else given.get("kd", GRAY[:3])
    color = color if isinstance(color, list) and len(color) == 3 else [*GRAY[:3]]
    alpha = _number(given.get("d"), 1.0) if "d" in given else 1 - _number(given.get("tr"), 0.0)
    rgb = to_linear(torch.tensor(color, dtype=torch.float32).clamp(0, 1)) if "kd" in given and material.image is None else torch.tensor(color)
    rgba = torch.cat([rgb, torch.tensor([alpha])])
    return uv, rgba, material.image, BLEND if alpha < 1 else None, 0.5, True


def decode(image: "Image.Image", path: Path) -> Tensor:
    """(height, width, 4) uint8 of an image that Pillow has opened, its sides halved, thirded ... until none exceeds MOST_TEXELS."""
    pixels = image_to_array(image, one_line(f"{path}: a texture"))
    factor = -(-max(pixels.shape[:2]) // MOST_TEXELS)
    if factor > 1:
        pixels = np.pad(pixels, [(0, -side % factor) for side in pixels.shape[:2]] + [(0, 0)], mode="edge")
        total = sum(pixels[i::factor, j::factor].astype(np.uint32) for i in range(factor) for j in range(factor))
        pixels = ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)
    if pixels.shape[2] == 3:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1)
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _unit(colors: np.ndarray) -> Tensor:
    """(V, 4) in [0, 1] of colors as glTF stores them: (V, 3) or (V, 4), floating point or whole numbers that stand for fractions."""
    most = np.iinfo(colors.dtype).max if np.issubdtype(colors.dtype, np.integer) else 1
    values = torch.tensor(colors.astype(np.float32) / most).clamp(0, 1)
    return torch.cat([values, torch.ones(len(values), 4 - values.shape[1])], 1)


def _number(words: Any, default: float) -> float:
    """The last word of a line of an .mtl file as a fraction."""
    try:
        return min(max(float(words[-1]), 0.0), 1.0)
    except (TypeError, ValueError, IndexError):
        return default
