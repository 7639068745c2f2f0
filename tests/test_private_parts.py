"""The private parts of other packages that vcgen needs: the versions that they were read in, and that they are there.

A failure here comes before the puzzling ones elsewhere: read what has changed in the package, mend the module that is
named, and write the new version down.
"""

import ast
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import jsonargparse._typehints
import jsonargparse._util
import lightning.pytorch as pl
import pytest
from jsonargparse import ArgumentParser, DefaultHelpFormatter
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch.utils.tensorboard import SummaryWriter

from vcgen.optim.sharding import Sharded
from vcgen.training import lightning_private, parsing

PACKAGE = Path(__file__).parents[1] / "vcgen"
#: Package -> the releases whose private parts were read.
READ = {"lightning": ("2.6",), "jsonargparse": ("4.49", "4.50", "4.51", "4.52", "4.53")}
#: Where private parts of Lightning may be touched on objects of its own.
HOME = PACKAGE / "training" / "lightning_private.py"
#: Names of variables and attributes that hold objects of Lightning.
THEIRS = {"trainer", "fit_loop", "epoch_loop", "val_loop", "loop", "strategy", "launcher", "logger", "timer", "module"}


@pytest.mark.parametrize("package", READ)
def test_the_version_is_one_that_was_read(package):
    found = version(package)
    assert found.rsplit(".", found.count(".") - 1)[0] in READ[package], f"{package} {found}: see the top of this file"


@pytest.mark.parametrize(("kind", "name", "arguments"), [
    (LightningCLI, "_parser", "self, subcommand"), (LightningCLI, "_instantiate_trainer", "self, config, callbacks"),
    (LightningCLI, "_dump_config", "self"), (LightningCLI, "_parse_ckpt_path", "self"),
    (_FitLoop, "_should_accumulate", "self"), (_TrainingEpochLoop, "_should_check_val_fx", "self, data_fetcher"),
    (_ChildProcessObserver, "_run", "self"), (RichProgressBar, "_get_train_description", "self, current_epoch"),
    (SummaryWriter, "_get_file_writer", "self"),
], ids=lambda value: getattr(value, "__name__", None))  # fmt: skip
def test_a_method_is_there_with_its_arguments(kind, name, arguments):
    assert ", ".join(inspect.signature(getattr(kind, name)).parameters) == arguments


def test_attributes_are_there():
    quiet = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer = pl.Trainer(**quiet, enable_model_summary=False)
    assert callable(trainer._signal_connector.register_signal_handlers)
    assert hasattr(trainer._logger_connector, "_first_loop_iter") and hasattr(trainer, "_val_check_time_interval")
    assert hasattr(trainer.fit_loop, "_data_fetcher")
    assert hasattr(trainer.fit_loop.epoch_loop.val_loop, "restarting")
    assert DDPStrategy()._timeout == default_pg_timeout
    assert ModelParallelStrategy()._data_parallel_size == Sharded()._data_parallel_size == "auto"
    assert _ChildProcessObserver(0, []).name == "child-process-observer"


def test_the_value_of_an_option_of_an_object_is_a_nested_argument():
    assert (
        issubclass(parsing.NestedNull, jsonargparse._util.NestedArg)
        or parsing.NestedNull is jsonargparse._util.NestedArg
    )
    assert jsonargparse._typehints.NestedArg is jsonargparse._util.NestedArg
    assert parsing.NestedNull("key", None) == ("key", "null")
    assert parsing.NestedNull("key", "value") == ("key", "value")


def test_help_knows_the_type_of_an_option():
    assert list(inspect.signature(DefaultHelpFormatter._get_type_str).parameters) == ["self", "action"]
    parser = ArgumentParser()
    parser.add_argument("--layers", type=int | None)
    (action,) = (action for action in parser._actions if isinstance(action, jsonargparse._typehints.ActionTypeHint))
    assert get_args(action._typehint) == (int, type(None))


def test_patience_is_kept_where_the_configuration_states_it():
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy._timeout = stated = 2 * default_pg_timeout
    lightning_private.set_patience(trainer, default_pg_timeout / 3)
    assert trainer.strategy._timeout == stated
    trainer.strategy._timeout = default_pg_timeout
    lightning_private.set_patience(trainer, default_pg_timeout / 3)
    assert trainer.strategy._timeout == default_pg_timeout / 3


def private(path: Path) -> list[str]:
    """Private attributes of what is called like an object of Lightning."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if name in THEIRS or name.endswith("_connector"):
                found.append(f"{name}.{node.attr}")
    return found


def test_private_parts_of_lightning_are_touched_in_one_module_only():
    assert len(private(HOME)) >= 8
    assert {path: found for path in PACKAGE.rglob("*.py") if path != HOME and (found := private(path))} == {}


def test_private_modules_of_jsonargparse_are_imported_in_two_modules_only():
    users = {path.name for path in PACKAGE.rglob("*.py") if "jsonargparse._" in path.read_text()}
    assert users == {"option_types.py", "parsing.py"}
