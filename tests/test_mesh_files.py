"""Mesh files are a stranger's: what is broken, missing, elsewhere or too large is refused in one line."""

import base64
import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from mesh_files import four_colors, quad
from vcgen.data.formats.remarks import Remark
from vcgen.errors import UserError
from vcgen.meshes import loading
from vcgen.meshes.materials import MOST_TEXELS, decode
from vcgen.meshes.parts import read_surface

TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


def header(**changes) -> str:
    """A .gltf file of one triangle, its numbers inside."""
    data = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype="<f4").tobytes()
    content = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "material": 0}]}],
        "materials": [{}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [
            {"byteLength": 36, "uri": "data:application/octet-stream;base64," + base64.b64encode(data).decode()}
        ],
    }
    return json.dumps(content | changes)


def textured(uri: str) -> str:
    """As :func:`header`, with a texture."""
    materials = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    return header(materials=materials, textures=[{"source": 0}], images=[{"uri": uri}])


def embedded(data: bytes) -> str:
    """A texture inside the file."""
    return textured("data:image/png;base64," + base64.b64encode(data).decode())


def refusal(path, most_faces: int = 1000) -> str:
    """The line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        read_surface(path, "y", most_faces)
    line = str(caught.value)
    assert str(path) in line and "\n" not in line and len(line) < 600
    return line


def test_a_sound_file_of_each_kind_is_read(tmp_path):
    (tmp_path / "a.gltf").write_text(header())
    (tmp_path / "a.obj").write_text(TRIANGLE + "f 1 2 3\n")
    box = trimesh.creation.box()
    for kind in ("glb", "ply", "stl"):
        box.export(tmp_path / f"box.{kind}")
    assert [
        len(read_surface(tmp_path / name, "y", 1000)) for name in ("a.gltf", "a.obj", "box.glb", "box.ply", "box.stl")
    ] == [1, 1, 12, 12, 12]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.obj", "", "has no faces"),
        ("points.obj", TRIANGLE, "has no faces"),
        ("nan.obj", TRIANGLE + "v nan 0 0\nf 1 2 4\n", "NaN"),
        ("far.obj", TRIANGLE + "v 1e30 0 0\nf 1 2 4\n", "NaN, infinite or huge"),
        ("dot.obj", "v 1 1 1\nf 1 1 1\n", "lie in one point"),
        ("beyond.obj", TRIANGLE + "f 1 2 9\n", "cannot be read as .obj"),
        ("mtl.obj", "mtllib no.mtl\n" + TRIANGLE + "f 1 2 3\n", "names 'no.mtl', which is missing"),
        ("up.obj", "mtllib ../up.mtl\n" + TRIANGLE + "f 1 2 3\n", "names '../up.mtl', which is not in its folder"),
        (
            "root.obj",
            "mtllib /etc/passwd\n" + TRIANGLE + "f 1 2 3\n",
            "names '/etc/passwd', which is not in its folder",
        ),
        ("odd.glb", "no such thing", "does not begin as one"),
        ("odd.gltf", "{", "its header"),
        ("odd.ply", "ply\nformat", "cannot be read as .ply"),
        ("odd.stl", "solid x\n", "has no faces"),
        ("texture.gltf", textured("no.png"), "names 'no.png', which is missing"),
        ("web.gltf", textured("https://example.org/a.png"), "which is missing"),
        ("damaged.gltf", embedded(b"no image"), "a texture is damaged"),
        (
            "eps.gltf",
            embedded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
            "a texture is damaged, or none of PNG",
        ),
        (
            "rows.gltf",
            header(accessors=[{"componentType": 5126, "count": 10**9, "type": "VEC3"}]),
            "a table of 1,000,000,000 rows",
        ),
        (
            "draco.gltf",
            header(extensionsRequired=["KHR_draco_mesh_compression"]),
            "requires the extension KHR_draco_mesh_compression",
        ),
        (
            "whole.gltf",
            header(accessors=[{"bufferView": 0, "componentType": 5122, "count": 3, "type": "VEC3"}]),
            "whole numbers for POSITION",
        ),
        (
            "fan.gltf",
            header(meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "mode": 6}]}]),
            "fans of triangles",
        ),
        ("flat.gltf", header(nodes=[{"mesh": 0, "scale": [1, 0, 1]}]), "scaled to nothing"),
        ("many.obj", TRIANGLE + "f 1 2 3\n" * 1001, "1,001 faces, more than 1,000"),
        (
            "nodes.gltf",
            header(nodes=[{"mesh": 0}] * 1200, scenes=[{"nodes": list(range(1200))}]),
            "1,200 faces, more than 1,000",
        ),
    ],
)
def test_a_broken_file_is_refused_in_one_line(name, content, reason, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "up.mtl").write_text("newmtl a\n")
    (folder / name).write_text(content)
    assert reason in refusal(folder / name)


def test_names_of_files_may_be_written_as_addresses_are(tmp_path):
    (tmp_path / "four colors").mkdir()
    four_colors().save(tmp_path / "four colors" / "a.png")
    (tmp_path / "a.gltf").write_text(textured("four%20colors/a.png"))
    assert read_surface(tmp_path / "a.gltf", "y", 10).triangles.shape == (1, 3, 3)


@pytest.mark.parametrize("kind", ["glb", "ply", "obj"])
def test_damaged_files_are_read_or_refused_and_do_nothing_else(kind, tmp_path):
    (
        trimesh.Scene(quad(baseColorTexture=four_colors())).export(tmp_path / "quad.glb")
        if kind == "glb"
        else quad().export(tmp_path / f"quad.{kind}")
    )
    sound, random, refused = (tmp_path / f"quad.{kind}").read_bytes(), np.random.default_rng(0), 0
    for _ in range(100):
        place, length = random.integers(len(sound)), random.integers(1, 9)
        data = sound[:place] + random.bytes(length if random.uniform() < 0.7 else 0) + sound[place + length :]
        (tmp_path / f"damaged.{kind}").write_bytes(data)
        try:
            read_surface(tmp_path / f"damaged.{kind}", "y", 1000)
        except UserError as error:
            refused += 1
            assert "damaged" in str(error) and str(error).isprintable()
    assert refused > 5


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl a\n")
    (tmp_path / "in" / "a.mtl").symlink_to(tmp_path / "secret.mtl")
    (tmp_path / "in" / "a.obj").write_text("mtllib a.mtl\n" + TRIANGLE + "f 1 2 3\n")
    assert "not in its folder" in refusal(tmp_path / "in" / "a.obj")


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"skins": [{}]}, "has a skin"),
        (
            {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, "texCoord": 1}}}]},
            "second texture",
        ),
    ],
)
def test_what_is_not_read_and_may_show_is_remarked_on(changes, remark, tmp_path):
    (tmp_path / "a.gltf").write_text(header(**changes))
    with pytest.warns(Remark, match=remark):
        read_surface(tmp_path / "a.gltf", "y", 10)


def test_glossy_materials_keep_their_color(tmp_path):
    glossy = {
        "name": "a",
        "extensions": {
            "KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [1.0, 0.0, 0.0, 1.0], "specularFactor": [0, 0, 0]}
        },
    }
    (tmp_path / "a.gltf").write_text(header(materials=[glossy]))
    assert read_surface(tmp_path / "a.gltf", "y", 10).rgba[0, 0].tolist() == pytest.approx([1, 0, 0, 1], abs=0.01)


def test_a_file_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    trimesh.creation.box().export(tmp_path / "box.stl")
    monkeypatch.setattr(loading, "MAX_BYTES", 100)
    assert "longer than" in refusal(tmp_path / "box.stl")


def test_a_texture_of_too_many_pixels_is_refused_by_its_header(tmp_path, monkeypatch):
    trimesh.Scene(quad(baseColorTexture=four_colors())).export(tmp_path / "quad.glb")
    monkeypatch.setattr("vcgen.data.images.reading.MAX_PIXELS", 10)
    monkeypatch.setattr(loading.check_size, "__defaults__", (10,))
    assert "8 x 8 pixels" in refusal(tmp_path / "quad.glb")


def test_plain_shapes_need_no_materials(tmp_path):
    (tmp_path / "a.obj").write_text("mtllib no.mtl\n" + TRIANGLE + "usemtl x\nf 1 2 3\n")
    surface = read_surface(tmp_path / "a.obj", "y", 10, plain=True)
    assert surface.rgba[0, 0].tolist() == pytest.approx([0.8, 0.8, 0.8, 1.0])


def test_large_textures_are_shrunk_to_means(tmp_path):
    pixels = np.zeros((2, 2 * MOST_TEXELS + 2, 3), np.uint8)
    pixels[:, 1::3] = 90
    small = decode(Image.fromarray(pixels), tmp_path)
    assert small.shape == (1, (2 * MOST_TEXELS + 2 + 2) // 3, 4) and small[0, 0].tolist() == [30, 30, 30, 255]
