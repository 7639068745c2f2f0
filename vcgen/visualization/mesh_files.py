"""Mesh files: .glb, .ply, .obj, .stl."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcgen.errors import UserError
from vcgen.io import replacing

if TYPE_CHECKING:
    import trimesh

#: z-up world -> y-up glTF (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html, section 3.4): (x, y, z) -> (x, z,
#: -y), a rotation. What faces azimuth 0 (-y) faces +z afterwards, glTF's front.
Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def write_mesh(path: Path | str, mesh: "trimesh.Trimesh") -> Path:
    """Write a mesh with sRGB vertex colors from the z-up world, atomically; the suffix chooses the format.

    .glb: turned y-up, colors linear as the standard asks (section 3.7.2.1), material unlit: the colors are light
    already seen, and a viewer's lamps would shade them twice. trimesh reads the colors back as
    ``visual.vertex_attributes["color"]``, or as plain vertex colors with ``trimesh.load(path, skip_materials=True)``.
    .ply, .obj: z-up and sRGB, as most readers of these formats expect. .stl: z-up, without colors."""
    path = Path(path)
    if path.suffix not in (".glb", ".ply", ".obj", ".stl"):
        raise UserError(f"cannot write a mesh as {path.name}: use a name ending in .glb, .ply, .obj or .stl")
    with replacing(path) as temporary:
        temporary.write_bytes(_glb(mesh) if path.suffix == ".glb" else _plain(mesh, path.suffix[1:]))
    return path


def _plain(mesh: "trimesh.Trimesh", kind: str) -> bytes:
    content = mesh.export(file_type=kind)
    return content.encode() if isinstance(content, str) else content


def _glb(mesh: "trimesh.Trimesh") -> bytes:
    turned = mesh.copy()
    turned.apply_transform(Z_UP_TO_Y_UP)
    turned.visual.vertex_colors = srgb_to_linear(mesh.visual.vertex_colors[:, :3])
    return turned.export(file_type="glb", include_normals=True, tree_postprocessor=_make_unlit)


def _make_unlit(tree: dict[str, Any]) -> None:
    matte = {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 1}
    tree["materials"] = [{"name": "radiance", "pbrMetallicRoughness": matte, "extensions": {"KHR_materials_unlit": {}}}]
    tree["extensionsUsed"] = ["KHR_materials_unlit"]
    for part in tree["meshes"]:
        for primitive in part["primitives"]:
            primitive["material"] = 0


def srgb_to_linear(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 sRGB -> uint8 linear light (IEC 61966-2-1)."""
    value = colors / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.round(linear * 255).astype(np.uint8)
