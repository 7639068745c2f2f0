"""Start training from the weights of a model folder."""

from pathlib import Path

from torch import nn

from vcgen.checkpoints.fitting import mismatch
from vcgen.checkpoints.model_folder import read_weights
from vcgen.errors import UserError


def start_from(system: nn.Module, folder: Path) -> None:
    """Copy the weights of a model folder into the parts (direct children) of ``system`` that the folder has, too.

    Raises UserError when the folder is missing or damaged, or a part's weights do not fit.
    """
    weights = read_weights(folder)
    found = {name.split(".")[0] for name in weights}
    for part, module in system.named_children():
        if part not in found:
            continue
        stored = {
            name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")
        }
        if difference := mismatch(module.state_dict(), stored):
            raise UserError(f"model.pretrained {folder}: its {part} does not fit this configuration: {difference}")
        module.load_state_dict(stored)
