"""Small scenes made from codes, and what looks at them; shared by the tests of SRN, LFN and auto-decoders."""

import torch

from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.encoders.light_field import LightFieldDecoder
from vcgen.encoders.srn import SrnDecoder
from vcgen.types import Example, Views

LIGHT_FIELD = {"code": 8, "hidden": 16, "shared": True, "width": 16, "layers": 1}
SRN = {"code": 8, "hidden": 16, "shared": True, "width": 16, "layers": 2, "steps": 3, "color_layers": 1}


def light_fields(**options) -> LightFieldDecoder:
    torch.manual_seed(0)
    return LightFieldDecoder(**(LIGHT_FIELD | options))


def srn(**options) -> SrnDecoder:
    torch.manual_seed(0)
    return SrnDecoder(**(SRN | options))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def cameras(azimuths: list[float], elevation: float = 20.0) -> Cameras:
    return orbit(torch.tensor(azimuths), torch.full((len(azimuths),), elevation), 1.3, pinhole(1.0), 0.8, 1.8)


def context(count: int = 2, views: int = 1) -> Views:
    """Noise, 16 px, of ``count`` scenes."""
    images = torch.rand(count, views, 3, 16, 16, generator=generator())
    return Views(images, cameras([30.0 * (i + 1) for i in range(count * views)]).reshape(count, views))


def batch(*keys: str) -> Example:
    """A training batch of the scenes of these names."""
    views = context(len(keys), 3)
    return Example(views[:, :1], views[:, 1:], keys)
