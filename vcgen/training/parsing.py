"""What jsonargparse gets wrong in configurations that Lightning users write, put right in one place. Its private
parts are touched here and in :mod:`vcgen.option_types`, and named in tests/test_private_parts.py.
"""

import inspect
from typing import Any

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


def mend() -> None:
    """To be called before anything is parsed; twice does no harm."""
    print_types_in_words()
    jsonargparse._util.NestedArg = jsonargparse._typehints.NestedArg = NestedNull
    # Words that are also members of an enumeration, as the default of Lightning's Timer, cannot be written otherwise.
    yaml.SafeDumper.add_multi_representer(str, lambda dumper, word: dumper.represent_str(str.__str__(word)))
    for kind in (CSVLogger, TensorBoardLogger):  # they demand ``save_dir``; see vcgen.training.loggers
        known = inspect.signature(kind.__init__)
        changed = [p.replace(default=HERE) if name == "save_dir" else p for name, p in known.parameters.items()]
        kind.__init__.__signature__ = known.replace(parameters=changed)
