"""The header of a glTF file, read before the file is: what would take too much memory or cannot be drawn right is
refused.
"""

import math
from typing import Annotated

import torch
from msgspec import Meta, Raw, Struct
from torch import Tensor

from vcgen.data.formats.remarks import remark
from vcgen.errors import UserError
from vcgen.io import parse_json
from vcgen.schema import Finite, Unit

#: Extensions that a file may require: what they change is read, or is no part of the base color.
KNOWN = ("KHR_materials_", "EXT_texture_webp", "KHR_lights_punctual", "KHR_texture_transform")
#: The old kind of material, which trimesh turns into the usual one.
GLOSSY = "KHR_materials_pbrSpecularGlossiness"
#: Nodes, meshes, images and materials allowed.
MOST = 100_000
#: glTF's numbers: of float32, and of a fan of triangles.
FLOAT, FAN = 5126, 6
#: What must be floating point, since trimesh takes whole numbers as they are.
MEASURED = ("POSITION", "NORMAL", "TEXCOORD_0")


class Accessor(Struct):
    """A table in the file's buffers; ``count`` rows."""

    count: Annotated[int, Meta(ge=0, le=1 << 32)]
    componentType: int = FLOAT


class TextureTransform(Struct):
    """KHR_texture_transform: (u, v), v down, are scaled, turned counterclockwise about (0, 0) by ``rotation`` radians,
    and moved.
    """

    offset: tuple[Finite, Finite] = (0.0, 0.0)
    rotation: Finite = 0.0
    scale: tuple[Finite, Finite] = (1.0, 1.0)
    texCoord: int = 0

    def __call__(self, uv: Tensor) -> Tensor:
        """Texture coordinates (..., 2) -> those at which the texture is read."""
        u, v = (uv * torch.tensor(self.scale)).unbind(-1)
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        return torch.stack([cos * u + sin * v, cos * v - sin * u], -1) + torch.tensor(self.offset)


class TextureExtensions(Struct, frozen=True):
    """The extensions of textures that are read."""

    KHR_texture_transform: TextureTransform | None = None


class TextureInfo(Struct):
    """Which texture coordinates a texture takes, and how they are changed."""

    texCoord: int = 0
    extensions: TextureExtensions = TextureExtensions()

    @property
    def transform(self) -> TextureTransform:
        """The identity, unless an extension says otherwise."""
        return self.extensions.KHR_texture_transform or TextureTransform()


class Metallic(Struct):
    """What of a material trimesh rounds to 8 bits, and what it does not heed."""

    baseColorFactor: tuple[Unit, Unit, Unit, Unit] = (1.0, 1.0, 1.0, 1.0)
    baseColorTexture: TextureInfo | None = None


class Material(Struct):
    """A material's name and base color."""

    name: str | None = None
    pbrMetallicRoughness: Metallic | None = None
    extensions: dict[str, Raw] = {}


class Primitive(Struct):
    """Faces with one material: numbers of the tables of their attributes."""

    attributes: dict[str, Annotated[int, Meta(ge=0)]] = {}
    mode: int = 4


class Mesh(Struct):
    """Primitives that are placed together."""

    primitives: Annotated[list[Primitive], Meta(max_length=MOST)] = []


class Node(Struct):
    """How a part of the scene is placed."""

    matrix: list[Finite] = []
    translation: list[Finite] = []
    rotation: list[Finite] = []
    scale: list[Finite] = []


class Header(Struct):
    """The parts of a header that are looked at."""

    accessors: Annotated[list[Accessor], Meta(max_length=MOST)] = []
    nodes: Annotated[list[Node], Meta(max_length=MOST)] = []
    meshes: Annotated[list[Mesh], Meta(max_length=MOST)] = []
    materials: Annotated[list[Material], Meta(max_length=MOST)] = []
    skins: list[Raw] = []
    extensionsRequired: list[str] = []

    def factor(self, name: str | None) -> tuple[float, ...] | None:
        """The base color of the material of that name, where no other has it and it is of the usual kind."""
        found = [material for material in self.materials if material.name == name]
        if len(found) != 1 or found[0].pbrMetallicRoughness is None or GLOSSY in found[0].extensions:
            return None
        return found[0].pbrMetallicRoughness.baseColorFactor

    def texture_transform(self, name: str | None) -> TextureTransform:
        """The transform of the base color's texture of materials of that name. Raises UserError where they differ."""
        found = [material.pbrMetallicRoughness for material in self.materials if material.name == name]
        transforms = [
            metallic.baseColorTexture.transform for metallic in found if metallic and metallic.baseColorTexture
        ]
        if any(transform != transforms[0] for transform in transforms):
            raise UserError(
                f"has several materials {name!r} whose textures are moved differently; give them other names"
            )
        return transforms[0] if transforms else TextureTransform()

    def refuse_unread(self) -> None:
        """Raise UserError for what would be drawn wrong: unknown extensions, whole numbers for places, fans of
        triangles.
        """
        unknown = [name for name in self.extensionsRequired if not name.startswith(KNOWN)]
        if unknown:
            raise UserError(
                f"requires the extension {unknown[0]}, which is not read: export it without, or decode it with"
                " gltf-transform"
            )
        for primitive in (primitive for mesh in self.meshes for primitive in mesh.primitives):
            if primitive.mode == FAN:
                raise UserError("has fans of triangles, which are not read; export plain triangles")
            for name in MEASURED:
                place = primitive.attributes.get(name)
                if place is not None and place < len(self.accessors) and self.accessors[place].componentType != FLOAT:
                    raise UserError(
                        f"has whole numbers for {name}, which are not read; `gltf-transform dequantize` mends it"
                    )

    def remark_on_unread(self) -> None:
        """Note what is not read and may show."""
        textures = [m.pbrMetallicRoughness.baseColorTexture for m in self.materials if m.pbrMetallicRoughness]
        if any(texture.texCoord or texture.transform.texCoord for texture in textures if texture):
            remark("has second texture coordinates, which are not read: colors may lie elsewhere")
        if self.skins:
            remark("has a skin, which is not read: it is drawn as its vertices lie in the file")


def read_header(data: bytes, kind: str, most_rows: int) -> Header:
    """The header of the bytes of a .glb or .gltf file. Raises UserError for one that is none, for tables of more than
    ``most_rows`` rows, and for extensions that would have to be understood."""
    if kind == "glb":
        if data[:4] != b"glTF" or len(data) < 20:
            raise UserError("cannot be read as .glb (it does not begin as one)")
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    header = parse_json(data, Header, "its header", by_hand=False)
    rows = max((accessor.count for accessor in header.accessors), default=0)
    if rows > most_rows:
        raise UserError(
            f"has a table of {rows:,} rows, more than the corners of --max-faces; simplify it, or raise --max-faces"
        )
    header.refuse_unread()
    header.remark_on_unread()
    return header
