"""Image files of one object and a file of their cameras become the views that a model is shown."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from vcgen.cameras import Cameras
from vcgen.data.camera_file import StatedCameras, read_camera_file
from vcgen.data.formats.plausible import odd_place, odd_poses
from vcgen.data.images.photo import prepare
from vcgen.data.images.reading import read_header
from vcgen.data.input_camera import SAME_DISTANCE, InputCamera
from vcgen.errors import UserError
from vcgen.terminal import complain, first_few
from vcgen.types import Views


def posed_views(images: Sequence[Path], cameras: Path, size: tuple[int, int], expected: InputCamera) -> Views:
    """(1, n) views of one object, in the order of ``images``, each with the camera that ``cameras``, a
    :class:`~vcgen.data.camera_file.CameraFile`, has for its name; the scene ``KEY.cameras.json`` of a shard has camera
    12 for ``KEY.012.png``.

    The world is that of the model's training data: z up, the object's middle at the origin, the same unit. Images keep
    their framing: those that are not of ``size`` (height, width) are padded to its shape and resized, intrinsics with
    them. expected: what the model's images are usually taken by; where the file gives no near and far, rays pass the
    sphere about the origin that they bound there. Warns of poses that look wrong. Raises UserError for images and files
    that cannot be used."""
    if not images:
        raise UserError("no image: give at least one")
    stated = read_camera_file(cameras, least=1)
    numbers = [_number(image, stated, cameras) for image in images]
    if twice := [image for image, number in zip(images, numbers, strict=True) if numbers.count(number) > 1]:
        raise UserError(f"{twice[0]} and {twice[1]} are of one camera of {cameras}: give each view once")
    c2w = stated.c2w[numbers]
    near, far = _bounds(images, c2w, stated, cameras, expected)
    for text in _odd(c2w, float(near.min()), float(far.max()), expected):
        complain(f"{cameras}: {text}", "warning")
    prepared = [prepare(image, size, as_is=True) for image in images]
    K = np.stack([_padded(stated.K[n], image, size) for n, image in zip(numbers, images, strict=True)])
    tensors = (torch.from_numpy(values).float() for values in (c2w, K, near, far))
    color = torch.from_numpy(np.stack([image.color for image in prepared])).movedim(-1, 1)
    alpha = torch.from_numpy(np.stack([image.alpha for image in prepared]))[:, None]
    return Views(color, Cameras(*tensors), alpha)[None]


def _number(image: Path, stated: StatedCameras, cameras: Path) -> int:
    """The number of the camera that the file has for an image."""
    key = cameras.name.removesuffix("cameras.json")
    place = image.stem.removeprefix(key)
    if key and image.name.startswith(key) and place.isdecimal() and int(place) < len(stated.c2w):
        return int(place)
    if stated.names is None:
        raise UserError(f'{cameras}: does not say which image each camera is of; add their names, as "views"')
    found = [n for n, name in enumerate(stated.names) if PurePosixPath(name).name in (image.name, image.stem)]
    if len(found) != 1:
        listed = first_few(stated.names, 3)
        raise UserError(f"{cameras}: {len(found) or 'no'} views are called {image.name}, there are {listed}; rename it")
    return found[0]


def _bounds(
    images: Sequence[Path], c2w: np.ndarray, stated: StatedCameras, cameras: Path, expected: InputCamera
) -> tuple[np.ndarray, np.ndarray]:
    """Near and far (n,) of the file, or of a sphere around the origin."""
    distance = np.linalg.norm(c2w[:, :3, 3], axis=1)
    near, far = distance - expected.radius, distance + expected.radius
    if stated.near is None and near.min() <= 0:
        nearest = int(distance.argmin())
        raise UserError(
            f"{cameras}: the camera of {images[nearest].name} stands {distance[nearest]:.3g} from the origin, inside"
            f" the model's objects, which reach {expected.radius:.3g}; give poses in the units of its training data, or"
            " t_near and t_far"
        )
    near = near if stated.near is None else np.full_like(near, stated.near)
    far = far if stated.far is None else np.full_like(far, stated.far)
    if (near >= far).any():
        raise UserError(f"{cameras}: t_near and t_far hold no part of what the cameras look at; give both")
    return near, far


def _odd(c2w: np.ndarray, near: float, far: float, expected: InputCamera) -> list[str]:
    """What is wrong with poses (n, 4, 4), as far as it can be told."""
    centers = c2w[:, :3, 3]
    texts = (odd_poses(c2w) or odd_place(c2w, near, far)) if len(c2w) > 1 else []
    if not texts and (behind := int(((c2w[:, :3, 2] * centers).sum(1) > 0).sum())):
        texts = [f"the origin, where the model has its objects, lies behind {behind} of {len(c2w)} cameras"]
    distance = float(np.median(np.linalg.norm(centers, axis=1)))
    if not texts and abs(distance / expected.distance - 1) > SAME_DISTANCE:
        place = f"the cameras stand {distance:.3g} from the origin, those of the model's training data"
        texts = [f"{place} {expected.distance:.3g}: other units?"]
    return texts


def _padded(K: np.ndarray, image: Path, size: tuple[int, int]) -> np.ndarray:
    """Normalized intrinsics (3, 3) of an image file -> those of the frame (height, width) that it lies in the middle
    of. Raises UserError where the file does not tell which way up the camera's image was."""
    (height, width), orientation = read_header(image)
    if orientation != 1:
        raise UserError(
            f"{image}: EXIF's orientation {orientation} leaves open which way up its camera saw it; save it upright"
        )
    scale = max(width / size[1], height / size[0])
    fraction = np.array([width / (scale * size[1]), height / (scale * size[0])])
    framed = K.copy()
    framed[[0, 1], [0, 1]] *= fraction
    framed[:2, 2] = (K[:2, 2] - 0.5) * fraction + 0.5
    return framed
