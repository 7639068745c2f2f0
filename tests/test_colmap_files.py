"""COLMAP's files: every damage is one line, and whole ones mean what pycolmap takes them for."""

import struct

import numpy as np
import pytest

from colmap_files import COEFFICIENTS, WORLD, write_scene
from packing_command import Packing
from training import refusal
from vcgen.data.formats.colmap_model import read_model
from vcgen.data.images.lenses import CAMERA_MODELS, Lens

PACKING = Packing("colmap")
refused = PACKING.refused


def exchange(old: str, new: str):
    return lambda data: data.replace(old.encode(), new.encode(), 1)


def without_last_line_but(count: int):
    return lambda data: b"\n".join(data.split(b"\n")[:-count])


TEXT = [
    ("cameras", exchange("PINHOLE", "THIN_LENS"), "'THIN_LENS' is none of COLMAP's camera models"),
    ("cameras", exchange("PINHOLE", "EQUIRECTANGULAR"), "panorama"),
    ("cameras", exchange("PINHOLE", "OPENCV"), "OPENCV has 8 parameters, found 4"),
    ("cameras", exchange("130.0", "nan"), "NaN"),
    ("cameras", exchange("130.0", "x"), "cameras.txt, line 2: not a number"),
    ("cameras", exchange("130.0", "1.3"), "normalized?"),
    ("cameras", exchange("120", "0"), "0 x 90 pixels"),
    ("cameras", exchange("7 PINHOLE", "8 PINHOLE"), "has camera 7, which cameras.txt lacks"),
    ("cameras", lambda data: data + data, "camera 7 occurs more than once"),
    ("cameras", lambda data: b"\xff\xfe" + data, "not a text file"),
    ("images", exchange("view_1", "view_0"), "view_0.png occurs more than once"),
    ("images", exchange("cam/view_1", "../view_1"), "leads outside"),
    ("images", exchange("cam/view_1", "/etc/view_1"), "leads outside"),
    ("images", exchange("\n\n", "\n"), "expected the features of cam/view_0.png"),
    ("images", exchange("50 ", "50 2"), "no unit quaternion"),
    ("images", lambda data: b"# nothing\n", "no image was placed"),
    ("images", exchange(" 7 cam/view_0.png", ""), "expected ID, quaternion"),
    ("points3D", exchange("0 ", "0 inf "), "infinite coordinate"),
    ("points3D", lambda data: data + b"7 1.0 2.0\n", "too few words"),
]
BINARY = [
    ("cameras", lambda data: data[:-3], "cut short"),
    ("cameras", lambda data: data + b"\0", "1 bytes follow the last record"),
    ("cameras", lambda data: data[:12] + struct.pack("<i", 17) + data[16:], "panorama"),
    ("cameras", lambda data: data[:12] + struct.pack("<i", 99) + data[16:], "'99' is none of"),
    ("images", lambda data: struct.pack("<Q", 1 << 60) + data[8:], "cut short"),
    ("images", lambda data: data.replace(b".png\0", b".png" + b"x" * 2000, 1), "no end within 1000 bytes"),
    ("images", lambda data: data.replace(b"cam/view_1", b"cam/view\xff1"), "not UTF-8"),
    ("images", lambda data: data[:-56] + struct.pack("<Q", 1 << 50) + data[-48:], "cut short"),
    ("points3D", lambda data: data[:60], "cut short"),
]


@pytest.mark.parametrize(
    ("kind", "name", "damage", "words"), [*(("txt", *case) for case in TEXT), *(("bin", *case) for case in BINARY)]
)
def test_every_damage_is_one_line(tmp_path, capsys, kind, name, damage, words):
    write_scene(tmp_path / "in", kind)
    path = tmp_path / "in" / "sparse" / "0" / f"{name}.{kind}"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    assert words in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_one_file_without_the_other_is_refused(tmp_path, capsys):
    write_scene(tmp_path / "in")
    (tmp_path / "in" / "sparse" / "0" / "images.txt").unlink()
    assert "images.txt is missing" in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_every_camera_model_of_pycolmap_is_read_but_panoramas():
    pycolmap = pytest.importorskip("pycolmap")
    theirs = {name: int(model) for name, model in pycolmap.CameraModelId.__members__.items() if int(model) >= 0}
    assert theirs.pop("EQUIRECTANGULAR", 17) == 17
    ours = {name: model.number for name, model in CAMERA_MODELS.items()}
    assert theirs.items() <= ours.items(), "an older pycolmap has fewer"


@pytest.mark.parametrize("model", sorted(CAMERA_MODELS))
def test_lenses_and_models_are_what_pycolmap_makes_of_them(tmp_path, model):
    pycolmap = pytest.importorskip("pycolmap")
    write_scene(tmp_path, "txt", model, COEFFICIENTS[model], WORLD)
    theirs = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    (tmp_path / "binary").mkdir()
    theirs.write_binary(str(tmp_path / "binary"))
    for folder in ("sparse/0", "binary"):
        ours = read_model(tmp_path / folder)
        images = {image.name: image for image in theirs.images.values()}
        assert [view.name for view in ours.views] == sorted(images)
        for view in ours.views:
            w2c = images[view.name].cam_from_world().matrix()
            assert np.allclose(np.linalg.inv(view.c2w)[:3], w2c, atol=1e-9)
        assert np.allclose(
            sorted(ours.points.tolist()), sorted(point.xyz.tolist() for point in theirs.points3D.values())
        )
    xy = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 2))
    camera, view = theirs.cameras[7], ours.views[0].camera
    bent = np.stack(Lens(model, COEFFICIENTS[model]).bend(xy[:, 0], xy[:, 1]), -1)
    rays = np.concatenate([xy, np.ones((100, 1))], 1)
    assert np.allclose(bent * view.focal + view.center, camera.img_from_cam(rays), atol=1e-9)
    assert view.lens == Lens(model, COEFFICIENTS[model]) and view.size == (camera.width, camera.height)


@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_a_model_that_was_refined_is_not_taken_for_the_packed_one(tmp_path, capsys, kind):
    source, out = tmp_path / "scene", tmp_path / "out"
    write_scene(source, kind)
    before = PACKING.packed(source, out, "--up", "z").c2w
    images = source / "sparse" / "0" / f"images.{kind}"
    data = images.read_bytes()
    if kind == "bin":  # the number of images, then of the first its number, quaternion and translation
        images.write_bytes(data[:44] + struct.pack("<d", 0.25) + data[52:])
    else:
        first = data.split(b"\n")[1].split(b" ")[5]
        images.write_bytes(data.replace(first, first[:-1] + (b"1" if first[-1:] != b"1" else b"2"), 1))
    assert images.stat().st_size == len(data)
    assert "was packed from another source" in refusal(capsys, PACKING.pack(source, out, "--up", "z"))
    assert not (PACKING.packed(source, out, "--up", "z", "--overwrite").c2w == before).all()
