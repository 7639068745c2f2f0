"""Zero123++'s sheets: one image of three rows and two columns of square views, at six fixed cameras around the object.

Sources: azimuths, elevations and version 1.2's field of view are in the README of SUDO-AI-3D/zero123plus; version 1.1's
field of view, that of Zero-1-to-3, and version 1.2's distance, tan(fov / 2) of which spans the object's radius, are its
authors' answers in issues 68 and 73; the order of the views, row by row, and the sense of the azimuths are those by
which InstantMesh reconstructs from them.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.files import visible
from vcgen.data.formats.scene import SceneFolder, Settings, make_record, scene_key
from vcgen.data.formats.splits import held_out
from vcgen.data.images.arrays import load_image, shrink
from vcgen.data.images.reading import SUFFIXES
from vcgen.data.shards.record import FARTHEST, SceneRecord
from vcgen.errors import UserError

Release = Literal["1.2", "1.1"]
ROWS, COLUMNS = 3, 2
#: Degrees from the input view, counterclockwise seen from above, in the order of the sheet.
AZIMUTHS = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
#: Degrees above the horizon, in turn.
ELEVATIONS: dict[Release, tuple[float, float]] = {"1.2": (20.0, -10.0), "1.1": (30.0, -20.0)}
#: Horizontal fields of view in degrees.
FOV: dict[Release, float] = {"1.2": 30.0, "1.1": math.degrees(2 * math.atan(16 / 35))}
#: Of the sphere that objects were made to fit, in stored units before --scale.
RADIUS = 0.5


@dataclass(frozen=True, kw_only=True)
class SheetSettings(Settings):
    """How sheets become records. release: of the model that made them. fov: degrees. distance: of the cameras from the
    object's middle, before ``scale``. None: those of the release.
    """

    release: Release = "1.2"
    fov: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Sheet(SceneFolder):
    """A scene that is one image file, ``folder``."""

    def files(self) -> list[tuple[str, int]]:
        """That one."""
        return [(self.folder.name, self.folder.stat().st_size)]


class Zero123Plus(SceneFormat[Sheet, SheetSettings]):
    """Pack sheets of Zero123++: each image shows an object from six sides, in three rows of two square views.

    The world has z up, and the input view's camera stands at -y.

    Args:
        source: folder of sheets, as 960 x 640 images (height x width), or one of them.
        near: nearest ray distance from the camera, Euclidean, in stored units. By default the distance less the
            object's radius, 0.5.
        far: farthest ray distance. By default the distance plus 0.5.
        release: version of the model: 1.2 looks from 20 degrees above and 10 below in turn, 1.1 from 30 above and 20
            below.
        fov: field of view in degrees. By default 30 for 1.2, and 49.13, as of Zero-1-to-3, for 1.1.
        distance: of the cameras from the object's middle, before --scale. By default 0.5 / tan(fov / 2), where the
            object's sphere is about as large as the view; that of 1.2, while 1.1 has none of its own.
    """

    name = "zero123plus"
    tells_bounds = True
    settings = SheetSettings

    def list_scenes(self, source: Path, settings: SheetSettings) -> list[Sheet]:
        """The images in a folder, or that one image. Raises UserError for none, and for options that no camera has."""
        lens(settings)
        if not source.exists():
            raise UserError(f"{source}: no such file or folder; give a sheet, or a folder of sheets")
        files = [path for path in visible(source) if path.suffix.lower() in SUFFIXES] if source.is_dir() else [source]
        if not files:
            raise UserError(f"{source}: no images in here ({', '.join(SUFFIXES)}); give a sheet, or a folder of sheets")
        return [Sheet(scene_key(path.stem), path) for path in files]

    def read_scene(self, scene: Sheet, settings: SheetSettings) -> SceneRecord:
        """Cut one sheet; raises UserError where it has another shape."""
        tiles = cut(load_image(scene.folder), scene.folder)
        focal, distance = lens(settings)
        K = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
        c2w = poses(settings.release, distance)
        chosen = held_out([str(number) for number in range(len(tiles))], settings)
        pixels = [shrink(tiles[int(name)], settings.size, scene.folder) for name in chosen]
        settings = settings.within(distance - RADIUS, distance + RADIUS)
        kept = [c2w[int(name)] for name in chosen]
        return make_record(scene, settings, chosen, pixels, [K] * len(chosen), kept, np.zeros(3))


def poses(release: Release, distance: float) -> np.ndarray:
    """(6, 4, 4) camera-to-world, in the order of the sheet."""
    import torch

    from vcgen.cameras import orbit, pinhole

    azimuths, elevations = torch.tensor([AZIMUTHS, ELEVATIONS[release] * ROWS], dtype=torch.float64)
    return orbit(azimuths, elevations, distance, pinhole(1.0), distance - RADIUS, distance + RADIUS).c2w.numpy()


def lens(settings: SheetSettings) -> tuple[float, float]:
    """(focal length in widths of a view, distance before scaling). Raises UserError for what no camera has."""
    fov = FOV[settings.release] if settings.fov is None else settings.fov
    if not 2 <= fov <= 150:
        raise UserError(f"--fov {fov:g}: must lie between 2 and 150 degrees")
    focal = 0.5 / math.tan(math.radians(fov / 2))
    distance = 2 * focal * RADIUS if settings.distance is None else settings.distance
    if not RADIUS < distance < FARTHEST:
        raise UserError(f"--distance {distance:g}: must be more than the object's radius, {RADIUS:g}")
    return focal, distance


def cut(image: np.ndarray, path: Path) -> np.ndarray:
    """A sheet (3 s, 2 s, C) -> its views (6, s, s, C), row by row. Raises UserError for another shape."""
    height, width, channels = image.shape
    side = width // COLUMNS
    if (height, width) != (ROWS * side, COLUMNS * side):
        raise UserError(
            f"{path}: {height} x {width} pixels (height x width), but a sheet has {ROWS} rows and {COLUMNS} columns of"
            " square views, as 960 x 640 has"
        )
    return image.reshape(ROWS, side, COLUMNS, side, channels).swapaxes(1, 2).reshape(-1, side, side, channels)
