"""Loggers write into the run's folder, unless they are told otherwise."""

import inspect
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

#: What says that nobody has named a folder: the default of WandbLogger.
HERE = "."


def ask_no_folder() -> None:
    """Let a configuration name a logger of files without ``save_dir``, which Lightning demands."""
    for kind in (CSVLogger, TensorBoardLogger):
        known = inspect.signature(kind.__init__)
        changed = [p.replace(default=HERE) if name == "save_dir" else p for name, p in known.parameters.items()]
        kind.__init__.__signature__ = known.replace(parameters=changed)


def put_into(trainer: Namespace, folder: str) -> None:
    """Set ``save_dir`` of the loggers of a configuration's ``trainer``, where it is not given, to ``folder``."""
    loggers: Any = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    for logger in loggers:
        arguments = logger.get("init_args") if isinstance(logger, Namespace) else None
        if arguments is not None and str(arguments.get("save_dir", folder)) in ("", HERE, "None"):
            arguments.save_dir = folder


ask_no_folder()
