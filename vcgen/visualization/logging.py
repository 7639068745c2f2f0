"""The images of a run, in all of its loggers that can show them; as files in the run's folder where none can."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import Summary

from vcgen.io import write_bytes
from vcgen.visualization.images import gif_bytes, write_png


def show_image(trainer: pl.Trainer, name: str, pixels: NDArray[np.uint8]) -> None:
    """Show an image (height, width, 3), called such as "val/views", at the step that the run is at.

    In TensorBoard, by ``log_image`` of loggers that have it, as WandbLogger has, or as ``images/NAME-STEP.png`` in the
    run's folder. Nothing is shown where the run has no logger. For the first process."""
    shown = not trainer.loggers
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")
        elif hasattr(logger, "log_image"):
            logger.log_image(key=name, images=[pixels], step=trainer.global_step)
        else:
            continue
        shown = True
    if not shown:
        write_png(file_of(trainer, name, "png"), pixels)


def show_animation(trainer: pl.Trainer, name: str, frames: NDArray[np.uint8], fps: float) -> None:
    """The same for frames (n, height, width, 3), as a GIF: in TensorBoard, or as a file, which ``log_image`` is told
    of.
    """
    content = gif_bytes(frames, fps)
    boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    for logger in boards:
        # add_video needs moviepy and writes nothing with its version 2: an animated GIF goes in as an image instead.
        image = Summary.Image(height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=content)
        # A private part of PyTorch's SummaryWriter, named in tests/test_private_parts.py.
        logger.experiment._get_file_writer().add_summary(
            Summary(value=[Summary.Value(tag=name, image=image)]), trainer.global_step
        )
    others = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
    if trainer.fast_dev_run or not trainer.loggers or (boards and not others):
        return
    path = file_of(trainer, name, "gif")
    write_bytes(path, content)
    for logger in others:
        logger.log_image(key=name, images=[str(path)], step=trainer.global_step)


def file_of(trainer: pl.Trainer, name: str, kind: str) -> Path:
    """Where an image lies that no logger can show."""
    return Path(trainer.default_root_dir) / "images" / f"{name}-{trainer.global_step:07d}.{kind}"
