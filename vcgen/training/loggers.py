"""Which loggers and callbacks a run has: loggers write into its folder, and what the Trainer switches off is left
out.
"""

from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar

from vcgen.training.callbacks.checkpoints import Checkpoints
from vcgen.training.callbacks.progress import Progress
from vcgen.training.callbacks.samples import Samples
from vcgen.training.callbacks.speed import Speed
from vcgen.training.parsing import HERE


def put_into(trainer: Namespace, folder: str) -> None:
    """Set ``save_dir`` of the loggers of a configuration's ``trainer``, where it is not given, to ``folder``."""
    loggers: Any = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    for logger in loggers:
        arguments = logger.get("init_args") if isinstance(logger, Namespace) else None
        if arguments is not None and str(arguments.get("save_dir", folder)) in ("", HERE, "None"):
            arguments.save_dir = folder


def unwanted_callbacks(trainer: dict[str, Any]) -> tuple[type, ...]:
    """Which of vcgen's callbacks the Trainer's arguments exclude: by its switches, or by a progress bar of the
    user's.
    """
    callbacks = trainer.get("callbacks") or []
    own_bar = any(
        isinstance(callback, ProgressBar) for callback in (callbacks if isinstance(callbacks, list) else [callbacks])
    )
    if trainer["barebones"]:
        return Progress, Checkpoints, LearningRateMonitor, Speed, Samples
    excluded = {
        Progress: own_bar or trainer["enable_progress_bar"] is False,
        Checkpoints: trainer["enable_checkpointing"] is False,
        LearningRateMonitor: not trainer["logger"],
    }
    return tuple(kind for kind, without in excluded.items() if without)
