"""The camera that is assumed of an image without pose."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta

from vcgen.cameras import Cameras, focal_from_fov, orbit, pinhole
from vcgen.errors import UserError
from vcgen.schema import Elevation, Length, NotNegative
from vcgen.types import Views

if TYPE_CHECKING:
    from vcgen.data.images.framing import RgbaImage
    from vcgen.data.shards.record import SceneRecord

#: The fraction by which distances of cameras from the object may differ from what is expected without a warning.
SAME_DISTANCE = 0.1


@dataclass(frozen=True)
class InputCamera:
    """A camera at azimuth 0 of an orbit around the origin of a z-up world; "camera" in a model folder's config.json.

    focal: normalized by the width; pixels are square. distance: of the camera from the origin; near, far: world units.
    elevation: degrees.
    """

    focal: Annotated[float, Meta(ge=0.1, le=50)]
    distance: Length
    elevation: Elevation
    near: NotNegative
    far: Length

    def __post_init__(self) -> None:
        if self.near >= self.far:
            raise ValueError(f"near {self.near:g} is not below far {self.far:g}")

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        elevation: float | None = None,
        distance: float | None = None,
        fov: float | None = None,
    ) -> "InputCamera":
        """That of a model folder's config, with what the user knows better: degrees, world units, degrees.

        Another distance moves near and far along, since the object stays at the origin. Raises UserError for impossible
        values."""
        camera = msgspec.convert(config["camera"], cls)
        shift = 0.0 if distance is None else distance - camera.distance
        if not 0 <= camera.near + shift < math.inf:
            found = (
                f"an input distance (--input-distance, data.distance) of {distance} lies inside the object's space, or"
                " nowhere"
            )
            raise UserError(f"{found}: it must exceed {camera.distance - camera.near:.3g}")
        if fov is not None and not 1 <= fov <= 150:
            raise UserError(f"a field of view (--fov, data.fov) must lie between 1 and 150 degrees, not {fov}")
        return replace(
            camera,
            focal=camera.focal if fov is None else focal_from_fov(fov),
            distance=camera.distance + shift,
            elevation=float(camera.elevation if elevation is None else elevation),
            near=camera.near + shift,
            far=camera.far + shift,
        )

    @classmethod
    def framing(cls, focal: float, distance: float, elevation: float) -> "InputCamera":
        """One whose near and far hold the sphere about the origin that reaches the corners of a square frame."""
        radius = math.sqrt(2) * distance * 0.5 / focal
        return cls(focal, distance, elevation, max(distance - radius, 0.05 * distance), distance + radius)

    @classmethod
    def typical(cls, record: "SceneRecord") -> "InputCamera":
        """That of a scene: its focal length, near and far, and the medians of its cameras' distances and elevations."""
        centers = record.c2w[:, :3, 3]
        distance = np.linalg.norm(centers, axis=1)
        up = np.asarray(record.up) / np.linalg.norm(record.up)
        # a camera in the origin is above nothing
        elevation = np.degrees(np.arcsin(np.clip(centers @ up / np.maximum(distance, 1e-12), -1, 1)))
        medians = float(np.median(distance)), float(np.median(elevation))
        return cls(float(record.K[0, 0, 0]), *medians, float(record.t_near), float(record.t_far))

    def cameras(self, azimuths: Sequence[float], elevation: float, size: tuple[int, int] = (1, 1)) -> Cameras:
        """Cameras (n,) at azimuths relative to the input camera, all at one elevation; degrees.

        size: (height, width) of their images, of which the ratio alone matters. Raises UserError for an elevation at
        the poles or beyond, where the direction of image-up is undefined.
        """
        if not -90 < elevation < 90:
            raise UserError(f"an elevation must lie between -90 and 90 degrees, not {elevation:g}")
        height, width = size
        around = torch.tensor(azimuths, dtype=torch.float32)
        K = pinhole(self.focal, self.focal * width / height)
        return orbit(around, torch.full_like(around, elevation), self.distance, K, self.near, self.far)

    def context(self, *images: "RgbaImage") -> Views:
        """What a system's ``field`` takes, (1, images) views: images of one size, framed by
        :func:`vcgen.data.images.photo.prepare` or :func:`~vcgen.data.images.photo.load_photo`, all from this camera.
        """
        color = torch.from_numpy(np.stack([image.color for image in images])).movedim(-1, 1)
        alpha = torch.from_numpy(np.stack([image.alpha for image in images]))[:, None]
        cameras = self.cameras([0.0] * len(images), self.elevation, images[0].alpha.shape)
        return Views(color, cameras, alpha)[None]

    @property
    def radius(self) -> float:
        """Half of the depth range: objects lie within this distance of the origin."""
        return (self.far - self.near) / 2
