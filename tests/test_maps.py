"""Depth, normals and masks beside the images: exact for shapes that are known, and nothing to readers without use for
them.
"""

import dataclasses
import io
import tarfile

import numpy as np
import pytest
import torch
import trimesh
import webdataset

from mesh_files import front, quad
from scenes import make_record, png
from vcgen.cli import main as cli
from vcgen.data.shards import maps
from vcgen.data.shards.files import read_index, write_shards
from vcgen.data.shards.tar import members_of, record_of
from vcgen.errors import UserError
from vcgen.meshes.buffers import buffers
from vcgen.meshes.cameras import turntable
from vcgen.meshes.draw import drawable
from vcgen.meshes.parts import read_surface

SIZE = (48, 48)


def rays(camera, size=SIZE):
    """Origin (3,) and unit directions (height, width, 3) through the centers of pixels, from the definitions."""
    y, x = np.meshgrid((np.arange(size[0]) + 0.5) / size[0], (np.arange(size[1]) + 0.5) / size[1], indexing="ij")
    K, c2w = camera.K.double().numpy(), camera.c2w.double().numpy()
    local = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    world = local @ c2w[:3, :3].T
    return c2w[:3, 3], world / np.linalg.norm(world, axis=-1, keepdims=True)


@pytest.fixture
def ball(tmp_path):
    """The path of a fine ball with smooth normals."""
    trimesh.creation.icosphere(5).export(path := tmp_path / "ball.glb", include_normals=True)
    return path


def test_depth_and_normals_of_a_sphere_are_those_of_the_formula(ball):
    surface = read_surface(ball, "y", 100_000).fitted("sphere")[0]
    camera = turntable(np.random.default_rng(0), 5)[2]
    distance, normals = (map.numpy() for map in buffers(drawable(surface, None), camera, SIZE))
    origin, directions = rays(camera)
    b = directions @ origin
    root = b**2 - (origin @ origin - 0.25)
    wanted = np.where(root > 0, -b - np.sqrt(root.clip(0)), 0)
    assert (distance > 0)[root > 0.002].all() and not (distance > 0)[root < 0].any()
    inside = root > 0.004
    assert np.abs(distance - wanted)[inside].max() < 2e-3
    points = origin + wanted[..., None] * directions
    assert np.abs(normals - 2 * points)[inside].max() < 0.01
    assert not normals[distance == 0].any()


def test_a_plane_is_exact_and_both_its_sides_face_the_camera(tmp_path):
    trimesh.Scene(quad()).export(tmp_path / "quad.glb")
    surface = read_surface(tmp_path / "quad.glb", "y", 10).fitted("box")[0]  # in the world a square at y = 0
    for azimuth in (30, 160):
        camera = front(azimuth, 10)
        distance, normals = (map.numpy() for map in buffers(drawable(surface, None), camera, SIZE))
        origin, directions = rays(camera)
        wanted = -origin[1] / directions[..., 1]
        hit = distance > 0
        points = origin + wanted[..., None] * directions
        assert (hit == (np.abs(points[..., [0, 2]]) < 0.5).all(-1)).mean() > 0.995 and hit.sum() > 100
        assert np.abs(distance - wanted)[hit].max() < 1e-6
        seen = 1 if normals[hit][0, 1] > 0 else -1
        assert np.allclose(normals[hit], [0, seen, 0], atol=1e-6) and (normals[hit] * directions[hit]).sum(-1).max() < 0
        assert seen == (1 if origin[1] > 0 else -1)


def test_what_lets_light_through_has_the_depth_of_what_is_behind(tmp_path):
    layers = [
        quad(z=0.5, baseColorFactor=[1.0, 0, 0, 0.3], alphaMode="BLEND"),
        quad(z=0.0, baseColorFactor=[0, 1.0, 0, 1.0]),
    ]
    trimesh.Scene(layers).export(tmp_path / "glass.glb")
    surface = read_surface(tmp_path / "glass.glb", "y", 10)
    distance = buffers(drawable(surface, None), front(), SIZE)[0]
    assert float(distance[24, 24]) == pytest.approx(50, abs=1e-3)


def test_maps_are_stored_in_their_units():
    random = np.random.default_rng(0)
    distance = random.uniform(0.8, 1.8, SIZE) * (random.uniform(size=SIZE) < 0.7)
    normals = random.normal(size=(*SIZE, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[0] = 0
    found = maps.decode_depth(maps.encode_depth(distance, 1.8), SIZE, 1.8)
    assert np.abs(found - distance).max() <= 0.5001 * 1.8 / 65535 and ((found > 0) == (distance > 0)).all()
    found = maps.decode_normals(maps.encode_normals(normals), SIZE)
    assert np.abs(found - normals).max() < 0.01 and not found[0].any()
    assert (maps.decode_mask(maps.encode_mask(distance > 0), SIZE) == (distance > 0)).all()
    with pytest.raises(UserError, match=r"a depth of 1.9 lies beyond t_far, 1.8"):
        maps.encode_depth(np.full(SIZE, 1.9), 1.8)


def with_maps():
    """A record of three views with two kinds of maps."""
    record = make_record(count=3)
    flat = np.ones(record.size)
    kinds = {"depth": [maps.encode_depth(flat, 2.0)] * 3, "mask": [maps.encode_mask(flat > 0)] * 3}
    return dataclasses.replace(record, maps=kinds)


def test_records_come_back_with_their_maps_and_other_kinds_are_passed_over(tmp_path):
    record = with_maps()
    index = write_shards([record], tmp_path / "out", record.size)
    assert index.read(0).maps == record.maps and index.read(0).images == record.images
    members = dict(members_of(record))
    members.update({f"{record.key}.{number:03d}.flow.npy": b"?" for number in range(3)})
    assert record_of(members).maps == record.maps
    samples = webdataset.WebDataset([str(index.folder / "000000.tar")], shardshuffle=False)
    (found,) = list(samples)
    assert found["002.depth.png"] == record.maps["depth"][2] and found["002.png"] == record.images[2]
    with tarfile.open(fileobj=io.BytesIO((index.folder / "000000.tar").read_bytes())) as tar:
        assert tar.getnames()[-1] == f"{record.key}.002.mask.png"


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({"depth": []}, "0 maps 'depth' of 3 views"),
        ({"flow": [b""] * 3}, "maps are depth, normals, mask"),
        ({"normals": [png(np.zeros((2, 2, 3), np.uint8))] * 3}, "map 0 of normals is no PNG of 8 x 6"),
        ({"mask": [b"no"] * 3}, "map 0 of mask is no PNG"),
        ({"mask": [maps.encode_mask(np.ones((8, 6), bool))[:-12]] * 3}, "map 0 of mask is truncated"),
    ],
)
def test_maps_that_do_not_fit_are_refused(kinds, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(make_record(count=3), maps=kinds).validate()


def test_a_damaged_or_missing_map_is_one_line():
    members = dict(members_of(with_maps()))
    key = next(iter(members)).split(".")[0]
    del members[f"{key}.001.depth.png"]
    with pytest.raises(UserError, match=r"002.depth.png is out of order"):
        record_of(members)
    whole = maps.encode_depth(np.ones((8, 6)), 2.0)
    flipped = whole[:45] + bytes([whole[45] ^ 1]) + whole[46:]
    for data in (whole[:50], flipped):
        with pytest.raises(UserError, match="a map of depth is damaged"):
            maps.decode_depth(data, (8, 6), 2.0)
    with pytest.raises(UserError, match="a map of normals has vectors of other lengths than 1, 48 of 48"):
        maps.decode_normals(maps.encode_normals(np.full((8, 6, 3), 0.1)), (8, 6))


def test_the_command_writes_what_is_asked_for_and_the_images_stay_the_same(ball, tmp_path):
    words = ["--size", "32", "--views", "2", "--samples", "2", "--light", "none"]
    for out, options in (("plain", []), ("all", ["--depth", "--normals", "--masks"])):
        assert cli.main(["data", "render", str(ball), str(tmp_path / out), *words, *options]) == 0
    plain, record = (read_index(tmp_path / out).read(0) for out in ("plain", "all"))
    assert plain.images == record.images and not plain.maps and list(record.maps) == ["depth", "normals", "mask"]
    depth = maps.decode_depth(record.maps["depth"][1], (32, 32), record.t_far)
    mask = maps.decode_mask(record.maps["mask"][1], (32, 32))
    assert depth[16, 16] == pytest.approx(0.8, abs=2e-3) and ((depth > 0) == mask).all() and 100 < mask.sum() < 900
    normals = maps.decode_normals(record.maps["normals"][1], (32, 32))
    to_eye = torch.nn.functional.normalize(torch.tensor(record.c2w[1, :3, 3]), dim=0)
    assert float(torch.tensor(normals[16, 16]) @ to_eye) > 0.99
