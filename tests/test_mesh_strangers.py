"""A stranger's .glb file beside an independent drawing: rays cast at the triangles that were put into it, and texels
looked up in its images. Textures, several materials, mirrored, sheared and nested nodes, no normals.
"""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from mesh_files import edited, four_colors, front, quad, quarters, seen
from vcgen.cameras import Cameras
from vcgen.errors import UserError
from vcgen.meshes.parts import read_surface

SIZE = 128
SHEARED = np.array([[1.0, 0.7, 0, 2.5], [0, 1, 0.4, 0], [0.2, 0, 1.2, 0.5], [0, 0, 0, 1]])
MIRRORED = trimesh.transformations.euler_matrix(0.4, -0.7, 0.2) @ np.diag([-1.2, 0.8, 1.0, 1.0])
TURNED_INSIDE_OUT = trimesh.transformations.translation_matrix([-2.6, 0.3, 0.4]) @ np.diag([-0.7, -0.9, -1.1, 1.0])


def box(material: PBRMaterial) -> trimesh.Trimesh:
    """Six squares of side 2 around the origin, the middle of the texture on each: beyond it, it repeats."""
    side = np.array([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    turns = [trimesh.transformations.euler_matrix(*np.radians(a)) for a in ((0, 0, 0), (90, 0, 0), (-90, 0, 0))]
    turns += [trimesh.transformations.euler_matrix(*np.radians(a)) for a in ((0, 90, 0), (0, -90, 0), (0, 180, 0))]
    corners = np.concatenate([side @ turn[:3, :3].T for turn in turns])
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in range(6)])
    uv = np.tile(0.5 + 0.35 * side[:, :2], (6, 1))
    return trimesh.Trimesh(corners, faces, visual=TextureVisuals(uv=uv, material=material), process=False)


def stripes() -> Image.Image:
    """Three colors from left to right."""
    return Image.fromarray(
        np.array([[[250, 120, 10], [20, 200, 190], [90, 30, 160]]], np.uint8).repeat(8, 0).repeat(8, 1)
    )


@pytest.fixture
def stranger(tmp_path) -> tuple[Path, list[tuple[trimesh.Trimesh, np.ndarray]]]:
    """The file, and the boxes in it with their matrices."""
    boxes = [
        (box(PBRMaterial(name="four", baseColorTexture=four_colors(32))), SHEARED),
        (box(PBRMaterial(name="stripes", baseColorTexture=stripes(), doubleSided=True)), MIRRORED),
        (box(PBRMaterial(name="plain", baseColorFactor=[0, 255, 0, 255])), TURNED_INSIDE_OUT),
    ]
    scene = trimesh.Scene()
    scene.graph.update("outer", matrix=boxes[2][1])
    for number, (mesh, matrix) in enumerate(boxes[:2]):
        scene.add_geometry(mesh, node_name=f"node{number}", geom_name=f"box{number}", transform=matrix)
    scene.add_geometry(boxes[2][0], node_name="inner", geom_name="box2", parent_node_name="outer")
    (tmp_path / "stranger.glb").write_bytes(scene.export(file_type="glb", include_normals=False))
    return tmp_path / "stranger.glb", boxes


def cast(boxes: list[tuple[trimesh.Trimesh, np.ndarray]], camera: Cameras) -> np.ndarray:
    """(SIZE, SIZE, 4) colors at the centers of pixels, by Möller and Trumbore's test of every triangle."""
    corners = [trimesh.transformations.transform_points(mesh.vertices, matrix) for mesh, matrix in boxes]
    low, high = np.concatenate(corners).min(0), np.concatenate(corners).max(0)
    rows, columns = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    local = np.stack([columns, rows, np.ones_like(rows)], -1).reshape(-1, 3) @ np.linalg.inv(camera.K.numpy()).T
    to_file = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # from z up to y up
    origin = to_file @ camera.c2w[:3, 3].numpy()
    directions = local @ (to_file @ camera.c2w[:3, :3].numpy()).T
    nearest, image = np.full(SIZE * SIZE, np.inf), np.zeros((SIZE * SIZE, 4))
    for (mesh, _), points in zip(boxes, corners, strict=True):
        points = (points - (low + high) / 2) / (high - low).max()
        for face in mesh.faces:
            a, b, c = points[face]
            across = np.cross(directions, c - a)
            size = across @ (b - a)
            u = across @ (origin - a) / size
            v = directions @ np.cross(origin - a, b - a) / size
            distance = (c - a) @ np.cross(origin - a, b - a) / size
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0) & (distance < nearest)
            nearest[hit] = distance[hit]
            uv = np.stack([1 - u - v, u, v], -1)[hit] @ mesh.visual.uv[face]
            image[hit] = colors(mesh, uv)
    return image.reshape(SIZE, SIZE, 4)


def colors(mesh: trimesh.Trimesh, uv: np.ndarray) -> np.ndarray:
    """(n, 4): the nearest texel, v up, or the material's factor."""
    material = mesh.visual.material
    if material.baseColorTexture is None:
        return np.tile(np.asarray(material.baseColorFactor, np.float64), (len(uv), 1))
    pixels = np.asarray(material.baseColorTexture.convert("RGBA"), np.float64)
    column, row = (np.array([0, 1]) + np.array([1, -1]) * uv).T * np.array(pixels.shape[1::-1])[:, None]
    return pixels[row.astype(int).clip(0, len(pixels) - 1), column.astype(int).clip(0, pixels.shape[1] - 1)]


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (40, 25), (200, -35), (110, 80)])
def test_every_pixel_inside_one_color_is_as_rays_and_texels_say(stranger, azimuth, elevation):
    path, boxes = stranger
    camera = front(azimuth, elevation)
    wanted, found = cast(boxes, camera), seen(path, SIZE, camera).numpy()
    around = np.stack([np.roll(wanted, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    even = (around == wanted).all((0, 3))
    assert (even & (wanted[..., 3] > 0)).sum() > 300
    assert np.abs(found - wanted)[even].max() <= 1


def test_fronts_face_outwards_whatever_mirrors_or_shears(stranger):
    surface = read_surface(stranger[0], "y", 1000)
    assert len(surface) == 36
    for start in range(0, 36, 12):  # a box each
        corners = surface.triangles[start : start + 12]
        outwards = corners.mean(1) - corners.mean((0, 1))
        assert ((surface.face_normals()[start : start + 12] * outwards).sum(-1) > 0).all()
    assert torch.allclose(surface.normals.double(), surface.face_normals()[:, None].expand(-1, 3, -1), atol=1e-6)


def turned(extension: dict, path: Path) -> list[tuple[int, ...]]:
    """Quarters of a square with four colors whose material has KHR_texture_transform."""

    def change(header: dict) -> None:
        texture = header["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
        texture["extensions"] = {"KHR_texture_transform": extension}
        header["extensionsRequired"] = ["KHR_texture_transform"]

    glb = trimesh.Scene(quad(baseColorTexture=four_colors())).export(file_type="glb")
    path.write_bytes(edited(glb, change))
    return [color[:3] for color in quarters(seen(path))]


def test_textures_are_moved_turned_and_scaled_as_the_extension_says(tmp_path):
    plain = turned({}, tmp_path / "a.glb")
    left, right, low_left, low_right = plain
    assert turned({"offset": [0.5, 0]}, tmp_path / "a.glb") == [right, left, low_right, low_left]
    assert turned({"offset": [0, 0.5]}, tmp_path / "a.glb") == [low_left, low_right, left, right]
    assert turned({"scale": [0.5, 0.5]}, tmp_path / "a.glb") == [left] * 4
    quarter = turned({"rotation": np.pi / 2}, tmp_path / "a.glb")
    assert quarter == [low_left, left, low_right, right], "the image is turned clockwise"
    both = {"offset": [0.25, 0.0], "rotation": np.pi / 2, "scale": [0.5, 0.5]}
    assert turned(both, tmp_path / "a.glb") == [low_left, low_left, low_right, low_right]


def test_textures_of_materials_of_one_name_must_be_moved_alike(tmp_path):
    scene = trimesh.Scene(
        [quad(name="a", baseColorTexture=four_colors()), quad(z=1, name="a", baseColorTexture=stripes())]
    )

    def change(header: dict) -> None:
        texture = header["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
        texture["extensions"] = {"KHR_texture_transform": {"offset": [0.5, 0]}}

    (tmp_path / "a.glb").write_bytes(edited(scene.export(file_type="glb"), change))
    with pytest.raises(UserError, match="several materials 'a' whose textures are moved differently"):
        read_surface(tmp_path / "a.glb", "y", 100)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_glb_with_a_coordinate_that_is_none_is_one_line(value, tmp_path):
    glb = trimesh.Scene(quad(z=0.123, baseColorTexture=four_colors())).export(file_type="glb")
    (tmp_path / "a.glb").write_bytes(glb.replace(struct.pack("<f", 0.123), struct.pack("<f", value), 1))
    with pytest.raises(UserError, match="NaN, infinite or huge") as caught:
        read_surface(tmp_path / "a.glb", "y", 100)
    assert "\n" not in str(caught.value) and str(tmp_path / "a.glb") in str(caught.value)


def test_a_glb_without_faces_is_one_line(tmp_path):
    trimesh.Scene(trimesh.PointCloud([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])).export(tmp_path / "a.glb")
    with pytest.raises(UserError, match="has no faces"):
        read_surface(tmp_path / "a.glb", "y", 100)
