"""CLEVR3D (Stelzner et al. 2021, ObSuRF): scenes of a few objects on the ground, three views each.

``images/img_SCENE_VIEW.png``, 320 x 240 pixels, and ``metadata.npz`` with ``camera_pos`` (scenes, views, 3) and
``shape`` (scenes, objects), 0 where there is no object. Cameras look at the origin of a world with z up, with a focal
length of 35 mm on a sensor of 32 mm; rays run from 0.035 to 35. Sources: ``srt/data/obsurf.py`` and
``srt/utils/nerf.py`` of stelzner/srt.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.files import find_images
from vcgen.data.formats.scene import SceneFolder, Settings, make_record, middle_of, other_layout, require_folder
from vcgen.data.formats.splits import held_out
from vcgen.data.images.arrays import shrink
from vcgen.data.images.reading import read_image
from vcgen.data.npz import read_npz
from vcgen.data.shards.record import FARTHEST, SceneRecord
from vcgen.errors import UserError
from vcgen.terminal import complain

METADATA = "metadata.npz"
#: Split -> its first scene, and the one after its last.
SCENES = {"train": (0, 70_000), "val": (70_000, 75_000), "test": (85_000, 100_000)}
#: Focal length in image widths.
FOCAL = 0.035 / 0.032
NEAR, FAR = 0.035, 35.0
ADVICE = "unpack CLEVR3D again"


@dataclass(frozen=True, kw_only=True)
class Clevr3dSettings(Settings):
    """How scenes become records. max_objects: scenes with more are left out."""

    max_objects: int = 6


@dataclass(frozen=True)
class Clevr3dScene(SceneFolder):
    """A scene of that number, whose images lie in ``folder`` with those of all others. eyes: where its cameras are."""

    number: int
    eyes: tuple[tuple[float, float, float], ...]

    def images(self) -> list[str]:
        """Names, view by view."""
        return [f"img_{self.number}_{view}.png" for view in range(len(self.eyes))]

    def files(self) -> list[tuple[str, int]]:
        """Its images, and where it was seen from, which the file of all scenes says."""
        found = [self.folder / name for name in self.images() if (self.folder / name).is_file()]
        return [*((path.name, path.stat().st_size) for path in found), (f"seen from {self.eyes}", 0)]


class Clevr3d(SceneFormat[Clevr3dScene, Clevr3dSettings]):
    """Pack CLEVR3D: images/img_SCENE_VIEW.png and metadata.npz.

    Cameras look at the origin, z is up. Splits are by the scenes' numbers: 0 to 69999 are for training, 70000 to 74999
    for validation, 85000 to 99999 for testing.

    Args:
        source: the unpacked data set.
        near: nearest ray distance from the camera, Euclidean, in stored units. By default 0.035, times --scale.
        far: farthest ray distance. By default 35 times --scale.
        split: train, val or test.
        max_objects: leave out scenes with more objects.
    """

    name = "clevr3d"
    tells_bounds = True
    settings = Clevr3dSettings

    def list_scenes(self, source: Path, settings: Clevr3dSettings) -> list[Clevr3dScene]:
        """The scenes of the split that have images. Raises UserError for none."""
        require_folder(source)
        if settings.split not in SCENES:
            raise UserError(f"--split {settings.split}: CLEVR3D has {', '.join(SCENES)}")
        if not (source / METADATA).is_file() or not (source / "images").is_dir():
            raise UserError(f"{source}: no {METADATA} with images/ in here{other_layout(source, METADATA)}")
        eyes, counts = read_metadata(source / METADATA)
        first, end = SCENES[settings.split]
        wanted = [i for i in range(first, min(end, len(eyes))) if counts[i] <= settings.max_objects]
        there = {name.split("_")[1] for path in (source / "images").glob("img_*_*.png") if (name := path.name)}
        found = [i for i in wanted if str(i) in there]
        if not found:
            raise UserError(
                f"{source / 'images'}: no images of split {settings.split}, scenes {first} to {end - 1} with up to"
                f" {settings.max_objects} objects; choose with --split and --max-objects"
            )
        if len(found) < len(wanted):
            complain(f"{len(wanted) - len(found)} of {len(wanted)} scenes have no images, and are left out", "warning")
        return [Clevr3dScene(f"{i:06d}", source / "images", i, tuple(map(tuple, eyes[i].tolist()))) for i in found]

    def read_scene(self, scene: Clevr3dScene, settings: Clevr3dSettings) -> SceneRecord:
        """Convert one scene; raises UserError listing missing images."""
        images = find_images(scene.images(), scene.folder, f"scene {scene.number}", f"; {ADVICE}")
        poses = looking_at_origin(np.array(scene.eyes), f"scene {scene.number}")
        views = held_out([str(view) for view in range(len(images))], settings)
        pixels, K = [], []
        for view in map(int, views):
            image = read_image(images[view])[..., :3]
            height, width = image.shape[:2]
            pixels.append(shrink(image.astype(np.float32) / 255, settings.size, images[view]))
            K.append(np.array([[FOCAL, 0, 0.5], [0, FOCAL * width / height, 0.5], [0, 0, 1]]))
        middle = middle_of(((str(view), pose) for view, pose in enumerate(poses)), scene, settings)
        c2w = [poses[int(view)] for view in views]
        return make_record(scene, settings.within(NEAR, FAR), views, pixels, K, c2w, middle)


def read_metadata(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(where the cameras are (scenes, views, 3) in float64, how many objects there are (scenes,)). Raises UserError for
    a file that says something else.
    """
    content = read_npz(path, ADVICE, names={"camera_pos", "shape"})
    eyes, shapes = content.get("camera_pos", np.zeros(0)), content.get("shape", np.zeros(0))
    if eyes.ndim != 3 or eyes.shape[2] != 3 or shapes.ndim != 2 or len(shapes) != len(eyes):
        raise UserError(
            f"{path}: camera_pos and shape are {eyes.shape} and {shapes.shape}, expected (scenes, views, 3) and"
            f" (scenes, objects); {ADVICE}"
        )
    return eyes.astype(np.float64), (shapes > 0).sum(1)


def looking_at_origin(eyes: np.ndarray, where: str) -> np.ndarray:
    """Places (V, 3) -> (V, 4, 4) camera-to-world of level cameras there. Raises UserError for places that are none, and
    right above or below.
    """
    import torch

    from vcgen.cameras import look_at

    if not (np.abs(eyes) < FARTHEST).all() or (np.hypot(eyes[:, 0], eyes[:, 1]) < 1e-6).any():
        raise UserError(f"{where}: a camera stands at no place, or right above the origin, where no image is level")
    places, up = torch.tensor(eyes), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return look_at(places, torch.zeros_like(places), up).numpy()
