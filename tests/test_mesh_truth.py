"""Rendered meshes beside images of the same objects that other programs made, where the developers' data is there."""

import io
import tarfile
import zlib

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from vcgen.data.images.arrays import area_resize
from vcgen.meshes.cameras import SETS
from vcgen.meshes.draw import draw, drawable
from vcgen.meshes.parts import read_surface
from vcgen.rendering.rasterizer import rasterize


@pytest.mark.parametrize("view", [0, 5])
def test_outline_and_depth_are_those_of_gso_30(view, shared_data):
    truth = shared_data / "gso_chicken" / "truth"
    surface, _ = read_surface(shared_data / "gso_chicken" / "model.obj", "z", 20_000, plain=True).fitted("box")
    scene, cameras = drawable(surface, None), SETS["gso30"].make(np.random.default_rng(0), 16)
    ours = draw(scene, cameras[view], (256, 256), 2)[..., 3].numpy() > 127
    theirs = np.array(Image.open(truth / f"{view:03d}.png"))[..., 3] > 127
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.995
    raster = rasterize(scene.mesh, cameras[view : view + 1], (256, 256))
    stored = np.array(Image.open(truth / f"{view:03d}-depth.png")).reshape(-1)[raster.pixels.numpy()]
    inside = stored < 65535
    error = np.abs((stored + 0.5) / 65535 * 1.8 + 0.6 - raster.z.numpy())[inside]  # their depths are rounded down
    assert inside.mean() > 0.99 and np.quantile(error, 0.99) < 1.5e-5, "half a step of 16 bits is 1.4e-5"


@pytest.mark.parametrize("key", ["kaykit_police_0", "kenney1_taxi_2"])
def test_cars_look_as_blender_draws_them(key, shared_data, tmp_path):
    name, variant = key.rsplit("_", 1)
    baked = np.load(shared_data / "meshes_lowpoly_cc0" / "cars" / f"{name}.npz")
    corners, colors = baked["vertices"][baked["faces"]].reshape(-1, 3), baked["corner_rgb"].reshape(-1, 3)
    trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), vertex_colors=colors, process=False).export(
        tmp_path / "car.ply"
    )
    random = np.random.default_rng(zlib.crc32(key.encode()))
    surface, _ = read_surface(tmp_path / "car.ply", "y", 10_000).varied(int(variant), random).fitted("sphere")
    with tarfile.open(shared_data / "cars128" / "cars_test.tar") as tar, torch.no_grad():
        cameras, scene = SETS["sphere"].make(random, 40), drawable(surface)
        for view in (0, 21):
            blender = np.array(Image.open(io.BytesIO(tar.extractfile(f"cars_test/{key}/rgb/{view:06d}.png").read())))
            images = [
                area_resize(x.astype(np.float32) / 255, (64, 64))
                for x in (blender, draw(scene, cameras[view], (128, 128)).numpy())
            ]
            one, other = (image[..., :3] * image[..., 3:] + 1 - image[..., 3:] for image in images)
            assert -10 * np.log10(((one - other) ** 2).mean()) > 35.5
