"""What RealFusion asks of the photo: one object, cut out, within the sphere that is fitted."""

import warnings

from torch import Tensor

from vcgen.errors import UserError
from vcgen.types import Views


def require_cut_out(photo: Views) -> None:
    """Raise UserError unless there is one photo, with alpha."""
    if (count := photo.cameras.near.numel()) != 1:
        advice = (
            "name one in data.image; several objects are fitted one after another, as the loop in"
            " docs/realfusion.md does"
        )
        raise UserError(f"RealFusion fits a scene to one photo, here are {count}: {advice}")
    if photo.alpha is None:
        raise UserError("RealFusion takes the photo of an object that is cut out: a context view with alpha")


def warn_of_outside(photo: Views, center: Tensor, radius: float) -> None:
    """Warn where more than a hundredth of the object in a photo (1, 1) looks past the sphere about ``center`` (3,)."""
    if (fraction := outside(photo[0, 0], center, radius)) > 0.01:
        advice = f"raise model.scene.radius ({radius:g}), or lower data.fill"
        warnings.warn(
            f"{fraction:.1%} of the object in the photo look past the sphere that is fitted and cannot be"
            f" explained: {advice}",
            stacklevel=2,
        )


def outside(photo: Views, center: Tensor, radius: float) -> float:
    """Fraction of an object's pixels, by alpha (1, H, W) of one view, whose rays miss a sphere about ``center``
    (3,).
    """
    assert photo.alpha is not None, "require_cut_out asks"
    rays = photo.cameras.rays(*photo.size)
    to_center = center - rays.origins
    beside = (to_center - (to_center * rays.directions).sum(-1, keepdim=True) * rays.directions).norm(dim=-1)
    weights = photo.alpha.flatten()
    return float((weights * (beside > radius)).sum() / weights.sum().clamp(min=1e-6))
