"""Mesh files: .glb, .ply, .obj, .stl."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcgen.errors import UserError
from vcgen.io import write_bytes
from vcgen.visualization.images import png_bytes

if TYPE_CHECKING:
    import trimesh

#: z-up world -> y-up glTF (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html, section 3.4): (x, y, z) -> (x, z,
#: -y), a rotation. What faces azimuth 0 (-y) faces +z afterwards, glTF's front.
Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
#: Of glTF's samplers (section 5.26): look up between texels; beyond the border, repeat the border's.
LINEAR, CLAMP = 9729, 33071


@dataclass(frozen=True, eq=False)
class Texture:
    """Colors of a mesh's faces. uv: (F, 3, 2) of their corners, u right and v down, in [0, 1]. image: (H, W, 3) uint8
    sRGB; texel centers lie at +0.5."""

    uv: NDArray[np.float64]
    image: NDArray[np.uint8]


#: What a texture can be written in.
TEXTURED = ("glb", "obj")


def write_mesh(path: Path | str, mesh: "trimesh.Trimesh", texture: Texture | None = None) -> Path:
    """Write a mesh of the z-up world with sRGB vertex colors or a texture, atomically; the suffix chooses the format.

    .glb: turned y-up, colors of vertices linear and textures sRGB as the standard asks (sections 3.7.2.1, 3.9.2),
    material unlit: the colors are light already seen, and a viewer's lamps would shade them twice. trimesh reads the
    colors back as ``visual.vertex_attributes["color"]``, or as plain vertex colors with ``trimesh.load(path,
    skip_materials=True)``. .ply, .obj: z-up and sRGB, as most readers of these formats expect; with a texture the .obj
    has a .mtl and a .png of the same name beside it. .stl: z-up, without colors."""
    path = Path(path)
    if path.suffix not in (".glb", ".ply", ".obj", ".stl"):
        raise UserError(f"cannot write a mesh as {path.name}: use a name ending in .glb, .ply, .obj or .stl")
    if texture is not None and path.suffix[1:] not in TEXTURED:
        raise UserError(f"a {path.suffix} file holds no texture: write {path.name} as .glb or .obj, or without")
    if texture is not None and path.suffix == ".obj":
        write_bytes(path.with_suffix(".png"), png_bytes(texture.image))
        write_bytes(path.with_suffix(".mtl"), f"newmtl surface\nKd 1 1 1\nillum 0\nmap_Kd {path.stem}.png\n".encode())
        write_bytes(path, _obj(mesh, texture, f"{path.stem}.mtl"))
    else:
        write_bytes(path, _glb(mesh, texture) if path.suffix == ".glb" else _plain(mesh, path.suffix[1:]))
    return path


def _plain(mesh: "trimesh.Trimesh", kind: str) -> bytes:
    content = mesh.export(file_type=kind)
    return content.encode() if isinstance(content, str) else content


def _obj(mesh: "trimesh.Trimesh", texture: Texture, materials: str) -> bytes:
    """Positions are shared by faces, so that the surface stays closed; texture coordinates, with v up, belong to
    corners.
    """
    lines = [f"mtllib {materials}", "usemtl surface"]
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"vt {u:.7g} {1 - v:.7g}" for u, v in texture.uv.reshape(-1, 2).tolist()]
    lines += [
        "f " + " ".join(f"{vertex}/{3 * number + corner}" for corner, vertex in enumerate(face, 1))
        for number, face in enumerate((mesh.faces + 1).tolist())
    ]
    return ("\n".join(lines) + "\n").encode()


def _glb(mesh: "trimesh.Trimesh", texture: Texture | None) -> bytes:
    turned = mesh.copy()
    turned.apply_transform(Z_UP_TO_Y_UP)
    if texture is not None:
        turned = _split(turned, texture)
    else:
        turned.visual.vertex_colors = srgb_to_linear(mesh.visual.vertex_colors[:, :3])
    return turned.export(file_type="glb", include_normals=True, tree_postprocessor=_make_unlit)


def _split(mesh: "trimesh.Trimesh", texture: Texture) -> "trimesh.Trimesh":
    """The mesh with a vertex for every pair of a position and texture coordinates, as glTF has it."""
    import trimesh

    pairs = np.concatenate([mesh.faces.reshape(-1, 1), texture.uv.reshape(-1, 2)], 1)
    _, first, corners = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    vertices, uv = mesh.faces.reshape(-1)[first], texture.uv.reshape(-1, 2)[first]
    image = Image.open(io.BytesIO(png_bytes(texture.image)))  # in the format in which it is stored
    visual = trimesh.visual.TextureVisuals(
        uv=np.stack([uv[:, 0], 1 - uv[:, 1]], 1),  # trimesh counts v upwards
        material=trimesh.visual.material.PBRMaterial(baseColorTexture=image),
    )
    return trimesh.Trimesh(
        mesh.vertices[vertices],
        corners.reshape(-1, 3),
        vertex_normals=np.array(mesh.vertex_normals)[vertices],
        visual=visual,
        process=False,
    )


def _make_unlit(tree: dict[str, Any]) -> None:
    matte = {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 1}
    if "textures" in tree:
        matte["baseColorTexture"] = {"index": 0}
        # Mipmaps would mix faces that lie side by side in the image alone.
        tree["samplers"] = [{"magFilter": LINEAR, "minFilter": LINEAR, "wrapS": CLAMP, "wrapT": CLAMP}]
        tree["textures"][0]["sampler"] = 0
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
