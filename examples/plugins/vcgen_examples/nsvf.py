"""A format: NSVF's layout (arXiv 2007.11571), SCENE/{intrinsics.txt, rgb/*.png, pose/*.txt}."""

from pathlib import Path

import numpy as np

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.intrinsics import normalized
from vcgen.data.formats.scene import SceneFolder, Settings, find_scenes, make_record, middle_of, scene_key
from vcgen.data.images.arrays import load_image, shrink
from vcgen.data.shards.record import SceneRecord
from vcgen.errors import UserError

#: What the names of a split's images begin with.
SPLITS = {"train": "0_", "val": "1_", "test": "2_"}


class Nsvf(SceneFormat):
    """Pack NSVF's data sets; --split chooses the images whose names begin with 0_ (train), 1_ (val) or 2_ (test)."""

    name = "nsvf"

    def list_scenes(self, source: Path, settings: Settings) -> list[SceneFolder]:
        folders = [folder for folder in find_scenes(source, is_scene) if is_scene(folder)]
        if not folders:
            raise UserError(f"{source}: no scene with intrinsics.txt, rgb/ and pose/ in here")
        return [SceneFolder(scene_key(folder.name), folder) for folder in folders]

    def read_scene(self, scene: SceneFolder, settings: Settings) -> SceneRecord:
        start = SPLITS.get(settings.split, "")
        paths = sorted(path for path in (scene.folder / "rgb").glob("*.png") if path.name.startswith(start))
        if not paths:
            raise UserError(
                f"{scene.folder / 'rgb'}: no image of split {settings.split}, whose names begin with {start}"
            )
        matrix = np.loadtxt(scene.folder / "intrinsics.txt")
        if matrix.shape != (4, 4):
            raise UserError(f"{scene.folder / 'intrinsics.txt'}: is no 4 x 4 matrix of the camera, in pixels")
        pixels, poses, K = [], {}, []
        for path in paths:
            image = load_image(path)
            focal, center = (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2])
            K.append(normalized(focal, center, (image.shape[1], image.shape[0]), settings.crops))
            pixels.append(shrink(image, settings.size, path))
            poses[path.stem] = np.loadtxt(scene.folder / "pose" / f"{path.stem}.txt").reshape(4, 4)
        middle = middle_of(poses.items(), scene, settings)
        return make_record(scene, settings, list(poses), pixels, K, list(poses.values()), middle)


def is_scene(folder: Path) -> bool:
    """Whether the parts of a scene lie there."""
    return all((folder / part).exists() for part in ("intrinsics.txt", "rgb", "pose"))
