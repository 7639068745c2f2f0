"""What jsonargparse gets wrong in configurations that Lightning users write, put right in one place. Its private
parts are touched here and in :mod:`vcgen.option_types`, and named in tests/test_private_parts.py.
"""

import argparse
import inspect
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import jsonargparse
import jsonargparse._typehints
import jsonargparse._util
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from vcgen.option_types import print_types_in_words

#: What says that nobody has named a logger's folder: WandbLogger's own default.
HERE = "."


class NestedNull(jsonargparse._util.NestedArg):
    """The value of an option of an object (``--model.optimizer.muon_lr null``). jsonargparse hands null on as the word
    "None".
    """

    def __new__(cls, key: str, val: Any) -> "NestedNull":
        """The pair of the option's name and its value."""
        return super().__new__(cls, key, "null" if val is None else val)


def wrapped_section(formatter: argparse.HelpFormatter, heading: str | None) -> None:
    """Start a section of ``--help`` whose heading, a class's first sentence, may take several lines."""
    width = shutil.get_terminal_size().columns - 2  # as argparse has it
    argparse.HelpFormatter.start_section(formatter, heading and textwrap.fill(heading, width))


def import_beside(words: list[str]) -> None:
    """Make modules next to the configurations of a command line importable, after all that is installed.

    A configuration is the user's own program, see docs/security.md; model folders and checkpoints get nothing by this,
    since what they name is not imported unless the user names its package.
    """
    for word, value in zip(words, [*words[1:], ""], strict=True):
        name, _, attached = word.partition("=")
        if name in ("-c", "--config"):
            folder = str(Path(attached or value).absolute().parent)
            if folder not in sys.path:
                sys.path.append(folder)


def mend() -> None:
    """To be called before anything is parsed; twice does no harm."""
    print_types_in_words()
    jsonargparse.DefaultHelpFormatter.start_section = wrapped_section  # type: ignore[assignment,method-assign]  # there is no other place
    jsonargparse._util.NestedArg = jsonargparse._typehints.NestedArg = NestedNull  # type: ignore[misc]
    # Words that are also members of an enumeration, as the default of Lightning's Timer, cannot be written otherwise.
    yaml.SafeDumper.add_multi_representer(str, lambda dumper, word: dumper.represent_str(str.__str__(word)))
    for kind in (CSVLogger, TensorBoardLogger):  # they demand ``save_dir``; see vcgen.training.loggers
        known = inspect.signature(kind.__init__)
        changed = [p.replace(default=HERE) if name == "save_dir" else p for name, p in known.parameters.items()]
        vars(kind)["__init__"].__signature__ = known.replace(parameters=changed)
