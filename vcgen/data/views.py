"""Stored scenes become tensors."""

from collections.abc import Sequence

import torch

from vcgen.cameras import Cameras
from vcgen.data.shards.record import SceneRecord, decode_views
from vcgen.types import Views


def scene_views(record: SceneRecord, indices: Sequence[int]) -> Views:
    """Decode some views of a scene: Views with batch shape (len(indices),), on the CPU."""
    rgb, alpha = decode_views(record, indices)
    c2w, K = (torch.from_numpy(x[list(indices)]).float() for x in (record.c2w, record.K))
    near, far = (torch.full((len(indices),), value) for value in (record.t_near, record.t_far))
    return Views(torch.from_numpy(rgb), Cameras(c2w, K, near, far), None if alpha is None else torch.from_numpy(alpha))


def stack_views(scenes: Sequence[Views]) -> Views:
    """Scenes with equally many views -> Views with batch shape (scenes, views). Alpha is kept only if all have it."""
    alphas = [scene.alpha for scene in scenes if scene.alpha is not None]
    cameras = Cameras.cat([scene.cameras[None] for scene in scenes])
    if len(alphas) < len(scenes):
        return Views(torch.stack([scene.on(1.0) for scene in scenes]), cameras)
    return Views(torch.stack([scene.images for scene in scenes]), cameras, torch.stack(alphas))
