"""Models as the programs write them that users take poses from, beside COLMAP: made here, byte for byte as their export
code does (GLOMAP, VGGT, Depth-Anything-3 and InstantSplat, as of 2025).
"""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from colmap_files import C2W, DOTS, FOCAL, HEIGHT, POINTS, WIDTH, draw, world_to_camera
from packing_command import Packing
from vcgen.data.formats.colmap_model import read_model

#: Fourth number of a feature that shows no point.
NO_POINT = (1 << 64) - 1
PINHOLE, SIMPLE_RADIAL = 1, 2
#: Of the pinhole in whose middle the optical axis lies, which all but GLOMAP assume.
MIDDLE = (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)


def photos(folder: Path, names: list[str]) -> None:
    """What cameras of ``MIDDLE`` see of the dots."""
    for name, c2w in zip(names, C2W, strict=False):
        local = (DOTS - c2w[:3, 3]) @ c2w[:3, :3]
        draw(folder / name, FOCAL * local[:, :2] / local[:, 2:] + np.array([WIDTH, HEIGHT]) / 2)


packed = Packing("colmap", "--up", "z").packed


def cameras_bin(cameras: list[tuple[int, int, tuple[float, ...]]]) -> bytes:
    """cameras: (id, model, parameters)."""
    rows = [struct.pack(f"<IiQQ{len(p)}d", i, model, WIDTH, HEIGHT, *p) for i, model, p in cameras]
    return struct.pack("<Q", len(rows)) + b"".join(rows)


def images_bin(images: list[tuple[int, str, int, np.ndarray, list]]) -> bytes:
    """images: (id, name, camera's id, camera-to-world, features: x, y, point's id)."""
    rows = [struct.pack("<Q", len(images))]
    for number, name, camera, c2w, features in images:
        quaternion, translation = world_to_camera(c2w)
        rows.append(struct.pack("<I7dI", number, *quaternion, *translation, camera) + name.encode() + b"\0")
        rows.append(struct.pack("<Q", len(features)) + b"".join(struct.pack("<2dQ", *feature) for feature in features))
    return b"".join(rows)


def points_bin(points: list[tuple[int, np.ndarray, list[tuple[int, int]]]]) -> bytes:
    """points: (id, position, track: image's id, feature)."""
    rows = [
        struct.pack("<Q3d3BdQ", number, *xyz, 9, 9, 9, -1.0, len(track))
        + b"".join(struct.pack("<2I", *t) for t in track)
        for number, xyz, track in points
    ]
    return struct.pack("<Q", len(rows)) + b"".join(rows)


def test_glomap_names_points_by_image_and_feature_and_writes_components_apart(tmp_path):
    """Points' ids are union-find roots, image << 32 | feature; images of several folders, one lens; the second
    component is smaller. Both of them, as text and binary.
    """
    names = [f"left/{n}.png" for n in range(3)] + [f"right/a b {n}.png" for n in range(3)]
    photos(tmp_path / "in" / "images", names)
    ids = [5, 17, 2, 40, 3, 1 << 30]
    points = [(ids[k % 6] << 32 | k, xyz, [(ids[k % 6], k), (ids[(k + 1) % 6], 0)]) for k, xyz in enumerate(POINTS)]
    for component, chosen in (("0", slice(None)), ("1", slice(2))):
        folder = tmp_path / "in" / "sparse" / component
        folder.mkdir(parents=True)
        rows = list(zip(ids, names, [1] * 6, C2W, [[(1.5, 2.5, NO_POINT), (3.0, 4.0, points[7][0])]] * 6, strict=True))
        lens = (FOCAL, WIDTH / 2, HEIGHT / 2, 1e-12)
        (folder / "cameras.bin").write_bytes(cameras_bin([(1, SIMPLE_RADIAL, lens)]))
        (folder / "images.bin").write_bytes(images_bin(rows[chosen]))
        (folder / "points3D.bin").write_bytes(points_bin(points))
    record = packed(tmp_path / "in", tmp_path / "out")
    assert record.views == [name[:-4] for name in names] and np.allclose(record.c2w, C2W, atol=1e-9)
    assert np.allclose(read_model(tmp_path / "in" / "sparse" / "0").points, POINTS)
    text = tmp_path / "in" / "sparse" / "0"
    text_copy(text, ids, names, points)
    assert packed(tmp_path / "in", tmp_path / "text").views == record.views


def text_copy(folder: Path, ids: list[int], names: list[str], points: list) -> None:
    """The same model as ``Reconstruction::WriteText`` has it, instead of the binary one."""
    for path in folder.iterdir():
        path.unlink()
    (folder / "cameras.txt").write_text(
        "# Camera list with one line of data per camera:\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n# Number of"
        f" cameras: 1\n1 SIMPLE_RADIAL {WIDTH} {HEIGHT} {FOCAL} {WIDTH / 2} {HEIGHT / 2} 1e-12\n"
    )
    lines = ["# Image list with two lines of data per image:", "# Number of images: 6, mean observations per image: 1"]
    for number, name, c2w in zip(ids, names, C2W, strict=True):
        numbers = " ".join(f"{float(value):.17g}" for part in world_to_camera(c2w) for value in part)
        lines += [f"{number} {numbers} 1 {name}", f"1.5 2.5 -1 3 4 {points[7][0]}"]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = ["# 3D point list with one line of data per point:"]
    for number, xyz, track in points:
        rows.append(" ".join(map(str, [number, *xyz.tolist(), 9, 9, 9, -1, *np.ravel(track).tolist()])))
    (folder / "points3D.txt").write_text("\n".join(rows) + "\n")


def test_vggt_writes_a_camera_for_each_image_and_no_subfolder(tmp_path):
    """One PINHOLE per image; poses and points of float32; each point is a pixel of one image; a point cloud beside."""
    names = [f"IMG {number}.png" for number in range(6)]
    photos(tmp_path / "in" / "images", names)
    folder = tmp_path / "in" / "sparse"
    folder.mkdir()
    coarse = C2W.astype(np.float32).astype(np.float64)
    points = [(k + 1, xyz, [(k % 6 + 1, k // 6)]) for k, xyz in enumerate(POINTS.astype(np.float32))]
    rows = [
        (n + 1, name, n + 1, coarse[n], [(1.0, 2.0, number) for number, _, [(image, _)] in points if image == n + 1])
        for n, name in enumerate(names)
    ]
    (folder / "cameras.bin").write_bytes(cameras_bin([(n + 1, PINHOLE, MIDDLE) for n in range(6)]))
    (folder / "images.bin").write_bytes(images_bin(rows))
    (folder / "points3D.bin").write_bytes(points_bin(points))
    (folder / "points.ply").write_bytes(ply(POINTS))
    record = packed(tmp_path / "in", tmp_path / "out")
    assert record.views == [name[:-4] for name in names] and np.allclose(record.c2w, C2W, atol=1e-6)
    assert np.allclose(record.K[:, :2, 2], 0.5) and 0 < record.t_near < 2 < record.t_far


def test_depth_anything_3_writes_rigs_and_frames_and_images_lie_elsewhere(tmp_path):
    """Its calls of pycolmap, one after another: both kinds of files in one folder, a rig and a frame for each image."""
    pycolmap = pytest.importorskip("pycolmap")
    names = [f"{number}.png" for number in range(6)]
    photos(tmp_path / "photos", names)
    model = pycolmap.Reconstruction()
    points = [model.add_point3D(xyz, pycolmap.Track(), np.array([9, 9, 9], np.uint8)) for xyz in POINTS]
    for number, (name, c2w) in enumerate(zip(names, C2W, strict=True), 1):
        camera = pycolmap.Camera()
        camera.camera_id, camera.model, camera.params = number, pycolmap.CameraModelId.PINHOLE, np.array(MIDDLE)
        camera.width, camera.height = WIDTH, HEIGHT
        model.add_camera(camera)
        rig = pycolmap.Rig()
        rig.rig_id = number
        rig.add_ref_sensor(camera.sensor_id)
        model.add_rig(rig)
        image, frame = pycolmap.Image(), pycolmap.Frame()
        image.image_id, image.camera_id = number, number
        frame.frame_id, frame.rig_id = number, number
        frame.add_data_id(image.data_id)
        frame.rig_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(c2w[:3, :3].T), -c2w[:3, :3].T @ c2w[:3, 3])
        model.add_frame(frame)
        image.frame_id, image.name = number, name
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(np.array([1.0, 2.0]), points[number])])
        model.point3D(points[number]).track.add_element(number, 0)
        model.add_image(image)
    (tmp_path / "export").mkdir()
    model.write(str(tmp_path / "export"))
    model.write_text(str(tmp_path / "export"))
    assert {path.name for path in (tmp_path / "export").iterdir()} >= {"rigs.bin", "frames.bin", "images.txt"}
    record = packed(tmp_path / "export", tmp_path / "out", "--images", str(tmp_path / "photos"))
    assert len(record.views) == 6 and np.allclose(record.c2w, C2W, atol=1e-9)
    for path in (tmp_path / "export").glob("*.bin"):
        path.unlink()
    text = packed(tmp_path / "export", tmp_path / "text", "--images", str(tmp_path / "photos"))
    assert np.allclose(text.c2w, C2W, atol=1e-9) and text.t_near == pytest.approx(record.t_near)


def ply(points: np.ndarray) -> bytes:
    """As 3D Gaussian splatting stores points: positions, normals of zeros, colors."""
    kinds = {
        **dict.fromkeys(["x", "y", "z", "nx", "ny", "nz"], "float"),
        **dict.fromkeys(["red", "green", "blue"], "uchar"),
    }
    properties = "".join(f"property {kind} {name}\n" for name, kind in kinds.items())
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    return header.encode() + b"".join(struct.pack("<6f3B", *xyz, 0, 0, 0, 9, 9, 9) for xyz in points)


@pytest.fixture
def instantsplat(tmp_path) -> Path:
    """Three images with poses in sparse_3/0, points in a .ply file alone, no features; sparse_3/1 has more images,
    whose poses are interpolated between those: guesses.
    """
    names = [f"{number:03d}.png" for number in range(8)]
    photos(tmp_path / "in" / "images", names[:6])
    for name in names[6:]:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "in" / "images" / name)
    guess = C2W[0].copy()
    guess[:3, :3] = Rotation.from_euler("z", 5, degrees=True).as_matrix() @ guess[:3, :3]
    for part, chosen, poses in (("0", names[:3], C2W[:3]), ("1", names[3:], [guess] * 5)):
        folder = tmp_path / "in" / "sparse_3" / part
        folder.mkdir(parents=True)
        count = len(chosen)
        (folder / "cameras.bin").write_bytes(cameras_bin([(n + 1, PINHOLE, MIDDLE) for n in range(count)]))
        rows = [(n + 1, name, n + 1, c2w, []) for n, (name, c2w) in enumerate(zip(chosen, poses, strict=True))]
        (folder / "images.bin").write_bytes(images_bin(rows))
        lines = [f"{n + 1} PINHOLE {WIDTH} {HEIGHT} {' '.join(map(str, MIDDLE))}\n" for n in range(count)]
        (folder / "cameras.txt").write_text("# Camera list\n" + "".join(lines))
    (tmp_path / "in" / "sparse_3" / "0" / "points3D.ply").write_bytes(ply(POINTS))
    (tmp_path / "in" / "sparse_3" / "0" / "confidence.npy").touch()
    return tmp_path / "in"


def test_instantsplat_keeps_points_in_a_ply_file_and_guesses_beside_its_poses(instantsplat, tmp_path):
    record = packed(instantsplat, tmp_path / "out")
    assert record.views == ["000", "001", "002"] and np.allclose(record.c2w, C2W[:3], atol=1e-9)
    assert 1.2 < record.t_near < 2 < record.t_far < 2.8
    shutil.copytree(instantsplat / "sparse_3" / "0", instantsplat / "sparse" / "0")
    assert packed(instantsplat, tmp_path / "again").t_near == record.t_near


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "points3D.ply: cut short"),
        (lambda data: data.replace(b"little", b"big", 1), "no binary, little-endian .ply"),
        (lambda data: data.replace(b"float x", b"list u1 x", 1), "no binary, little-endian .ply"),
        (lambda data: data.replace(b"float nx", b"float x", 1), "no binary, little-endian .ply"),
        (lambda data: data.replace(b"vertex 200", b"vertex 9999999999999999", 1), "no binary, little-endian .ply"),
        (lambda data: data[:-27] + struct.pack("<f", np.nan) + data[-23:], "NaN"),
        (lambda data: b"", "no binary, little-endian .ply"),
    ],
)
def test_a_damaged_ply_file_is_one_line(instantsplat, tmp_path, capsys, damage, words):
    path = instantsplat / "sparse_3" / "0" / "points3D.ply"
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    assert words in Packing("colmap").refused(capsys, instantsplat, tmp_path / "out")
