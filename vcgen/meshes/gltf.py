"""The header of a glTF file, read before the file is: what would take too much memory or cannot be drawn right is refused."""

from typing import Annotated

from msgspec import Meta, Struct, field

from vcgen.errors import UserError
from vcgen.io import parse_json
from vcgen.schema import Finite, Unit

#: Extensions that a file may require: what they change is read, or is no part of the base color.
KNOWN = ("KHR_materials_", "KHR_mesh_quantization", "EXT_texture_webp", "KHR_lights_punctual")
#: Nodes, meshes, images and materials allowed.
MOST = 100_000


class Accessor(Struct):
    """A table in the file's buffers; ``count`` rows."""

    count: Annotated[int, Meta(ge=0, le=1 << 32)]


class Metallic(Struct):
    """Of a material, what trimesh rounds to 8 bits."""

    baseColorFactor: tuple[Unit, Unit, Unit, Unit] = (1.0, 1.0, 1.0, 1.0)


class Material(Struct):
    """A material's name and base color."""

    name: str | None = None
    pbrMetallicRoughness: Metallic = field(default_factory=Metallic)


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
    materials: Annotated[list[Material], Meta(max_length=MOST)] = []
    extensionsRequired: list[str] = []

    def factor(self, name: str | None) -> tuple[float, ...] | None:
        """The base color of the material of that name, where no other has it."""
        found = [material for material in self.materials if material.name == name]
        return found[0].pbrMetallicRoughness.baseColorFactor if len(found) == 1 else None


def read_header(data: bytes, kind: str, most_rows: int) -> Header:
    """The header of the bytes of a .glb or .gltf file. Raises UserError for one that is none, for tables of more than ``most_rows`` rows,
    and for extensions that would have to be understood."""
    if kind == "glb":
        if data[:4] != b"glTF" or len(data) < 20:
            raise UserError("cannot be read as .glb (it does not begin as one)")
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    header = parse_json(data, Header, "its header", by_hand=False)
    rows = max((accessor.count for accessor in header.accessors), default=0)
    if rows > most_rows:
        raise UserError(f"has a table of {rows:,} rows, more than the corners of --max-faces; simplify it, or raise --max-faces")
    unknown = [name for name in header.extensionsRequired if not name.startswith(KNOWN)]
    if unknown:
        raise UserError(f"requires the extension {unknown[0]}, which is not read: export it without, or decode it with gltf-transform")
    return header
