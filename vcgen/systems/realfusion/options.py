"""How RealFusion fits a scene to a photo."""

from dataclasses import dataclass

from vcgen.schema import AtLeastOne
from vcgen.systems.text_to_3d.options import TextTo3DOptions


@dataclass(frozen=True)
class RealFusionOptions(TextTo3DOptions):
    """How the scene is fitted to photo and text, see also :class:`TextTo3DOptions`.

    Args:
        reference_rays: Rays of the photo per step.
    """

    reference_rays: AtLeastOne = 1024
