"""Where the cameras of ``vcgen render`` stand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vcgen.cameras import Cameras, focal_from_fov, orbit, pinhole
from vcgen.data.images.framing import RgbaImage
from vcgen.errors import UserError
from vcgen.types import Views


@dataclass(frozen=True)
class InputCamera:
    """The set-up of an image without pose: an orbit around the origin of a z-up world, with the input camera at azimuth
    0.

    image_size: (height, width) of the model's input. focal: normalized by the width; pixels are square. distance, near,
        far: world units.
    elevation: of the input camera, degrees. background: gray level behind the object, in [0, 1].
    """

    image_size: tuple[int, int]
    focal: float
    distance: float
    elevation: float
    near: float
    far: float
    background: float

    @classmethod
    def of(
        cls,
        config: dict[str, Any],
        elevation: float | None = None,
        distance: float | None = None,
        fov: float | None = None,
    ) -> "InputCamera":
        """The default camera of a model folder's config, with what the user knows better: degrees, world units,
        degrees.

        Another distance moves near and far along, since the object stays at the origin. Raises UserError for impossible
        values."""
        camera = config["camera"]
        shift = 0.0 if distance is None else distance - camera["distance"]
        if not 0 <= camera["near"] + shift < math.inf:
            closest = camera["distance"] - camera["near"]
            found = (
                f"an input distance (--input-distance, data.distance) of {distance} lies inside the object's space, or"
                " nowhere"
            )
            raise UserError(f"{found}: it must exceed {closest:.3g}")
        if fov is not None and not 1 <= fov <= 150:
            raise UserError(f"a field of view (--fov, data.fov) must lie between 1 and 150 degrees, not {fov}")
        return cls(
            image_size=tuple(config["image_size"]),
            focal=camera["focal"] if fov is None else focal_from_fov(fov),
            distance=camera["distance"] + shift,
            elevation=float(camera["elevation"] if elevation is None else elevation),
            near=camera["near"] + shift,
            far=camera["far"] + shift,
            background=float(config["background"]),
        )

    def cameras(self, azimuths: Sequence[float], elevation: float, device: torch.device | str = "cpu") -> Cameras:
        """Cameras (n,) at azimuths relative to the input camera, all at one elevation; degrees.

        Raises UserError for an elevation at the poles or beyond, where the direction of image-up is undefined.
        """
        if not -90 < elevation < 90:
            raise UserError(f"an elevation must lie between -90 and 90 degrees, not {elevation:g}")
        height, width = self.image_size
        around = torch.tensor(azimuths, dtype=torch.float32)
        K = pinhole(self.focal, self.focal * width / height)
        return orbit(around, torch.full_like(around, elevation), self.distance, K, self.near, self.far).to(device)

    def context(self, image: RgbaImage, device: torch.device | str = "cpu") -> Views:
        """What a system's ``field`` takes: an image (``vcgen.data.images.photo.prepare``) and its camera, batch shape
        (1, 1).
        """
        images = torch.from_numpy(image.color).permute(2, 0, 1)[None, None]
        alpha = torch.from_numpy(image.alpha)[None, None, None]
        return Views(images, self.cameras([0.0], self.elevation)[None], alpha).to(device)

    @property
    def radius(self) -> float:
        """Half of the depth range: objects lie within this distance of the origin."""
        return (self.far - self.near) / 2
