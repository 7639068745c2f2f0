"""Textured meshes: every point of a surface has its color in the files that are written, whoever reads them."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from mesh_files import quad, seen
from vcgen.errors import UserError
from vcgen.rendering.atlas import size_for, unwrap
from vcgen.rendering.baking import bake, described
from vcgen.rendering.textures import Mipmaps, sample
from vcgen.visualization.mesh_files import Texture, write_mesh

MIDDLE = np.array([0.1, -0.05, 0.08])


def colors(points, inward):
    """Linear in space, so that texels between which a reader interpolates have it exactly."""
    return (points - torch.as_tensor(MIDDLE, dtype=points.dtype)) / 0.8 + 0.5


@pytest.fixture(scope="module")
def ball():
    mesh = trimesh.creation.icosphere(2, 0.3)
    mesh.apply_translation(MIDDLE)
    return mesh


@pytest.fixture(scope="module")
def texture(ball):
    return bake(ball, colors, 128)


@pytest.fixture(scope="module")
def files(ball, texture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("textured")
    return {kind: write_mesh(folder / f"ball.{kind}", ball, texture) for kind in ("glb", "obj")}


def looked_up(image, uv):
    """Between texels, as viewers do. uv: (n, 2), v down."""
    texels = torch.as_tensor(np.array(image)[..., :3].copy()).double().movedim(-1, 0)[None] / 255
    return sample(Mipmaps.of(texels, levels=1), torch.as_tensor(uv), wrap=("clamp", "clamp")).numpy()


def somewhere(corners):
    """Points of triangles (F, 3, n): their corners, and three drawn on each, one of them on an edge."""
    drawn = np.random.default_rng(0).dirichlet(np.ones(3), size=(len(corners), 3))
    drawn[:, 0, 0] = 0
    drawn /= drawn.sum(-1, keepdims=True)
    return np.einsum("fkc,fcn->fkn", np.concatenate([np.tile(np.eye(3), (len(corners), 1, 1)), drawn], 1), corners)


@pytest.mark.parametrize("kind", ["glb", "obj"])
def test_a_stranger_finds_the_color_of_every_point_and_a_closed_surface(files, ball, kind):
    found = trimesh.load(files[kind], force="mesh", process=False)
    material = found.visual.material
    image = material.baseColorTexture if kind == "glb" else material.image
    points, uv = (
        somewhere(values[found.faces]).reshape(-1, n) for values, n in ((found.vertices, 3), (found.visual.uv, 2))
    )
    if kind == "glb":
        points = points[:, [0, 2, 1]] * [1, -1, 1]  # y up
    expected = colors(torch.as_tensor(points), None).numpy()
    assert np.abs(looked_up(image, uv * [1, -1] + [0, 1]) - expected).max() < 1.5 / 255
    found.merge_vertices(merge_tex=True, merge_norm=True)
    assert found.is_watertight and found.volume == pytest.approx(ball.volume, rel=1e-5)
    assert len(found.faces) == len(ball.faces)


def test_an_obj_shares_its_positions_and_names_the_files_beside_it(files):
    lines = files["obj"].read_text().splitlines()
    assert lines[0] == "mtllib ball.mtl" and sum(line.startswith("v ") for line in lines) == 162
    assert "map_Kd ball.png" in files["obj"].with_suffix(".mtl").read_text()


def test_a_glb_is_unlit_with_smooth_normals(files):
    data = files["glb"].read_bytes()
    tree = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    (material,) = tree["materials"]
    assert "KHR_materials_unlit" in material["extensions"] and tree["extensionsUsed"] == ["KHR_materials_unlit"]
    assert material["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0} and len(tree["images"]) == 1
    assert tree["samplers"][tree["textures"][0]["sampler"]]["minFilter"] == 9729  # without mipmaps
    (found,) = trimesh.load_scene(files["glb"], process=False).geometry.values()
    outward = found.vertices - MIDDLE[[0, 2, 1]] * [1, 1, -1]
    assert np.abs(found.vertex_normals - outward / 0.3).max() < 0.05


def test_it_is_drawn_as_with_colors_of_vertices(files, ball, tmp_path):
    ball = ball.copy()
    ball.visual.vertex_colors = (255 * colors(torch.as_tensor(np.array(ball.vertices)), None)).round().byte().numpy()
    plain = seen(write_mesh(tmp_path / "plain.glb", ball), 64)
    assert plain[..., 3].float().mean() > 40
    error = (seen(files["glb"], 64) - plain).abs().double()
    # of vertices they are rounded in linear light; where a face is seen at an angle, mipmaps mix what lies around it
    assert error.mean() < 0.5 and error.quantile(0.99) <= 6


def test_what_is_read_between_texels_and_around_a_face_continues_it(ball, texture):
    """At the patches' corners a reader takes texels whose centers lie outside of the faces."""
    uv = unwrap(ball.vertices, ball.faces, 128)
    assert np.array_equal(uv, texture.uv) and uv.min() > 0 and uv.max() < 1
    corner = colors(torch.as_tensor(np.array(ball.vertices))[ball.faces], None).numpy()
    assert np.abs(looked_up(texture.image, uv.reshape(-1, 2)) - corner.reshape(-1, 3)).max() < 1.5 / 255


def test_charts_come_from_xatlas_where_it_is_installed(monkeypatch):
    flat = quad()
    uv = (flat.vertices[:, :2] + 1.25) / 2.5

    class Atlas:
        def add_mesh(self, vertices, faces):
            assert (vertices.dtype, faces.dtype) == (np.float32, np.uint32)

        def generate(self, pack_options):
            assert (pack_options.resolution, pack_options.padding) == (64, 2)

        def __getitem__(self, number):
            return np.arange(4), flat.faces, uv

    monkeypatch.setattr("vcgen.rendering.atlas.charts_at_hand", lambda: True)
    monkeypatch.setattr("vcgen.rendering.baking.charts_at_hand", lambda: True)
    monkeypatch.setitem(sys.modules, "xatlas", SimpleNamespace(Atlas=Atlas, PackOptions=SimpleNamespace))
    found = bake(flat, lambda points, inward: (points + 1) / 2, 64)
    assert np.array_equal(found.uv, uv[flat.faces]) and "charts by xatlas" in described(found)
    assert found.image[32, 32].tolist() == pytest.approx([128, 128, 128], abs=3)
    assert found.image[8, 32].tolist() == pytest.approx(
        [128, 6, 128], abs=6
    )  # v is down, as y is up: row 8 is y = -0.9
    assert size_for(10**6) == 1024


def test_charts_of_xatlas_itself(ball):
    pytest.importorskip("xatlas")
    found = bake(ball, colors, 256)
    places = somewhere(np.array(ball.vertices)[ball.faces])
    expected = colors(torch.as_tensor(places), None).numpy().reshape(-1, 3)
    error = np.abs(looked_up(found.image, somewhere(found.uv).reshape(-1, 2)) - expected).max(1)
    assert np.quantile(error, 0.99) < 2 / 255


def test_textures_too_small_for_their_faces_and_files_without_are_refused(ball, monkeypatch, tmp_path):
    monkeypatch.setattr("vcgen.rendering.atlas.charts_at_hand", lambda: False)
    with pytest.raises(UserError, match="a texture of 64 texels a side is too small for 320 faces: use at least 91"):
        unwrap(ball.vertices, ball.faces, 64)
    assert size_for(320) == 1024 and size_for(200_000) == 4096
    assert np.isfinite(unwrap(ball.vertices[:3], ball.faces[:1], 64)).all()
    with pytest.raises(UserError, match=r"a \.ply file holds no texture"):
        write_mesh(tmp_path / "a.ply", ball, Texture(np.zeros((320, 3, 2)), np.zeros((8, 8, 3), np.uint8)))
