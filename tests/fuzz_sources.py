"""What the fuzzer spoils of data that is packed, and of photos that are shown to a model."""

import functools
import io
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from colmap_files import write_scene
from fuzz_mutations import plain, png_is_whole, spoil_bytes
from fuzz_specs import rigid
from fuzz_subject import Files, Subject, spoil_one
from scenes import listing, make_record, noise, png, write_srn_object, write_transforms
from vcgen.data.formats import colmap, srn, transforms
from vcgen.data.formats.scene import SceneFolder, Settings
from vcgen.data.images.photo import prepare
from vcgen.data.shards.conversion import convert_one
from vcgen.data.shards.record import SceneRecord, decode_views
from vcgen.errors import UserError

SETTINGS = Settings(None, 0.8, 1.8, "none", "s", "train", "CC0", "")


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them. folder: to make the whole files in."""
    yield from sources(folder)
    yield from models(folder)
    yield from (photo(kind) for kind in ("png", "jpg", "webp", "bmp", "tiff", "gif", "ppm"))


def sources(folder: Path) -> Iterator[Subject]:
    """The layouts that are packed."""
    write_srn_object(folder / "srn" / "object")
    load = functools.partial(convert, srn.Srn().read_scene, "object")
    files = listing(folder / "srn")
    for name, how, fraction in (
        ("intrinsics.txt", spoil_text, 1),
        ("pose/000001.txt", spoil_text, 1),
        ("rgb/000001.png", spoil_bytes, 0.5),
    ):
        yield Subject(f"srn {name}", files, spoil_one(f"object/{name}", how), load, srn_holds, fraction)
    poses = make_record("a").c2w @ np.diag([1.0, -1, -1, 1])
    frames = [
        {"file_path": f"images/{i}.png", "transform_matrix": pose.tolist(), "more": [1, "x"]}
        for i, pose in enumerate(poses)
    ]
    write_transforms(
        folder / "transforms" / "object",
        frames,
        fl_x=9.0,
        fl_y=9.0,
        cx=3.0,
        cy=4.0,
        w=6,
        h=8,
        k1=0.01,
        camera_model="OPENCV",
    )
    load = functools.partial(convert, transforms.Transforms().read_scene, "object")
    files = listing(folder / "transforms")
    yield Subject("transforms.json", files, spoil_one("object/transforms.json"), load, transforms_hold, 3)
    yield Subject(
        "image of a source",
        files,
        spoil_one("object/images/1.png", spoil_bytes),
        load,
        lambda found: png_is_whole(*found.values()),
    )


def models(folder: Path) -> Iterator[Subject]:
    """COLMAP's. Their numbers have no checksums: other poses, lenses and points are as valid."""
    for kind, how in (("bin", spoil_bytes), ("txt", spoil_text)):
        write_scene(folder / f"colmap_{kind}" / "object", kind)
        files = listing(folder / f"colmap_{kind}")
        for name in ("cameras", "images", "points3D"):
            spoil = spoil_one(f"object/sparse/0/{name}.{kind}", how)
            yield Subject(f"colmap {name}.{kind}", files, spoil, convert_model, lambda files: True, 0.5)


def convert_model(folder: Path) -> Any:
    """As packing does."""
    settings = colmap.ColmapSettings(**{**vars(SETTINGS), "near": None, "far": None})
    (scene,) = colmap.Colmap().list_scenes(folder / "object", settings)
    record, _ = convert_one(colmap.Colmap().read_scene, scene, settings)
    if not isinstance(record, SceneRecord):
        raise UserError(record)
    return {**vars(record), "images": decode_views(record, range(len(record.images)))}


def convert(read_scene, name: str, folder: Path) -> Any:
    """The record that packing makes of a scene."""
    record, _ = convert_one(read_scene, SceneFolder("scene", folder / name), SETTINGS)
    if not isinstance(record, SceneRecord):
        raise UserError(record)
    return {**vars(record), "images": decode_views(record, range(len(record.images)))}


def spoil_text(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """Exchange numbers of a text file, or spoil its bytes."""
    words = data.decode().split(" ")
    if random.random() < 0.4:
        return spoil_bytes(random, data, others)
    odd = (
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e308",
        "-1",
        "0",
        "0x10",
        "1_0",
        "9" * 5000,
        "",
        "\u0663",
        "1e-320",
        "1,5",
        "None",
        "\x1b[2J",
        "\n",
        "1.0\n1.0",
    )
    words[random.randrange(len(words))] = random.choice(odd)
    return " ".join(words).encode()


def srn_holds(files: Files) -> bool:
    """Numbers that are a lens of an image of that size, or a pose; a whole image."""
    ((name, data),) = files.items()
    if name.endswith(".png"):
        return png_is_whole(data)
    numbers = [[float(word) for word in line.split()] for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    if "pose" in name:
        flat = [number for row in numbers for number in row]
        return len(flat) == 16 and rigid([flat[i : i + 4] for i in range(0, 16, 4)])
    (focal, x, y), (height, width) = numbers[0][:3], numbers[3]
    return (
        abs(8 * width - 6 * height) <= 0.5 * max(width, height)
        and all(0.1 <= focal / side <= 50 for side in (width, height))
        and (0 < x < width and 0 < y < height)
    )


def transforms_hold(files: Files) -> bool:
    """What is used of it is possible; what is not may be anything."""

    def number(name: str, frame: dict, tree: dict, default: float) -> float:
        value = frame.get(name, tree.get(name, default))
        return float(value) if type(value) in (int, float) else float("nan")

    tree = plain(files["object/transforms.json"])
    for frame in tree["frames"]:
        w, h = (number(name, frame, tree, side) for name, side in (("w", 6), ("h", 8)))
        focal = [number(name, frame, tree, number("fl_x", frame, tree, 0)) for name in ("fl_x", "fl_y")]
        if "fl_x" not in {**tree, **frame} and not 0 < number("camera_angle_x", frame, tree, 0) < 3.1:
            return False
        lens = all(0.1 <= f / side <= 50 for f, side in zip(focal, (w, h))) or "camera_angle_x" in {**tree, **frame}
        center = 0 < number("cx", frame, tree, w / 2) < w and 0 < number("cy", frame, tree, h / 2) < h
        small = all(abs(number(name, frame, tree, 0)) < 5 for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
        pose = frame["transform_matrix"]
        if not (rigid(pose) and lens and center and small and isinstance(frame["file_path"], str)):
            return False
    return len(tree["frames"]) >= 2


def photo(kind: str) -> Subject:
    """An image of an object in some format. Only PNG has checksums; of the others a flipped bit may be another
    color.
    """
    pixels = np.full((24, 20, 3), 255, np.uint8)
    pixels[6:18, 5:15] = noise(3, 12, 10, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {"jpg": "JPEG"}.get(kind, kind.upper()))
    data = png(pixels) if kind == "png" else buffer.getvalue()
    valid = (lambda files: png_is_whole(files["photo"])) if kind == "png" else (lambda files: True)
    return Subject(f"photo {kind}", {"photo": data}, spoil_one("photo", spoil_bytes), framed, valid, 0.7)


def framed(folder: Path) -> Any:
    """As a model is shown it; numbers, whatever the file."""
    found = prepare(folder / "photo", (16, 16))
    for values in (found.color, found.alpha):
        if values.shape[:2] != (16, 16) or not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise AssertionError(f"colors from {values.min()} to {values.max()}, {values.shape}")
    return found
