"""vcgen: view-conditioned 3D generation with PyTorch Lightning.

A trained model shows the object of one image from all sides::

    import vcgen
    model = vcgen.load("outputs/demo/model")
    field = model.reconstruct("car.png")
    views = model.render(field, model.cameras([0, 90, 180, 270])).rgb    # (4, 3, H, W) in [0, 1]

and, where it has a diffusion prior, draws sharper views from it: ``model.sample("car.png", model.cameras([90]))``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vcgen.api import Pipeline

__version__ = "0.1.0"


def load(
    folder: "Path | str",
    device: str = "cpu",
    input_elevation: float | None = None,
    input_distance: float | None = None,
    fov: float | None = None,
    plugins: "Sequence[str]" = (),
) -> "Pipeline":
    """Open a model folder written by ``vcgen export``; see :class:`vcgen.api.Pipeline`.

    input_elevation: of the images that will be given, in degrees; input_distance: of their camera from the object's
    middle, in world units; fov: horizontal field of view of all cameras, in degrees; each the model's default unless
    given. plugins: packages of your own whose classes the folder may name, beside vcgen's and those of the variable
    VCGEN_PLUGINS (docs/security.md). Raises vcgen.errors.UserError in one line for a folder that is missing, damaged or
    foreign, a device that cannot be used, or an impossible camera."""
    from vcgen.api import open_pipeline  # torch stays out of `import vcgen`

    return open_pipeline(folder, device, input_elevation, input_distance, fov, plugins)
