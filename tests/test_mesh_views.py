"""Rendered meshes look as they must: shapes whose outline and color are known, textures upright, materials as files
mean them.
"""

import math

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from mesh_files import BLUE, GREEN, RED, WHITE, edited, four_colors, front, quad, quarters, seen
from vcgen.meshes.cameras import DISTANCE, FOCAL, turntable
from vcgen.meshes.draw import draw, drawable
from vcgen.meshes.parts import read_surface
from vcgen.meshes.surface import to_linear, to_srgb
from vcgen.rendering.rasterizer import rasterize


def test_a_ball_covers_the_circle_that_it_must_and_stands_at_its_distance(tmp_path):
    trimesh.creation.icosphere(4, radius=7).apply_translation([3, 4, 5]).export(tmp_path / "ball.stl")
    surface, scale = read_surface(tmp_path / "ball.stl", "z", 10_000).fitted("sphere")
    cameras = turntable(np.random.default_rng(0), 3)
    scene = drawable(surface, None)
    alpha = draw(scene, cameras[1], (64, 64))[..., 3].float() / 255
    radius = 64 * FOCAL * math.tan(math.asin(0.5 / DISTANCE))
    assert scale == pytest.approx(0.5 / 7, rel=1e-5)
    assert float(alpha.sum()) == pytest.approx(math.pi * radius**2, rel=0.004)
    assert 0 < float(alpha[(alpha > 0) & (alpha < 1)].mean()) < 1, "the outline is smooth"
    raster = rasterize(scene.mesh, cameras[1:2], (63, 63))
    assert float(raster.z[raster.pixels == 31 * 63 + 31]) == pytest.approx(DISTANCE - 0.5, abs=2e-3)


def test_a_cube_covers_its_square_in_its_own_color(tmp_path):
    color = (0.2, 0.013, 0.6)  # linear, as glTF has it; in 8 bits the second would be another gray level
    cube = trimesh.creation.box()
    cube.visual = TextureVisuals(material=PBRMaterial(name="paint", baseColorFactor=[*color, 1.0]))

    def unrounded(header: dict) -> None:  # as other writers have it
        header["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [*color, 1.0]

    (tmp_path / "cube.glb").write_bytes(edited(trimesh.Scene(cube).export(file_type="glb"), unrounded))
    image = seen(tmp_path / "cube.glb", 32)
    assert image[..., 3].sum() / 255 == pytest.approx(16.0**2, rel=0.05)  # its near side is larger by 1 %
    wanted = (to_srgb(torch.tensor(color)) * 255).round().int()
    assert (image[9:23, 9:23] == torch.cat([wanted, torch.tensor([255])])).all()


@pytest.mark.parametrize("kind", ["glb", "gltf", "obj"])
def test_textures_stand_upright(kind, tmp_path):
    mesh = quad(baseColorTexture=four_colors())
    if kind == "obj":
        mesh.visual.material = mesh.visual.material.to_simple()
        mesh.export(tmp_path / "quad.obj")
    elif kind == "gltf":
        for name, data in trimesh.Scene(mesh).export(file_type="gltf").items():
            (tmp_path / name.replace("model.gltf", "quad.gltf")).write_bytes(data)
    else:
        trimesh.Scene(mesh).export(tmp_path / "quad.glb")
    assert [color[:3] for color in quarters(seen(tmp_path / f"quad.{kind}"))] == [RED, GREEN, BLUE, WHITE]


def test_a_mirrored_node_mirrors_and_keeps_fronts_in_front(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(quad(baseColorTexture=four_colors()), transform=np.diag([-1.0, 1, 1, 1]))
    scene.export(tmp_path / "mirrored.glb")
    assert [color[:3] for color in quarters(seen(tmp_path / "mirrored.glb", cull=True))] == [GREEN, RED, WHITE, BLUE]


def test_normals_are_the_files_and_the_faces_where_it_has_none(tmp_path):
    ball = trimesh.creation.icosphere(1)
    ball.export(tmp_path / "flat.glb", include_normals=False)
    ball.export(tmp_path / "smooth.glb", include_normals=True)
    flat, smooth = (read_surface(tmp_path / f"{name}.glb", "y", 10_000) for name in ("flat", "smooth"))
    assert torch.allclose(flat.normals.double(), flat.face_normals()[:, None].expand(-1, 3, -1), atol=1e-5)
    assert torch.allclose(smooth.normals.double(), torch.nn.functional.normalize(smooth.triangles, dim=-1), atol=0.02)


def test_several_materials_of_an_obj_file_keep_their_faces(tmp_path):
    (tmp_path / "two.mtl").write_text("newmtl left\nKd 1 0 0\n\nnewmtl right\nKd 0 0 0.5\nd 1.0\n")
    corners = "v -1 -1 0\nv 0 -1 0\nv 1 -1 0\nv -1 1 0\nv 0 1 0\nv 1 1 0\n"
    (tmp_path / "two.obj").write_text(f"mtllib two.mtl\n{corners}usemtl left\nf 1 2 5 4\nusemtl right\nf 2 3 6 5\n")
    assert quarters(seen(tmp_path / "two.obj")) == [(*RED, 255), (0, 0, 128, 255)] * 2


@pytest.mark.parametrize("kind", ["ply", "glb"])
def test_colors_of_vertices_are_read_in_the_space_that_the_format_has(kind, tmp_path):
    mesh = quad()
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile([128, 10, 255, 255], (4, 1)).astype(np.uint8))
    trimesh.Scene(mesh).export(tmp_path / "quad.glb") if kind == "glb" else mesh.export(tmp_path / "quad.ply")
    color = torch.tensor([128, 10, 255]) / 255  # of glTF linear, else sRGB
    wanted = (to_srgb(color) * 255).round() if kind == "glb" else torch.tensor([128, 10, 255])
    assert torch.tensor(quarters(seen(tmp_path / f"quad.{kind}"))[0][:3]).sub(wanted).abs().max() <= 1


@pytest.mark.parametrize(("double", "cull", "alpha"), [(True, True, 255), (False, True, 0), (False, False, 255)])
def test_backs_are_drawn_unless_single_sided_ones_are_to_be_left_out(double, cull, alpha, tmp_path):
    trimesh.Scene(quad(baseColorFactor=[1.0, 0, 0, 1.0], doubleSided=double)).export(tmp_path / "quad.glb")
    assert quarters(seen(tmp_path / "quad.glb", camera=front(180), cull=cull))[0][3] == alpha
    assert quarters(seen(tmp_path / "quad.glb", cull=cull))[0] == (*RED, 255)


def test_both_sides_are_lit(tmp_path):
    trimesh.Scene(quad(baseColorFactor=[0.5, 0.5, 0.5, 1.0])).export(tmp_path / "quad.glb")
    one, other = (quarters(seen(tmp_path / "quad.glb", camera=front(azimuth), lit=True))[0] for azimuth in (0, 180))
    assert min(one[:3]) > 90 and min(other[:3]) > 90


def test_a_mask_is_cut_out_and_shows_what_is_behind(tmp_path):
    pixels = np.full((8, 8, 4), 255, np.uint8)
    pixels[:, :4, 3], pixels[:, 4:, 3], pixels[..., 1:3] = 76, 178, 0
    scene = trimesh.Scene([quad(baseColorTexture=Image.fromarray(pixels), alphaMode="MASK", alphaCutoff=0.5)])
    trimesh.Scene(scene.geometry.values()).export(tmp_path / "alone.glb")
    assert [color[3] for color in quarters(seen(tmp_path / "alone.glb"))] == [0, 255, 0, 255]
    scene.add_geometry(quad(z=-0.1, baseColorFactor=[0.0, 0.0, 1.0, 1.0]))
    scene.export(tmp_path / "both.glb")
    assert quarters(seen(tmp_path / "both.glb")) == [(*BLUE, 255), (*RED, 255)] * 2


def test_blended_faces_are_laid_over_what_is_behind_from_front_to_back(tmp_path):
    layers = [
        quad(z=z, baseColorFactor=[*color, 0.5], alphaMode="BLEND")
        for z, color in ((0.1, (1.0, 0, 0)), (0.0, (0, 1.0, 0)))
    ]
    trimesh.Scene(layers).export(tmp_path / "glass.glb")
    red, green, blue, alpha = quarters(seen(tmp_path / "glass.glb"))[0]
    assert alpha == pytest.approx(255 * 0.75, abs=2) and blue == 0  # trimesh writes 0.5 as 127 / 255 or 128 / 255
    wanted = to_srgb(torch.tensor([2 / 3, 1 / 3])) * 255
    assert torch.tensor([red, green]).sub(wanted).abs().max() < 3


def test_light_comes_from_above_and_shade_lies_where_the_object_stands_in_the_way(tmp_path):
    floor = trimesh.creation.box([0.8, 0.8, 0.008])
    roof = floor.copy().apply_translation([0, 0, 0.12])
    for name, parts in (("open", [floor]), ("roofed", [floor, roof])):
        trimesh.util.concatenate(parts).export(tmp_path / f"{name}.ply")
    bright = {}
    for name in ("open", "roofed"):
        scene = drawable(read_surface(tmp_path / f"{name}.ply", "z", 1000))
        height, middle = (
            scene.surface.triangles[:, :, 2].amin(1),
            scene.surface.triangles[:, :, :2].abs().amax((1, 2)) < 0.2,
        )
        up = (scene.surface.face_normals()[:, 2] > 0.9) & middle
        bright[name] = [float(scene.light.diffuse[0, up & part].mean()) for part in (height < 0.05, height > 0.05)]
    assert bright["open"][0] > 1.0 and bright["roofed"][0] < 0.4 * bright["open"][0]
    assert bright["roofed"][1] == pytest.approx(bright["open"][0], rel=0.02), (
        "the roof itself is as bright as the open floor"
    )


def test_variants_stretch_recolor_and_mirror_but_keep_fronts_and_textures(tmp_path):
    trimesh.Scene(quad(baseColorTexture=four_colors())).export(tmp_path / "quad.glb")
    surface = read_surface(tmp_path / "quad.glb", "y", 100)
    assert surface.varied(0, np.random.default_rng(0)) is surface
    other = surface.varied(1, np.random.default_rng(1))
    sides = (other.triangles.amax((0, 1)) - other.triangles.amin((0, 1)))[[0, 2]] / 2
    assert ((sides > 0.85) & (sides < 1.15)).all() and sides[0] != sides[1]
    assert other.textures[0][0, 0].tolist() == [255, 0, 0, 255] and other.textures[0][0, -1].tolist() == [
        0,
        0,
        255,
        255,
    ]
    assert torch.allclose(other.face_normals(), surface.face_normals())
    mirrored = surface.moved(torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64)))
    assert torch.allclose(mirrored.face_normals(), surface.face_normals()) and torch.allclose(
        mirrored.normals, surface.normals
    )


def test_refined_faces_are_the_same_surface(tmp_path):
    surface = read_surface(saved_box(tmp_path), "z", 100)
    fine = surface.refined(0.3, 10_000)
    sides = [(s.triangles[:, 1] - s.triangles[:, 0], s.triangles[:, 2] - s.triangles[:, 0]) for s in (surface, fine)]
    areas = [float(torch.linalg.cross(*pair).norm(dim=1).sum()) for pair in sides]
    assert float((fine.triangles - fine.triangles.roll(-1, 1)).norm(dim=2).max()) <= 0.3
    assert areas[0] == pytest.approx(areas[1]) and len(surface.refined(0.3, 20)) <= 20
    assert torch.allclose(fine.face_normals(), fine.normals[:, 0].double(), atol=1e-6)


def saved_box(folder):
    """The path of a cube."""
    trimesh.creation.box().export(folder / "box.stl")
    return folder / "box.stl"


def test_linear_light_and_srgb_are_inverse():
    levels = torch.arange(256) / 255
    assert torch.allclose(to_srgb(to_linear(levels)), levels, atol=1e-6)
