"""Build a system from plain data: the class path and arguments of a config file or a model folder."""

import importlib
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentError, ArgumentParser

from vcgen.errors import UserError


def build_system(class_path: str, init_args: dict[str, Any]) -> pl.LightningModule:
    """Instantiate a LightningModule with typed, nested arguments ({"class_path", "init_args"} for modules), as the config files do.

    Raises UserError for an unknown class, one that is no LightningModule, or arguments that do not fit.
    """
    module_name, _, class_name = class_path.rpartition(".")
    try:
        system = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        advice = "install the package that has it, or export the model again"
        raise UserError(f"model class {class_path!r} is unknown here; {advice}") from error
    if not (isinstance(system, type) and issubclass(system, pl.LightningModule)):
        raise UserError(
            f"model class {class_path!r} is not a LightningModule; config.json must name a system such as vcgen.systems.nerfdiff.NerfDiff"
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(system, "model")
    try:
        return parser.instantiate_classes(parser.parse_object({"model": init_args})).model
    except (ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"arguments of {class_path} do not fit: {' '.join(str(error).split())}") from error
