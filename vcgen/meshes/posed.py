"""A surface -> the record of its posed images: lit, seen by a set of cameras, encoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from vcgen.cameras import Cameras
from vcgen.data.formats.scene import SceneFolder, Settings, make_record
from vcgen.data.shards.maps import encode_depth, encode_mask, encode_normals
from vcgen.data.shards.record import SceneRecord
from vcgen.meshes.buffers import buffers
from vcgen.meshes.cameras import camera_set
from vcgen.meshes.draw import Drawable, draw, drawable
from vcgen.meshes.light import STANDARD, varied_lamps
from vcgen.meshes.surface import BOX_RADIUS, RADIUS, Fit, Surface

LightName = Literal["sky", "varied", "none"]


@dataclass(frozen=True, kw_only=True)
class DrawSettings(Settings):
    """How surfaces become images. cameras: name of a set, or a JSON file's SHA-256. views: how many, None as the set
    says. elevation: degrees between which ``sphere`` looks from, None for its own. samples: along both sides of a
    pixel. light: as the bundled cars have it, another for each object, or none: base colors alone. cull: without backs
    of single-sided faces. maps: kinds of maps beside the images.
    """

    size: tuple[int, int]
    cameras: str = "sphere"
    views: int | None = None
    elevation: tuple[float, float] | None = None
    fit: Fit = "sphere"
    samples: int = 4
    light: LightName = "sky"
    cull: bool = False
    maps: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrawnScene(SceneFolder):
    """An object that will be drawn. cameras: name of a set or path of a JSON file."""

    cameras: str = "sphere"


def draw_record(
    scene: DrawnScene, settings: DrawSettings, surface: Surface, random: np.random.Generator
) -> SceneRecord:
    """Draw all views of an object. random: decides on cameras and light."""
    surface, scale = surface.fitted(settings.fit)
    radius = {"sphere": RADIUS, "box": BOX_RADIUS}.get(settings.fit) or float(surface.triangles.norm(dim=-1).max())
    cameras_of = camera_set(scene.cameras, settings.elevation)
    count = cameras_of.count(settings.views, scene.cameras)
    cameras = cameras_of.shaped(cameras_of.make(random, count), settings.size)
    near, far = cameras_of.bounds(cameras, radius)
    lamps = {"sky": STANDARD, "none": None}[settings.light] if settings.light != "varied" else varied_lamps(random)
    scenery = drawable(surface, lamps, settings.cull)
    pixels = [draw(scenery, cameras[number], settings.size, settings.samples).numpy() for number in range(count)]
    c2w, K = (list(matrices.numpy()) for matrices in (cameras.c2w, cameras.K))
    record = make_record(
        scene, replace(settings, near=near, far=far), cameras_of.view_names(count), pixels, K, c2w, np.zeros(3)
    )
    return replace(record, scale=scale, maps=_maps(scenery, cameras, record, settings.maps))


def _maps(scenery: Drawable, cameras: Cameras, record: SceneRecord, kinds: tuple[str, ...]) -> dict[str, list[bytes]]:
    """PNGs of each kind for all views."""
    maps: dict[str, list[bytes]] = {kind: [] for kind in kinds}
    for number in range(len(record.views) if kinds else 0):
        distance, normals = (buffer.numpy() for buffer in buffers(scenery, cameras[number], record.size))
        for kind in kinds:
            if kind == "depth":
                maps[kind].append(encode_depth(distance, record.t_far))
            else:
                maps[kind].append(encode_normals(normals) if kind == "normals" else encode_mask(distance > 0))
    return maps


@contextmanager
def single_thread() -> Iterator[None]:
    """Inside, PyTorch computes without gradients and in one thread, so that no sum depends on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
