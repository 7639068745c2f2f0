"""COLMAP's sparse models with their images: ``SCENE/{images, sparse/0}``, and where other programs put the same files.

Poses are world-to-camera in a world of any place, turn and unit; here the world is turned upright, and the sparse
points tell near and far. Every camera model but panoramas is read; lenses that bend are undistorted.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.colmap_model import POINTS_PLY, SparseModel, View, has_model, read_model
from vcgen.data.formats.files import find_images, view_names, visible
from vcgen.data.formats.intrinsics import normalized
from vcgen.data.formats.masks import find_masks_in, load_masked, refuse_empty
from vcgen.data.formats.plausible import aim_of
from vcgen.data.formats.remarks import remark
from vcgen.data.formats.scene import (
    SceneFolder,
    Settings,
    find_scenes,
    folder_key,
    make_record,
    middle_of,
    other_layout,
    require_folder,
)
from vcgen.data.formats.splits import held_out
from vcgen.data.formats.turning import Turn, plan_turns, turned
from vcgen.data.formats.upright import Up, upright_turn
from vcgen.data.images.arrays import area_resize, to_bytes
from vcgen.data.images.distortion import undistort
from vcgen.data.shards.record import SceneRecord
from vcgen.errors import UserError

#: Where models lie in a scene's folder: Depth-Anything-3; VGGT; COLMAP, GLOMAP and nerfstudio; InstantSplat, whose
#: ``sparse_N/1`` has guesses of where test views might be.
PLACES = (".", "sparse", "sparse/*", "colmap/sparse", "colmap/sparse/*", "sparse_*", "sparse_*/0")
#: Where images lie beside a model, unless --images says.
IMAGES = ("images", "input")
#: Points that an image must show to tell near and far.
ENOUGH = 10
#: Percentiles of the distances of an image's points, and the room left beyond them.
NEAREST, FARTHEST, ROOM = 1, 99, 1.1


@dataclass(frozen=True, kw_only=True)
class ColmapSettings(Settings):
    """How models become records. images, masks: folders, absolute or in that of the scene. up: what becomes z."""

    images: str = ""
    masks: str = ""
    up: Up = "auto"


@dataclass(frozen=True)
class ColmapScene(SceneFolder):
    """A scene whose model and images lie in two folders."""

    model: Path
    images: Path
    masks: Path | None

    def files(self) -> list[tuple[str, int]]:
        """Those of the model, and all that lie in the folders of images and masks."""
        folders = {"model": self.model, "images": self.images, "masks": self.masks}
        return [
            (f"{name}/{path}", size)
            for name, folder in folders.items()
            if folder
            for path, size in SceneFolder("", folder).files()
            if name != "model" or ("/" not in path and path.endswith((".bin", ".txt", POINTS_PLY)))
        ]


class Colmap(SceneFormat[ColmapScene, ColmapSettings]):
    """Pack COLMAP models with their images, as COLMAP, GLOMAP, VGGT, Depth-Anything-3 and InstantSplat write them.

    Text and binary models are read, with every camera model but panoramas; lens distortion and fisheyes are undone.
    The world is turned so that z is up.

    Args:
        source: folder with images/ and sparse/0/, or with the model itself (one scene), or a folder of such folders
            (many scenes). Of several models of a scene the largest is taken.
        near: nearest ray distance from the camera, Euclidean, in stored units. By default the sparse points tell: the
            least 1st percentile, over all images, of the distances of the points in it, divided by 1.1.
        far: farthest ray distance. By default the largest 99th percentile, times 1.1.
        images: folder of the images, in the scene's or a full path; by default images/ or input/ beside the model.
        masks: folder of masks, white where the object is, named IMAGE.png or as the image; they become transparency.
        up: axis of the model that becomes z; auto guesses it by how the camera was held, and says what it guessed.
    """

    name = "colmap"
    tells_bounds = True
    settings = ColmapSettings

    def list_scenes(self, source: Path, settings: ColmapSettings) -> list[ColmapScene]:
        """``source`` itself if it holds a model, else the folders below it that do. Raises UserError for none."""
        require_folder(source)
        folders = find_scenes(source, lambda folder: _model_in(folder) is not None)
        found = [folder for folder in folders if _model_in(folder)]
        if not found:
            hint = other_layout(source, "cameras.bin", "images.bin", "cameras.txt", "images.txt")
            raise UserError(f"{source}: no COLMAP model (cameras, images and points3D, .bin or .txt) in here{hint}")
        return [_scene(folder_key(folder, source), folder, settings) for folder in found]

    def read_scene(self, scene: ColmapScene, settings: ColmapSettings) -> SceneRecord:
        """Convert one scene; raises UserError listing missing images, or saying what of the model is wrong."""
        model = read_model(scene.model)
        names = [view.name for view in model.views]
        images = find_images(names, scene.images, str(scene.model), "; --images says where they are")
        masks = find_masks_in(scene.masks, names) if scene.masks else [None] * len(names)
        turns = plan_turns(images, [view.camera.size for view in model.views])
        views = dict(
            zip(view_names(images, scene.images), zip(model.views, images, masks, turns, strict=True), strict=True)
        )
        rotation = upright_turn(
            settings.up, np.stack([_packed_pose(view, turn) for view, _, _, turn in views.values()])
        )
        model = _rotated(model, rotation)
        settings = _with_bounds(model, settings, scene)
        chosen = held_out(list(views), settings)
        parts = []
        for name in chosen:
            view, image, mask, turn = views[name]
            try:
                parts.append(_read_view(view, rotation, image, mask, turn, settings))
            except UserError as error:
                raise UserError(f"{scene.model}, image {view.name}: {error}") from error
        pixels, K, c2w = zip(*parts, strict=True)
        if scene.masks:
            refuse_empty(pixels, scene.masks)
        middle = middle_of(((view.name, view.c2w) for view in model.views), scene, settings)
        return make_record(scene, settings, chosen, list(pixels), list(K), list(c2w), middle)


def ray_bounds(model: SparseModel) -> tuple[float, float]:
    """(near, far): the nearest and the farthest that an image shows, by the points that project into it: their 1st and
    99th percentile of distance, Euclidean, over and times ``ROOM``. (inf, 0) where no image shows ``ENOUGH``.

    Points hidden from an image count, too, since not every program notes which image shows which.
    """
    near, far = np.inf, 0.0
    for view in model.views:
        local = (model.points - view.c2w[:3, 3]) @ view.c2w[:3, :3]
        x, y, depth = local[local[:, 2] > 0].T
        pixels = np.stack([x, y], -1) / depth[:, None] * view.camera.focal + view.camera.center
        inside = ((pixels > 0) & (pixels < view.camera.size)).all(-1)
        if inside.sum() >= ENOUGH:
            distances = np.sqrt(x * x + y * y + depth * depth)[inside]
            near = min(near, float(np.percentile(distances, NEAREST)) / ROOM)
            far = max(far, float(np.percentile(distances, FARTHEST)) * ROOM)
    return near, far


def _scene(key: str, folder: Path, settings: ColmapSettings) -> ColmapScene:
    model = _model_in(folder) or folder
    beside = [path / name for path in (folder, *folder.resolve().parents[:2]) for name in IMAGES]
    images = folder / settings.images if settings.images else next(filter(Path.is_dir, beside), folder)
    masks = folder / settings.masks if settings.masks else None
    for option, place in (("--images", images), ("--masks", masks)):
        if place and not place.is_dir():
            raise UserError(f"{option}: {place} is no folder; give one below {folder}, or a full path")
    return ColmapScene(key, folder, model, images, masks)


def _model_in(folder: Path) -> Path | None:
    """The folder of a scene's model: at the first of ``PLACES``; of several there the one that places most images."""
    for place in PLACES:
        found = [path for path in ([folder] if place == "." else sorted(folder.glob(place))) if path.is_dir()]
        if models := [path for path in found if has_model(path)]:
            return max(models, key=_bytes_of_images)
    return None


def _bytes_of_images(model: Path) -> int:
    return max((path.stat().st_size for path in visible(model) if path.stem == "images" and path.is_file()), default=0)


def _packed_pose(view: View, turn: Turn) -> np.ndarray:
    return turned(np.zeros((1, 1, 1)), np.eye(3), view.c2w, turn.on)[2]


def _rotated(model: SparseModel, rotation: np.ndarray) -> SparseModel:
    """The model in a world that is turned."""
    return SparseModel(
        [view._replace(c2w=_turned_world(view.c2w, rotation)) for view in model.views], model.points @ rotation.T
    )


def _turned_world(c2w: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    return np.concatenate([rotation @ c2w[:3], c2w[3:]])


def _with_bounds(model: SparseModel, settings: ColmapSettings, scene: ColmapScene) -> ColmapSettings:
    """Settings with the ray bounds that were not given."""
    if settings.near is not None and settings.far is not None:
        return settings
    near, far = ray_bounds(model)
    if near > far:
        raise UserError(
            f"{scene.model}: no image shows {ENOUGH} sparse points ({len(model.points)} in all), so near and far are"
            " not told: give --near and --far"
        )
    settings = settings.within(near, far)
    near, far = settings.bounds()
    if not near < far:
        raise UserError(f"{scene.model}: near {near:g} and far {far:g}: give both, --near and --far")
    aim = aim_of(np.stack([view.c2w for view in model.views]))
    place = f"; the cameras stand {aim.distance * settings.scale:.4g} from the point they look at"
    where = place if aim.is_clear() else ""
    remark(f"near {near:.4g} and far {far:.4g}, by {len(model.points)} sparse points{where}")
    return settings


def _read_view(
    view: View, rotation: np.ndarray, image: Path, mask: Path | None, turn: Turn, settings: Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The uint8 image, normalized intrinsics and pose of a view, as they are packed."""
    pixels = np.rot90(load_masked(image, mask), turn.back)
    camera, (height, width) = view.camera, pixels.shape[:2]
    if abs(height * camera.size[0] - width * camera.size[1]) > 0.5 * max(camera.size):
        raise UserError(
            f"the image is {width} x {height}, its camera is of {camera.size[0]} x {camera.size[1]} (width x height)"
        )
    K = normalized(camera.focal, camera.center, camera.size, settings.crops)
    pixels, K = undistort(pixels, K, camera.lens)
    pixels, K, c2w = turned(pixels, K, _turned_world(view.c2w, rotation), turn.on)
    return to_bytes(area_resize(pixels, settings.size or pixels.shape[:2])), K, c2w
