"""Objects whose shape is known and whose images come with cameras: scanned household objects, and toys."""

import json
import math
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from common import ROOT
from vcgen.cameras import view_angles
from vcgen.data.formats.scene import SceneFolder, Settings, scene_key
from vcgen.data.formats.srn import Srn
from vcgen.data.views import scene_views
from vcgen.errors import UserError
from vcgen.types import Views

SHARED = ROOT.parent / "shared" / "data"
#: Cameras stand at distance 1.3 from objects that fit a sphere of radius 0.5.
NEAR, FAR, RADIUS = 0.8, 1.8, 0.5
#: The scans that the benchmark takes first: of many shapes, no two alike.
SCANS = (
    "011_banana",
    "003_cracker_box",
    "072-b_toy_airplane",
    "053_mini_soccer_ball",
    "021_bleach_cleanser",
    "016_pear",
    "025_mug",
    "048_hammer",
    "038_padlock",
    "073-a_lego_duplo",
    "061_foam_brick",
    "022_windex_bottle",
    "013_apple",
    "002_master_chef_can",
    "065-a_cups",
    "012_strawberry",
)
#: Kinds of toys that have a front, at azimuth 0; text priors learn the words "front view" from them.
FACING = ("cars", "seats", "fish")
IMAGES_SETTINGS = Settings(None, NEAR, FAR, "alpha", "", "test", "", "")


@dataclass(frozen=True)
class KnownObject:
    """name: folder/object. noun: what a caption calls it. views: (n,) with alpha. triangles, corner_rgb: (faces, 3, 3),
    the surface in the cameras' world and its sRGB colors in [0, 1]; None where only images are known."""

    name: str
    noun: str
    views: Views
    triangles: NDArray | None
    corner_rgb: NDArray | None

    @property
    def mesh(self) -> trimesh.Trimesh:
        """The surface, with corners at one place joined."""
        faces = np.arange(len(self.triangles) * 3).reshape(-1, 3)
        joined = trimesh.Trimesh(self.triangles.reshape(-1, 3), faces, process=False)
        joined.merge_vertices()
        return joined

    def reference(self, elevation: float = 15.0) -> int:
        """The view that comes nearest to an elevation in degrees, and to the front where there is one: a method that
        calls the photo's side the front is given such a photo."""
        azimuths, elevations = view_angles(self.views.cameras.centers)
        if self.name.split("/")[0] not in FACING:
            return int((elevations - elevation).abs().argmin())
        lifted, wanted = elevations.deg2rad(), math.radians(elevation)
        cosines = lifted.sin() * math.sin(wanted) + lifted.cos() * math.cos(wanted) * azimuths.deg2rad().cos()
        return int(cosines.argmax())


def load_objects(toys: Path, scans: Path, meshes: Path, held_out: Path | None, count: int) -> list[KnownObject]:
    """The first ``count`` of the scans and, where a list of them is given, held-out toys, in turn.

    toys: folder of toys.tar and captions.json; scans, meshes: folders of surfaces. Raises UserError that names what is
        missing.
    """
    for path in (toys / "toys.tar", toys / "captions.json", scans / "baked"):
        if not path.exists():
            raise UserError(f"{path} is missing: give the folders of toys64 and of the scans with --toys and --scans")
    captions = json.loads((toys / "captions.json").read_text())
    kept_out = set(held_out.read_text().split()) if held_out is not None else None
    first = [f"ycb/{name}_0" for name in SCANS if kept_out is None or f"ycb/{name}_0" in kept_out]
    others = sorted(name for name in kept_out or () if not name.startswith("ycb/"))
    names = (
        [name for pair in zip(first, others, strict=False) for name in pair]
        + first[len(others) :]
        + others[len(first) :]
    )
    with tarfile.open(toys / "toys.tar") as archive, tempfile.TemporaryDirectory() as folder:
        return [_load(name, archive, Path(folder), captions[name]["name"], scans, meshes) for name in names[:count]]


def _load(name: str, archive: tarfile.TarFile, folder: Path, noun: str, scans: Path, meshes: Path) -> KnownObject:
    members = [member for member in archive.getmembers() if member.name.startswith(f"toys/{name}/")]
    archive.extractall(folder, members, filter="data")
    record = Srn().read_scene(SceneFolder(scene_key(name), folder / "toys" / name), IMAGES_SETTINGS)
    views = scene_views(record, list(range(len(record.views))))
    kind, stem = name.removesuffix("_0").split("/")
    path = scans / "baked" / f"{stem}.npz" if kind == "ycb" else meshes / kind / f"{stem}.npz"
    return KnownObject(name, noun, views, *(surface(path) if path.is_file() else (None, None)))


def surface(path: Path) -> tuple[NDArray, NDArray]:
    """A surface file (vertices, y up; faces; corner_rgb) as the images show it: z up, the box's middle at the origin,
    radius 0.5.
    """
    stored = np.load(path)
    vertices = stored["vertices"].astype(np.float64)[:, [0, 2, 1]] * [1, -1, 1]
    vertices -= (vertices.max(0) + vertices.min(0)) / 2
    vertices *= RADIUS / np.linalg.norm(vertices, axis=1).max()
    return vertices[stored["faces"].astype(np.int64)], stored["corner_rgb"] / 255.0
