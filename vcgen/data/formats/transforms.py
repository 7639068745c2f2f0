"""``transforms.json`` scenes: NeRF-synthetic (Blender), instant-ngp and nerfstudio.

Poses are camera-to-world with OpenGL axes (x right, y up, z backward). Values of a frame beat those of the file, and a
focal length in pixels (``fl_x``) beats a field of view (``camera_angle_x``) stated at the same level."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from vcgen.data.formats.base import SceneFormat
from vcgen.data.formats.files import ImageFiles, find_images, view_names
from vcgen.data.formats.intrinsics import focal_of_angle, normalized
from vcgen.data.formats.masks import find_masks, load_masked, refuse_empty
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
from vcgen.data.formats.splits import choose_frames, remark_on_shared
from vcgen.data.formats.turning import Turn, plan_turns, turned
from vcgen.data.images.arrays import area_resize, to_bytes
from vcgen.data.images.distortion import Distortion, undistort
from vcgen.data.shards.record import SceneRecord
from vcgen.errors import UserError
from vcgen.io import check, read_json

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
ADVICE = "not a transforms file as Blender, instant-ngp or nerfstudio write it"
Frames = Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=100_000)]
#: Three or four rows of four numbers.
Matrix = Annotated[list[tuple[float, float, float, float]], Meta(min_length=3, max_length=4)]
#: What instant-ngp notes of lenses that are none.
OTHER_LENSES = ("is_fisheye", "fisheye", "ftheta_p0", "latlong", "equirectangular", "orthographic")
#: Of OpenCV's rational and thin prism models.
OTHER_COEFFICIENTS = ("k5", "k6", "s1", "s2", "s3", "s4")
PINHOLES = ("", "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")


class Transforms(SceneFormat[SceneFolder, Settings]):
    """Pack transforms.json scenes: NeRF-synthetic (Blender), instant-ngp and nerfstudio.

    Poses are camera-to-world with OpenGL axes, world z up. Lens distortion (k1 to k4, p1, p2) is removed; fisheye
    lenses are refused.

    Args:
        source: folder with transforms_SPLIT.json or transforms.json (one scene), or a folder of such folders (many
            scenes).
        near: nearest ray distance from the camera, Euclidean, in stored units. Required; 2 for NeRF-synthetic.
        far: farthest ray distance. Required; 6 for NeRF-synthetic.
        split: name stored with every scene, and which transforms_SPLIT.json to read (else transforms.json, and of it
            the frames that SPLIT_filenames lists).
    """

    name = "transforms"

    def list_scenes(self, source: Path, settings: Settings) -> list[SceneFolder]:
        """``source`` itself if it has a transforms file of the split, else the folders below it. Raises UserError where
        there is none.
        """
        require_folder(source)
        folders = find_scenes(source, lambda folder: _transforms_file(folder, settings.split) is not None)
        found = [folder for folder in folders if _transforms_file(folder, settings.split)]
        if not found:
            others = sorted({path.name for path in source.glob("**/transforms*.json")})
            hint = (
                f"; there is {', '.join(others[:4])}: choose with --split"
                if others
                else other_layout(source, "transforms*.json")
            )
            raise UserError(f"{source}: no transforms_{settings.split}.json or transforms.json in here{hint}")
        return [SceneFolder(folder_key(folder, source), folder) for folder in folders]

    def read_scene(self, scene: SceneFolder, settings: Settings) -> SceneRecord:
        """Convert one scene; raises UserError listing missing images, or saying which entry is wrong."""
        path = _transforms_file(scene.folder, settings.split)
        if path is None:
            raise UserError(f"{scene.folder}: empty, no transforms file")
        content, frames = _read_json(path)
        images = find_images([str(frame.get("file_path", "")) for frame in frames], path.parent, str(path))
        views = view_names(images, path.parent)
        chosen = choose_frames(path, content, images, views, settings)
        remark_on_shared(
            [images[i] for i in chosen],
            _other_splits(path, content, settings.split),
            ImageFiles(path.parent),
            settings.split,
        )
        turns = plan_turns([images[i] for i in chosen], [_stated_size(frames[i], content) for i in chosen])
        masks = find_masks(path, [frames[i] for i in chosen])
        parts = []
        for number, mask, turn in zip(chosen, masks, turns, strict=True):
            try:
                parts.append(_read_view(frames[number], content, images[number], mask, turn, settings))
            except UserError as error:
                raise UserError(f"{path}, frame {views[number]}: {error}") from error
        _remark_on_focal_length(frames[chosen[0]], content)
        pixels, K, c2w = zip(*parts, strict=True)
        if any(masks):
            refuse_empty(pixels, path)
        middle = middle_of(_capture(path, frames), scene, settings)
        return make_record(scene, settings, [views[i] for i in chosen], list(pixels), list(K), list(c2w), middle)


def _capture(path: Path, frames: list[dict[str, Any]]) -> Iterator[tuple[str, np.ndarray]]:
    """The names and poses of all frames, whatever the split; where splits have files of their own, those for
    training.
    """
    training = _transforms_file(path.parent, "train")
    for frame in frames if training in (path, None) else _read_json(training)[1]:
        name = str(frame.get("file_path"))
        try:
            yield name, read_pose(frame)
        except UserError as error:
            raise UserError(
                f"{training or path}, frame {name}: {error}; --recenter needs the pose of every frame"
            ) from error


def _read_view(
    frame: dict[str, Any], content: dict[str, Any], image: Path, mask: Path | None, turn: Turn, settings: Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The uint8 image, normalized intrinsics and OpenCV pose of a frame, as they are packed."""
    pixels = np.rot90(load_masked(image, mask), turn.back)
    K = read_intrinsics(frame, content, pixels.shape[:2], settings.crops)
    pixels, K = undistort(pixels, K, read_distortion(frame, content))
    pixels, K, c2w = turned(pixels, K, read_pose(frame), turn.on)
    return to_bytes(area_resize(pixels, settings.size or pixels.shape[:2])), K, c2w


def _remark_on_focal_length(frame: dict[str, Any], content: dict[str, Any]) -> None:
    """A remark where one level states a focal length, the width that it is for, and another field of view."""
    level = frame if "fl_x" in frame else content
    focal, angle, width = (
        _number(level, {}, "fl_x", 0.0),
        _number(level, {}, "camera_angle_x", 0.0),
        _number(frame, content, "w", 0.0),
    )
    if focal and angle and width and not 0.95 < (stated := width / (2 * math.tan(angle / 2))) / focal < 1.05:
        remark(
            f"fl_x is {focal:g} pixels, and {stated:.4g} by camera_angle_x and w; fl_x is taken: is it of another"
            " resolution?"
        )


def _stated_size(frame: dict[str, Any], content: dict[str, Any]) -> tuple[float, float] | None:
    """(width, height) that the intrinsics are for: w and h, else what a principal point in the middle says; None where
    nothing does.
    """
    for names, factor in ((("w", "h"), 1), (("cx", "cy"), 2)):
        try:
            width, height = (_number(frame, content, name, 0.0) for name in names)
        except UserError:  # said where the frame is read, with its name
            return None
        if width and height and (factor == 1 or not 0.9 < width / height < 1.1):
            return factor * width, factor * height
    return None


def read_intrinsics(
    frame: dict[str, Any], content: dict[str, Any], image_size: tuple[int, int], crops: bool = False
) -> np.ndarray:
    """Normalized (3, 3) intrinsics of a frame; pixel values refer to ``w`` x ``h`` where given, else to the image
    itself.

    crops: see :func:`vcgen.data.formats.intrinsics.normalized`. Raises UserError if nothing states a focal length, a
    number is malformed or of another unit, or ``w`` x ``h`` has another shape than the image.
    """
    height = _number(frame, content, "h", image_size[0])
    width = _number(frame, content, "w", image_size[1])
    if min(height, width) < 1:
        raise UserError(f"w and h must be positive, found {width:g} and {height:g}")
    if abs(image_size[0] * width - image_size[1] * height) > 0.5 * max(width, height):
        turned = "; of the image turned by a quarter?" if image_size[0] * height == image_size[1] * width else ""
        raise UserError(
            f"the image is {image_size[0]} x {image_size[1]} (height x width), w and h say {height:g} x"
            f" {width:g}{turned}"
        )
    level = next((part for part in (frame, content) if "fl_x" in part or "camera_angle_x" in part), None)
    if level is None:
        raise UserError("neither fl_x nor camera_angle_x is given")
    if "fl_x" in level:
        focal_x = _number(level, {}, "fl_x")
        focal_y = _number(frame, content, "fl_y", focal_x)
    else:
        focal_x = focal_y = focal_of_angle("camera_angle_x", _number(level, {}, "camera_angle_x")) * width
        if "camera_angle_y" in level:
            focal_y = focal_of_angle("camera_angle_y", _number(level, {}, "camera_angle_y")) * height
    center = _number(frame, content, "cx", width / 2), _number(frame, content, "cy", height / 2)
    return normalized((focal_x, focal_y), center, (width, height), crops)


def read_distortion(frame: dict[str, Any], content: dict[str, Any]) -> Distortion:
    """Lens coefficients of a frame, 0 where absent. Raises UserError for fisheye and other lenses that are not
    pinholes.
    """
    stated = {**content, **frame}
    model = str(stated.get("camera_model") or "")
    if model.upper() not in PINHOLES or any(stated.get(name) for name in OTHER_LENSES):
        found = (
            repr(model) if model.upper() not in PINHOLES else next(name for name in OTHER_LENSES if stated.get(name))
        )
        raise UserError(f"camera model {found} is not supported; undistort to a pinhole with your camera solver first")
    if unknown := [name for name in OTHER_COEFFICIENTS if _number(frame, content, name, 0.0)]:
        raise UserError(
            f"lens coefficient {unknown[0]} is not supported, only k1 to k4, p1, p2; undistort with your camera solver"
            " first"
        )
    if values := stated.get("distortion_params"):  # nerfstudio's list beats single values
        if not isinstance(values, list) or len(values) > len(Distortion._fields):
            raise UserError(f"distortion_params must be a list of up to 6 numbers: {', '.join(Distortion._fields)}")
        frame = dict(zip(Distortion._fields, values, strict=False))
        content = {}
    return Distortion(**{name: _number(frame, content, name, 0.0) for name in Distortion._fields})


def read_pose(frame: dict[str, Any]) -> np.ndarray:
    """The frame's camera-to-world with OpenCV axes, (4, 4) float64; a 3 x 4 matrix gets its last row. Raises UserError
    if malformed.
    """
    if "transform_matrix" not in frame:
        raise UserError("missing pose (no transform_matrix)")
    rows = check(frame["transform_matrix"], Matrix, "transform_matrix")
    return np.array([*rows, [0, 0, 0, 1]][:4], dtype=np.float64) @ OPENGL_TO_OPENCV


def _transforms_file(folder: Path, split: str) -> Path | None:
    candidates = (folder / f"transforms_{split}.json", folder / "transforms.json")
    return next((path for path in candidates if path.is_file()), None)


def _other_splits(path: Path, content: dict[str, Any], split: str) -> dict[str, list[str]]:
    """Where from -> names of images of which ``split`` must have none: of testing and validation for training, else of
    training.
    """
    names = {}
    for other in ("val", "test") if split == "train" else ("train",):
        sibling = (
            _transforms_file(path.parent, other) if other == "train" else path.with_name(f"transforms_{other}.json")
        )
        if isinstance(listed := content.get(f"{other}_filenames"), list):
            names[f"{other}_filenames"] = [name for name in listed if isinstance(name, str)]
        elif sibling and sibling.is_file() and sibling != path:
            with suppress(UserError):  # a file that is not packed here may be broken
                names[sibling.name] = [str(frame.get("file_path", "")) for frame in _read_json(sibling)[1]]
    return names


def _read_json(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole file, whose writers are many and state more than is used here, and its frames."""
    content = read_json(path, dict[str, Any], ADVICE)
    return content, check(content.get("frames"), Frames, f"{path}, frames", ADVICE)


def _number(first: dict[str, Any], second: dict[str, Any], name: str, default: float | None = None) -> float:
    """A finite number from the first dict that has the name."""
    value = first.get(name, second.get(name, default))
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise UserError(f"{name} must be a finite number, found {str(value)[:50]!r}")
    return float(value)
