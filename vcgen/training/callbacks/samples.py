"""Images of a validation: input, target, rendering, depth and the prior's sample side by side, and a turntable."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from vcgen.cameras import orbit, view_angles
from vcgen.schema import AtLeastOne, Count
from vcgen.systems.base import FieldSystem
from vcgen.types import Example, Scene
from vcgen.visualization.images import contact_sheet, depth_image, to_uint8
from vcgen.visualization.logging import show_animation, show_image


class Samples(pl.Callback):
    """At each validation logs a sheet of the first scenes and, of the first one, a turntable.

    Args:
        scenes: Rows of the sheet, one scene each: input, target, rendering, depth, and the prior's sample where there
            is a prior.
        turntable: Frames of the turntable, 0 for none.
        every: A turntable is drawn at the first of this many validations.
    """

    def __init__(self, scenes: Count = 4, turntable: Count = 24, every: AtLeastOne = 4):
        self.scenes, self.turntable, self.every = scenes, turntable, every
        self.rows: list[np.ndarray] = []
        self.validations = 0

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A new sheet."""
        self.rows = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Example,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Render the first target view of a scene once more, with its depth. Systems without a field draw their images
        themselves.
        """
        if (
            batch_idx >= self.scenes
            or trainer.sanity_checking
            or not trainer.loggers
            or not isinstance(module, FieldSystem)
        ):
            return
        drawn = trainer.is_global_zero and batch.weight
        if not drawn and module.device_mesh is None:
            return
        # Where the networks are sharded, all processes must compute for one to see.
        field = module.field(batch.context)
        row = image_row(module, field, batch)
        if not drawn:
            return
        self.rows.append(row)
        if batch_idx == 0 and self.turntable and self.validations % self.every == 0:
            self._log_turntable(trainer, module, field, batch)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the sheet."""
        if not self.rows or not trainer.is_global_zero:
            return
        self.validations += 1
        columns = len(self.rows[0])
        sheet = contact_sheet(np.concatenate(self.rows), columns)
        name = "val/input_target_rendering_depth" + ("_sample" if columns == 5 else "")
        show_image(trainer, name, sheet)

    def _log_turntable(self, trainer: pl.Trainer, module: FieldSystem, field: Scene, batch: Example) -> None:
        show_animation(trainer, "val/turntable", turntable_frames(module, field, batch, self.turntable), fps=12)


def image_row(module: FieldSystem, field: Scene, batch: Example) -> np.ndarray:
    """(4 or 5, H, W, 3) uint8: input, first target, its rendering, its depth, and where the system has a prior its
    sample.
    """
    cameras = batch.target.cameras[:, :1]
    rendering = module.render(field, cameras, batch.target.size, module.behind(batch.target))
    depth, alpha = rendering.depth[0, 0, 0].float().cpu().numpy(), rendering.alpha[0, 0, 0].float().cpu().numpy()
    colored = depth_image(depth, float(cameras.near[0, 0]), float(cameras.far[0, 0]), alpha)
    images = [batch.context.on(1.0)[0, 0], batch.target.on(1.0)[0, 0], rendering.rgb[0, 0]]
    row = [*map(to_uint8, images), colored]
    if module.prior is not None:
        noise = torch.Generator(module.device).manual_seed(0)
        row.append(to_uint8(module.sample(batch.context, cameras, noise)[0, 0]))
    return np.stack(row)


def turntable_frames(module: FieldSystem, field: Scene, batch: Example, count: int) -> np.ndarray:
    """(count, H, W, 3) uint8: once round the world's z axis at the input view's distance, focal length and elevation
    (10 to 60 degrees).
    """
    camera = batch.context.cameras[0, 0]
    azimuth, elevation = view_angles(camera.centers)
    angles = azimuth + torch.arange(count, device=azimuth.device) * 360 / count
    cameras = orbit(
        angles,
        elevation.clamp(10, 60).expand(count),
        float(camera.centers.norm()),
        camera.K,
        float(camera.near),
        float(camera.far),
    )
    return to_uint8(module.render(field, cameras.reshape(1, count), batch.target.size).rgb[0])
