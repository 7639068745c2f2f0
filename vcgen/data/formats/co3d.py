"""CO3D, second version (Reizenstein et al. 2021): photographs of objects, each from a film around it.

``CATEGORY/{frame_annotations.jgz, sequence_annotations.jgz, set_lists/set_lists_SUBSET.json}`` and
``CATEGORY/SEQUENCE/{images/, masks/}``. Each sequence has a world of its own: unit, place and upward direction are a
solver's, and are made alike here.
"""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.co3d_annotations import (
    ADVICE,
    FRAMES,
    Frame,
    pinhole_pixels,
    poses,
    read_frames,
    read_list,
    read_scores,
)
from vcgen.data.formats.files import find_images, visible
from vcgen.data.formats.framed import centered_square, cut, square_around
from vcgen.data.formats.intrinsics import normalized
from vcgen.data.formats.masks import load_masked
from vcgen.data.formats.plausible import aim_of
from vcgen.data.formats.remarks import remark
from vcgen.data.formats.scene import (
    SceneFolder,
    Settings,
    make_record,
    middle_of,
    other_layout,
    require_folder,
    scene_key,
)
from vcgen.data.formats.splits import held_out
from vcgen.data.formats.upright import Up, upright_turn
from vcgen.data.images.arrays import load_image, shrink
from vcgen.data.images.reading import read_image
from vcgen.data.shards.record import SceneRecord, check_pose
from vcgen.errors import UserError
from vcgen.terminal import printable, say

#: Of what is looked at, the radius over the distance of the nearest camera.
RADIUS = 0.5


@dataclass(frozen=True, kw_only=True)
class Co3dSettings(Settings):
    """How sequences become records. categories: names of folders, separated by commas, "" for all. subset: whose list
    says which frames belong to a split, "" for none: all. masks: whether they become transparency. crop: to squares.
    distance: median one of the cameras from what they look at, before ``scale``; 0 keeps place and unit. quality: least
    score of the cameras. up: what becomes z.
    """

    categories: str = ""
    subset: str = "fewview_dev"
    masks: bool = True
    crop: Literal["center", "object", "none"] = "center"
    distance: float = 1.3
    quality: float | None = None
    up: Up = "auto"


@dataclass(frozen=True)
class FilmedScene(SceneFolder):
    """A sequence. root: what paths are relative to. capture: all its frames that have cameras. chosen: which of them
    belong to the split.
    """

    root: Path
    capture: tuple[Frame, ...]
    chosen: tuple[Frame, ...]

    def files(self) -> list[tuple[str, int]]:
        """Those of the chosen frames, and a number for the annotations."""
        names = sorted(
            part.path
            for frame in self.chosen
            for part in (frame.image, frame.mask)
            if part and (self.root / part.path).is_file()
        )
        return [("annotations", zlib.crc32(repr((self.capture, self.chosen)).encode()))] + [
            (name, (self.root / name).stat().st_size) for name in names
        ]


class Co3d(SceneFormat[FilmedScene, Co3dSettings]):
    """Pack CO3D version 2: CATEGORY/{frame_annotations.jgz, set_lists/, SEQUENCE/{images/, masks/}}.

    Every sequence becomes a scene: z is up, the point that its cameras look at is the origin, and their median distance
    from it is one for all.

    Args:
        source: folder of categories, or one category.
        near: nearest ray distance from the camera, Euclidean, in stored units. By default half the distance of the
            nearest camera from the point that all look at.
        far: farthest ray distance. By default the distance of the farthest camera plus half that of the nearest.
        split: train, val or test: which frames of the subset's list to pack; it is stored with every scene.
        categories: folders of categories to pack, such as hydrant,teddybear; by default all.
        subset: set_lists_SUBSET.json says which frames belong to a split; "" takes all frames of all sequences.
        masks: make what lies around the object transparent, by the masks; false keeps the backdrop, which then needs
            --near and --far.
        crop: center cuts out the largest square around the principal point, object one around the mask, 1.3 times as
            large; none keeps the frame.
        distance: median distance of a sequence's cameras from the point they look at, in stored units; 0 leaves place
            and unit as they are.
        quality: leave out sequences whose viewpoint_quality_score is less, or missing.
        up: axis of the stored world that becomes z; auto guesses it by how the camera was held, and says what it
            guessed.
    """

    name = "co3d"
    tells_bounds = True
    settings = Co3dSettings

    def list_scenes(self, source: Path, settings: Co3dSettings) -> list[FilmedScene]:
        """The sequences of which frames belong to the split. Raises UserError for none."""
        require_folder(source)
        _check(settings)
        found = (
            [source] if (source / FRAMES).is_file() else [path for path in visible(source) if (path / FRAMES).is_file()]
        )
        if not found:
            raise UserError(f"{source}: no category with {FRAMES} in here{other_layout(source, FRAMES)}")
        wanted = [word.strip() for word in settings.categories.split(",") if word.strip()]
        if unknown := [name for name in wanted if name not in {path.resolve().name for path in found}]:
            there = ", ".join(path.name for path in found[:50])
            raise UserError(f"--categories: {source} has no {printable(unknown[0])!r}; it has {there}")
        found = [path for path in found if not wanted or path.resolve().name in wanted]
        scenes = [scene for path in found for scene in _sequences(path, settings)]
        if not scenes:
            raise UserError(f"{source}: no sequence is left; change --split, --subset or --quality")
        return scenes

    def read_scene(self, scene: FilmedScene, settings: Co3dSettings) -> SceneRecord:
        """Convert one sequence; raises UserError listing missing images, or saying what of its annotations is wrong."""
        stored = dict(zip((_name(frame) for frame in scene.capture), poses(scene.capture), strict=True))
        for name, pose in stored.items():
            check_pose(pose, f"{scene.folder}, frame {name}")
        turn = np.eye(4)
        turn[:3, :3] = upright_turn(settings.up, np.stack(list(stored.values())))
        c2w = {name: turn @ pose for name, pose in stored.items()}
        settings = _alike(settings, np.stack(list(c2w.values())), scene)
        frames, empty = _whole(scene, settings)
        views = held_out(list(frames), settings)
        if empty:
            remark(f"{empty} of {len(scene.chosen)} frames have a mask that marks nothing, and are left out")
        packed, K = zip(*(_read_frame(frames[name], scene, settings) for name in views), strict=True)
        middle = middle_of(c2w.items(), scene, settings)
        return make_record(scene, settings, views, list(packed), list(K), [c2w[name] for name in views], middle)


def _check(settings: Co3dSettings) -> None:
    """Raise UserError for options that contradict one another."""
    if not 0 <= settings.distance < 1e6:
        raise UserError(f"--distance must lie between 0 and 1000000, not {settings.distance:g}")
    if settings.subset and settings.hold_out_views:
        raise UserError('--subset parts frames already; leave out --hold-out-views, or give --subset ""')
    if settings.crop == "object" and not settings.masks:
        raise UserError("--crop object is told by the masks; leave out --masks false")
    if not settings.masks and None in (settings.near, settings.far):
        raise UserError("without masks the backdrop is seen, and nothing tells how far it is: give --near and --far")


def _sequences(category: Path, settings: Co3dSettings) -> list[FilmedScene]:
    """The sequences of a category, in order of their names."""
    everything: dict[str, list[Frame]] = {}
    for frame in read_frames(category):
        if frame.viewpoint:
            everything.setdefault(frame.sequence_name, []).append(frame)
    listed = read_list(category, settings.subset, settings.split) if settings.subset else None
    posed = {(name, frame.frame_number) for name, frames in everything.items() for frame in frames}
    if absent := len((listed or set()) - posed):
        say(f"{category}: {absent} of {len(listed or ())} listed frames have no camera, and are left out")
    scores = {} if settings.quality is None else read_scores(category)
    scenes, poor = [], 0
    for name, frames in sorted(everything.items()):
        chosen = [frame for frame in frames if listed is None or (name, frame.frame_number) in listed]
        if chosen and settings.quality is not None and not scores.get(name, -np.inf) >= settings.quality:
            poor += 1
        elif chosen:
            place = category.resolve()
            key = scene_key(f"{place.name}_{name}")
            scenes.append(FilmedScene(key, category / name, place.parent, tuple(frames), tuple(chosen)))
    if poor:
        say(f"{category}: {poor} sequences have cameras of a quality below {settings.quality:g}, and are left out")
    return scenes


def _name(frame: Frame) -> str:
    return Path(frame.image.path).stem


def _alike(settings: Co3dSettings, c2w: np.ndarray, scene: FilmedScene) -> Co3dSettings:
    """Settings with the sequence's own scale, and with ray bounds where none are given, by all of its cameras."""
    aim = aim_of(c2w)
    if not aim.is_clear() or aim.behind:
        if settings.distance or None in (settings.near, settings.far):
            advice = "leave it out with --skip-broken, or give --distance 0, --near and --far"
            raise UserError(f"{scene.folder}: its cameras do not look at one point; {advice}")
        return settings
    distances = np.linalg.norm(c2w[:, :3, 3] - aim.point, axis=1)
    if settings.distance:
        settings = replace(
            settings, recenter=True, scale=settings.scale * settings.distance / float(np.median(distances))
        )
    radius = RADIUS * float(distances.min())
    return settings.within(float(distances.min()) - radius, float(distances.max()) + radius)


def _whole(scene: FilmedScene, settings: Co3dSettings) -> tuple[dict[str, tuple[Frame, Path, Path | None]], int]:
    """Frame, image and mask by name, and how many frames have a mask that marks nothing. Raises UserError where files
    are missing.
    """
    images = find_images([frame.image.path for frame in scene.chosen], scene.root, str(scene.folder), f"; {ADVICE}")
    masks: list[Path | None] = [None] * len(images)
    if settings.masks:
        if without := [_name(frame) for frame in scene.chosen if frame.mask is None]:
            raise UserError(
                f"{scene.folder}: {len(without)} frames have no mask, {without[0]} the first; give --masks false"
            )
        masks = list(
            find_images([frame.mask.path for frame in scene.chosen if frame.mask], scene.root, f"{scene.folder}, masks")
        )
    parts = [
        part for part in zip(scene.chosen, images, masks, strict=True) if not part[2] or read_image(part[2]).max() > 127
    ]
    if len({_name(frame) for frame, _, _ in parts}) < len(parts):
        raise UserError(f"{scene.folder}: two frames have images of one name; {ADVICE}")
    return {_name(part[0]): part for part in parts}, len(images) - len(parts)


def _read_frame(
    part: tuple[Frame, Path, Path | None], scene: FilmedScene, settings: Co3dSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The uint8 image and normalized intrinsics of a frame, as they are packed."""
    frame, image, mask = part
    pixels = load_image(image)[..., :3] if mask is None else load_masked(image, mask)
    (height, width), stated = pixels.shape[:2], frame.image.size
    if abs(height * stated[1] - width * stated[0]) > 0.5 * max(stated):
        raise UserError(
            f"{image}: {height} x {width}, annotated are {stated[0]} x {stated[1]} (height x width); {ADVICE}"
        )
    assert frame.viewpoint  # others are not among the frames of a scene
    try:
        focal, center = pinhole_pixels(frame, frame.viewpoint)
        K = normalized(tuple(focal), tuple(center), stated[::-1], settings.crops)
    except UserError as error:
        raise UserError(f"{scene.folder}, frame {_name(frame)}: {error}") from error
    if settings.crop != "none":
        square = centered_square(pixels, K) if settings.crop == "center" else square_around(pixels)
        pixels, K = cut(pixels, K, *square)
    return shrink(pixels, settings.size, image), K
