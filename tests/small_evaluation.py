"""An evaluation of moments: gray scenes, and a system that misses them by a known offset."""

from pathlib import Path

import numpy as np
import torch

from scenes import png
from vcgen.data.shards.files import write_shards
from vcgen.data.shards.record import SceneRecord
from vcgen.evaluation.protocol import Protocol
from vcgen.evaluation.runner import Origin, Settings, evaluate_system
from vcgen.types import Rendering

SIZE, VIEWS = 16, 6
PROTOCOL = Protocol("tiny", (0,), "all others", (SIZE, SIZE), sha256="hash of tiny")
SETTINGS = Settings(lpips=(), views_per_call=2)
METRICS = ("psnr", "ssim", "ssim_gauss")


def record(key: str, images: np.ndarray, group: str = "") -> SceneRecord:
    """A scene of (V, 16, 16, 3 or 4) 8-bit images; camera v stands at x = v, so that a system can tell views apart."""
    c2w = np.tile(np.eye(4), (len(images), 1, 1))
    c2w[:, 0, 3] = range(len(images))
    K = np.tile(np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]), (len(images), 1, 1))
    names = [f"{v:06d}" for v in range(len(images))]
    background = "alpha" if images.shape[-1] == 4 else "white"
    return SceneRecord(key, [png(x) for x in images], c2w, K, (SIZE, SIZE), 0.5, 2.0, names, background, group=group)


def level(key: str, view: int) -> int:
    """The gray level of a view: differs between views and scenes, and leaves room for an offset of 51."""
    return 20 * view + 10 * ("abcd".index(key[0]) + 1)


def gray_shards(folder: Path, split: str = "") -> Path:
    """Four scenes a1, a2 (one model), b1, c1 of six uniform gray views, packed into ``folder``."""
    scenes = {
        key: np.stack([np.full((SIZE, SIZE, 3), level(key, v), np.uint8) for v in range(VIEWS)])
        for key in ("c1", "a2", "b1", "a1")
    }
    records = [record(key, images, group=key[0]) for key, images in scenes.items()]
    write_shards(records, folder, (SIZE, SIZE), samples_per_shard=2, split=split)
    return folder


class Oracle:
    """Knows the truth of the gray scenes, which it recognizes by their input view, and misses it by ``offset``
    levels.
    """

    config, most_views = {}, None

    def __init__(self, offset: float):
        self.offset, self.rendered = offset, []

    def field(self, context):
        return context.images[0, 0, 0, 0, 0] * 255  # the level of view 0

    def render(self, field, cameras, size, background=1.0):
        self.rendered += cameras.centers[0, :, 0].tolist()
        levels = (field + 20 * cameras.centers[..., 0] + self.offset) / 255
        rgb = levels[..., None, None, None].expand(*cameras.shape, 3, *size)
        return Rendering(rgb, torch.ones_like(rgb[:, :, :1]), torch.ones_like(rgb[:, :, :1]))


def run(shards, out, offset=51, protocol=PROTOCOL, settings=SETTINGS, others=(), name="oracle"):
    system = Oracle(offset)
    return (
        evaluate_system(system, shards, protocol, out, Origin(name, {"weights": f"offset {offset}"}), settings, others),
        system,
    )


def numbers(results) -> tuple:
    return results.mean, results.interval95, results.objects, results.images
