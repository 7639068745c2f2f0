"""From where an object is seen, in numbers and in words."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vcgen.cameras import Cameras, look_at, view_angles
from vcgen.schema import Elevation, Positive

#: All words that :func:`view_word` may answer.
VIEWS = ("front", "side", "back", "overhead", "bottom")
#: Degrees of elevation, above or below, beyond which the azimuth does not matter for the word.
STEEP = 60.0


def view_word(azimuth: float, elevation: float) -> str:
    """The word for a camera at ``azimuth`` degrees from the object's front and ``elevation`` above its equator.

    "overhead" above 60 degrees, "bottom" below -60; else "front" within 30 degrees of the front, "back" within 30 of
    its opposite, "side" between. The sectors are centered: with a front sector that begins at the front, half of the
    front views are called side views (RealFusion's release), and fronts appear on every side."""
    if abs(elevation) > STEEP:
        return "overhead" if elevation > 0 else "bottom"
    turn = abs((azimuth + 180) % 360 - 180)
    return "front" if turn <= 30 else "back" if turn >= 150 else "side"


@dataclass(frozen=True)
class ViewpointOptions:
    """Random cameras around the object, uniform on the zone of the sphere between two elevations, all azimuths.

    With the reference at distance 1.8 and 40 degrees, fov 40 to 60 and framing 0.9 to 1.2 mean distances 1.0 to 2.2.

    Args:
        elevation: Lowest and highest, in degrees.
        fov: Lowest and highest horizontal field of view, in degrees.
        framing: What an image spans at the object's distance, relative to the reference view: with (1, 1) the object is
            as large as in the photo, and the distance follows from the field of view.
    """

    elevation: tuple[Elevation, Elevation] = (-10.0, 60.0)
    fov: tuple[Positive, Positive] = (40.0, 60.0)
    framing: tuple[Positive, Positive] = (0.9, 1.2)

    def __post_init__(self) -> None:
        if not -90 < self.elevation[0] <= self.elevation[1] < 90:
            raise ValueError(f"elevation must satisfy -90 < lowest <= highest < 90 degrees, not {self.elevation}")
        if not (0 < self.fov[0] <= self.fov[1] < 180 and 0 < self.framing[0] <= self.framing[1]):
            raise ValueError(
                f"need 0 < lowest <= highest for fov (below 180) and framing; got {self.fov} and {self.framing}"
            )


def random_cameras(
    reference: Cameras,
    center: Tensor,
    radius: float,
    options: ViewpointOptions,
    generator: torch.Generator,
    spread: float = 1.0,
) -> Cameras:
    """One camera (1,) that looks at ``center`` (3,), with square pixels if the image is square; near and far enclose
    ``radius``.

    reference: (1,), the photo's camera; it sets the scale of distances. spread: fraction of the circle, about it, that
    azimuths are drawn from.
    """
    device = center.device
    fraction = torch.rand(4, generator=generator, device=device)
    low, high = (math.sin(math.radians(angle)) for angle in options.elevation)
    height = low + (high - low) * fraction[0]
    azimuth, ring = 2 * math.pi * fraction[1], (1 - height.square()).sqrt()
    if spread < 1:
        front = view_angles(reference.centers[0] - center)[0] - 90  # from the world's x axis
        azimuth = torch.deg2rad(front + 360 * spread * (fraction[1] - 0.5))
    fov = torch.deg2rad(_between(options.fov, fraction[2]))
    spanned = (reference.centers[0] - center).norm() / (2 * reference.K[0, 0, 0])  # half the width that the photo spans
    distance = _between(options.framing, fraction[3]) * spanned / (fov / 2).tan()
    eye = center + distance * torch.stack([ring * azimuth.cos(), ring * azimuth.sin(), height])
    K = torch.eye(3, device=device)
    K[0, 0] = K[1, 1] = 0.5 / (fov / 2).tan()
    K[:2, 2] = 0.5
    c2w = look_at(eye, center, torch.eye(3, device=device)[2])
    return Cameras(c2w[None], K[None], (distance - radius).clamp(min=0.01)[None], (distance + radius)[None])


def around(reference: Cameras, center: Tensor, azimuths: Tensor, elevation: float | None = None) -> Cameras:
    """The reference camera (1,) carried round the world's z axis through ``center`` (3,) by azimuths (n,), degrees,
    looking at ``center``.

    elevation: degrees; None is the reference's.
    """
    offset = reference.centers[0] - center
    first, own = view_angles(offset)
    angle = torch.deg2rad(first - 90 + azimuths.to(offset))
    rise = torch.deg2rad(own if elevation is None else own.new_tensor(elevation))
    eyes = center + offset.norm() * torch.stack(
        [rise.cos() * angle.cos(), rise.cos() * angle.sin(), rise.sin().expand_as(angle)], -1
    )
    c2w = look_at(eyes, center.expand_as(eyes), offset.new_tensor([0.0, 0.0, 1.0]))
    K, near, far = (x.expand(len(eyes), *x.shape[1:]) for x in (reference.K, reference.near, reference.far))
    return Cameras(c2w, K, near, far)


def relative_angles(cameras: Cameras, reference: Cameras, center: Tensor) -> tuple[Tensor, Tensor]:
    """Azimuth from the reference (1,), in [-180, 180), and elevation of cameras (n,) around ``center`` (3,): (n,) each,
    degrees.
    """
    azimuth, elevation = view_angles(cameras.centers - center)
    first, _ = view_angles(reference.centers - center)
    return torch.remainder(azimuth - first + 180, 360) - 180, elevation


def _between(bounds: tuple[float, float], fraction: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * fraction
