"""A scene of colored dots seen by known cameras, as a COLMAP model in any world and through any lens."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from scenes import looking_inwards
from vcgen.data.images.lenses import CAMERA_MODELS, Lens

#: Height, width and focal length in pixels.
HEIGHT, WIDTH, FOCAL = 90, 120, 130.0
#: Where the dots are in the world, and which channels they light up.
DOTS = np.array([[0.25, 0.0, 0.1], [-0.2, 0.2, 0.0], [0.0, -0.25, -0.15]])
C2W = looking_inwards(6, distance=2.0, seed=3)
#: One camera of every model, its coefficients as large as those of real lenses.
COEFFICIENTS = {
    **{name: (0.03,) * len(model.coefficients) for name, model in CAMERA_MODELS.items()},
    "SIMPLE_RADIAL": (-0.2,),
    "OPENCV": (-0.1, 0.02, 0.005, -0.004),
    "THIN_PRISM_FISHEYE": (0.02, -0.01, 0.002, 0.001, 0.0, 0.0, 0.003, -0.002),
    "RAD_TAN_THIN_PRISM_FISHEYE": (0.02, -0.01, 0, 0, 0, 0, 0.002, 0.001, 0.003, -0.002, 0.001, 0),
    "FOV": (0.8,),
    "EUCM": (0.5, 1.1),
}
#: Some turn, scale and place, as a solver's.
WORLD = np.eye(4)
WORLD[:3, :3], WORLD[:3, 3] = 3.0 * Rotation.from_rotvec([1.0, -0.5, 0.3]).as_matrix(), [4.0, -2.0, 7.0]
#: The world of the model is that of the dots.
UNMOVED = np.eye(4)
#: What solvers find besides: a ball of points around the origin.
POINTS = np.random.default_rng(5).uniform(-0.3, 0.3, (200, 3))


def parameters(model: str, coefficients: tuple[float, ...]) -> list[float]:
    """Those of a camera of this model, its principal point off the middle."""
    return [FOCAL] * CAMERA_MODELS[model].focals + [WIDTH / 2 + 2, HEIGHT / 2 - 3, *coefficients]


def project(points: np.ndarray, c2w: np.ndarray, lens: Lens) -> np.ndarray:
    """World points (n, 3) -> pixels (n, 2) of the image that the lens makes."""
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    x, y = lens.bend(local[:, 0] / local[:, 2], local[:, 1] / local[:, 2])
    return np.stack([FOCAL * x + WIDTH / 2 + 2, FOCAL * y + HEIGHT / 2 - 3], -1)


def draw(path: Path, spots: np.ndarray) -> None:
    """A black image with a soft red, green and blue dot."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    dots = [np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 8) for u, v in spots]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * np.stack(dots, -1)).astype(np.uint8)).save(path)


def write_scene(
    folder: Path,
    kind: str = "txt",
    model: str = "PINHOLE",
    coefficients: tuple[float, ...] = (),
    world: np.ndarray = UNMOVED,
    place: str = "sparse/0",
    points: np.ndarray = POINTS,
    c2w: np.ndarray = C2W,
) -> None:
    """Write images and model. world: (4, 4) similarity, from the dots' world to that of the model."""
    scale = np.cbrt(np.linalg.det(world[:3, :3]))
    poses = world @ c2w
    poses[:, :3, :3] /= scale
    names = [f"cam/view_{number}.png" for number in range(len(c2w))]
    for name, pose in zip(names, c2w, strict=True):
        draw(folder / "images" / name, project(DOTS, pose, Lens(model, coefficients)))
    write = {"txt": write_text, "bin": write_binary}[kind]
    (folder / place).mkdir(parents=True, exist_ok=True)
    write(folder / place, model, parameters(model, coefficients), names, poses, points @ world[:3, :3].T + world[:3, 3])


def world_to_camera(c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """COLMAP's quaternion (w, x, y, z) and translation."""
    x, y, z, w = Rotation.from_matrix(c2w[:3, :3].T).as_quat()
    return np.array([w, x, y, z]), -c2w[:3, :3].T @ c2w[:3, 3]


def write_text(folder: Path, model: str, values: list[float], names: list[str], c2w: np.ndarray, points: np.ndarray):
    """Ids neither begin at 0 nor are in order; every other image has no features, the others show point 9."""
    camera = f"7 {model} {WIDTH} {HEIGHT} {' '.join(map(repr, values))}\n"
    (folder / "cameras.txt").write_text(f"# Camera list\n{camera}")
    lines = ["# Image list with two lines of data per image:"]
    for number, (name, pose) in enumerate(zip(names, c2w, strict=True)):
        numbers = " ".join(repr(float(value)) for part in world_to_camera(pose) for value in part)
        lines += [f"{50 - number} {numbers} 7 {name}", "1.5 2.5 -1 3.0 4.0 9" if number % 2 else ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    tracks = {9: "".join(f" {50 - number} 1" for number in range(1, len(names), 2))}
    rows = [f"{i} {x!r} {y!r} {z!r} 255 0 0 0.5{tracks.get(i, '')}" for i, (x, y, z) in enumerate(points.tolist())]
    (folder / "points3D.txt").write_text("# 3D point list\n" + "\n".join(rows) + "\n")


def write_binary(folder: Path, model: str, values: list[float], names: list[str], c2w: np.ndarray, points: np.ndarray):
    """The same, little-endian."""
    camera = struct.pack(f"<QIiQQ{len(values)}d", 1, 7, CAMERA_MODELS[model].number, WIDTH, HEIGHT, *values)
    (folder / "cameras.bin").write_bytes(camera)
    parts = [struct.pack("<Q", len(names))]
    for number, (name, pose) in enumerate(zip(names, c2w, strict=True)):
        features = struct.pack("<2dq2dq", 1.5, 2.5, -1, 3.0, 4.0, 9) if number % 2 else b""
        quaternion, translation = world_to_camera(pose)
        parts += [struct.pack("<I7dI", 50 - number, *quaternion, *translation, 7), name.encode() + b"\0"]
        parts += [struct.pack("<Q", len(features) // 24), features]
    (folder / "images.bin").write_bytes(b"".join(parts))
    track = [value for number in range(1, len(names), 2) for value in (50 - number, 1)]
    rows = []
    for i, point in enumerate(points):
        seen = track if i == 9 else []
        rows.append(struct.pack(f"<Q3d3BdQ{len(seen)}I", i, *point, 255, 0, 0, 0.5, len(seen) // 2, *seen))
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", len(rows)) + b"".join(rows))
