"""Where the cameras of rendered meshes stand: sets by name, with the numbers of the data sets they are known from, or a
file's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.data.camera_file import read_camera_file
from vcgen.data.formats.zero123plus import AZIMUTHS, ELEVATIONS, FOV, RADIUS
from vcgen.data.shards.record import natural_order
from vcgen.errors import UserError, suggestion

#: SRN cars' cameras: distance to the origin, and focal length in image widths.
DISTANCE, FOCAL = 1.3, 131.25 / 128
#: Degrees between which ``sphere`` looks from, evenly by area.
LOWEST, HIGHEST = -5.0, 75.0
#: The nearest that a ray begins, whatever the cameras' place.
LEAST_NEAR = 0.01


@dataclass(frozen=True)
class CameraSet:
    """What is drawn of each object. make: random numbers of the object and number of views -> cameras in float64,
    ``near`` and ``far`` still without meaning. views: how many unless asked otherwise. fixed: whether that is what they
    are. names: a file's, of the views; else they are numbered. near, far: ray bounds where a file gives them."""

    make: Callable[[np.random.Generator, int], Cameras]
    views: int
    fixed: bool = True
    names: tuple[str, ...] = ()
    near: float | None = None
    far: float | None = None

    def count(self, views: int | None, name: str) -> int:
        """How many views there will be; UserError where a set has another number than was asked for."""
        if views is not None and self.fixed and views != self.views:
            raise UserError(
                f"--views {views}: the cameras {name} are {self.views}; leave --views out, or choose sphere or"
                " turntable"
            )
        return views or self.views

    def shaped(self, cameras: Cameras, size: tuple[int, int]) -> Cameras:
        """For images of (height, width): focal lengths are in widths, so that pixels are square. A file's are as it
        says.
        """
        if self.names or size[0] == size[1]:
            return cameras
        K = cameras.K.clone()
        K[:, 1, 1] = K[:, 0, 0] * size[1] / size[0]
        return Cameras(cameras.c2w, K, cameras.near, cameras.far)

    def view_names(self, count: int) -> list[str]:
        """Names of so many views, in natural order."""
        return list(self.names) or [f"{number:06d}" for number in range(count)]

    def bounds(self, cameras: Cameras, radius: float) -> tuple[float, float]:
        """Near and far: the file's, or those between which a sphere around the origin lies, seen from all cameras."""
        distances = cameras.centers.norm(dim=-1)
        near = max(round(float(distances.min()) - radius, 6), LEAST_NEAR)
        return self.near or near, self.far or round(float(distances.max()) + radius, 6)


def camera_set(name: str, elevation: tuple[float, float] | None = None) -> CameraSet:
    """The set of that name, or of that file. elevation: degrees between which ``sphere`` looks from.

    Raises UserError for one that is neither, a file that cannot be used, and elevations where cameras have their own.
    """
    if elevation is not None:
        if name != "sphere":
            raise UserError(f"--elevation: the cameras {name} have their own; leave it out, or choose sphere")
        return replace(SETS[name], make=partial(sphere, elevation=elevation))
    if name in SETS:
        return SETS[name]
    if name.endswith(".json"):
        return read_cameras(Path(name))
    known = ", ".join(SETS)
    raise UserError(f"--cameras {name}: unknown{suggestion(name, SETS)}; give one of {known}, or a .json file")


def read_cameras(path: Path) -> CameraSet:
    """The cameras of a JSON file; see :class:`vcgen.data.camera_file.CameraFile`."""
    stated = read_camera_file(path)
    names = stated.names or [f"{number:06d}" for number in range(len(stated.c2w))]
    if names != sorted(names, key=natural_order):
        raise UserError(f"{path}: views must be in natural order of their names")
    one = torch.ones(len(names), dtype=torch.float64)
    cameras = Cameras(torch.tensor(stated.c2w), torch.tensor(stated.K), one, 2 * one)
    return CameraSet(lambda random, count: cameras, len(names), True, tuple(names), stated.near, stated.far)


def sphere(random: np.random.Generator, views: int, elevation: tuple[float, float] = (LOWEST, HIGHEST)) -> Cameras:
    """All round by golden angles from a random start, between elevations in degrees evenly by area: the bundled cars'
    cameras.
    """
    start = random.uniform()
    low, high = np.sin(np.radians(elevation)).tolist()
    heights = np.degrees(np.arcsin(random.uniform(low, high, views)))
    azimuths = 360 * ((start + np.arange(views) * 0.61803398875) % 1)
    return _around(90 + azimuths, heights, DISTANCE, FOCAL)


def srn_test(random: np.random.Generator, views: int) -> Cameras:
    """The spherical spiral of SRN's test and validation sets, clockwise from the horizon to above: 250 steps of 0.08
    radians.
    """
    turn = 20 + 0.08 * np.arange(views)
    return _around(90 - np.degrees(turn), 180 * turn / 40 - 90, DISTANCE, FOCAL)


def gso30(random: np.random.Generator, views: int) -> Cameras:
    """SyncDreamer's 16 views of Google Scanned Objects: every 22.5 degrees counterclockwise from the front, 30 degrees
    up. Its own poses are these turned by 90 degrees about z, and so are its objects, compared with the files of the
    data set."""
    return _around(22.5 * np.arange(views), np.full(views, 30.0), 1.5, 280 / 256)


def zero123plus(random: np.random.Generator, views: int) -> Cameras:
    """Zero123++ 1.2's six views, by the numbers that its sheets are packed with; a ball of radius 0.5 fills them, and
    its rim is a little cut, as in what the model learned from. Azimuth 0 is the front."""
    focal = 0.5 / math.tan(math.radians(FOV["1.2"] / 2))
    return _around(np.array(AZIMUTHS), np.array(ELEVATIONS["1.2"] * 3), 2 * RADIUS * focal, focal)


def turntable(random: np.random.Generator, views: int) -> Cameras:
    """Once around at 20 degrees up, from the front, counterclockwise."""
    return _around(np.arange(views) * 360 / views, np.full(views, 20.0), DISTANCE, FOCAL)


SETS = {
    "sphere": CameraSet(sphere, 50, False),
    "srn_test": CameraSet(srn_test, 251),
    "gso30": CameraSet(gso30, 16),
    "zero123plus": CameraSet(zero123plus, 6),
    "turntable": CameraSet(turntable, 24, False),
}


def _around(azimuths: np.ndarray, heights: np.ndarray, distance: float, focal: float) -> Cameras:
    """Degrees as :func:`vcgen.cameras.orbit` takes them; float64."""
    K = pinhole(focal).double()
    K[0, 0] = K[1, 1] = focal
    return orbit(torch.tensor(azimuths), torch.tensor(heights), distance, K, 1.0, 2.0)
