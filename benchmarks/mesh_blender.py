"""How do images of `vcgen data render` compare with those of Blender's Cycles, of the same meshes, cameras and light?

Stored: the test cars, 5 models in 3 variants, that were drawn with Cycles when the bundled data was made (48 samples a
pixel, Blender's own pixel filter); the developers' copy, if there. Drawn now, with `--bpy`: rings of 10,000 faces, one
with colors of vertices, one with a texture, 4 views of 128 pixels on one core. Cycles there has a box for its pixel
filter, as vcgen has. PSNR of colors over white, dB per image, averaged, against Cycles with REFERENCE samples.

  python benchmarks/mesh_blender.py                 the stored images: minutes
  python benchmarks/mesh_blender.py --bpy PYTHON    and those drawn now; PYTHON is one of a venv with `pip install bpy`
  --quick                                           fewer of all
"""

import io
import json
import subprocess
import tarfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import trimesh
from PIL import Image

from common import ROOT, command_line, hardware, save_results
from rasterizer import ring
from timing import measure, table
from vcgen.data.images.arrays import area_resize
from vcgen.meshes.cameras import SETS
from vcgen.meshes.draw import draw, drawable
from vcgen.meshes.parts import read_surface

SHARED = ROOT.parent / "shared" / "data"
VIEWS, SIZE = 4, 128
#: Samples a pixel of the Cycles that is timed, and of that which is taken for the truth.
SAMPLES, REFERENCE = (16, 48), 512


def main() -> None:
    """Measure, print, file."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("--bpy", type=Path, help="a Python that has the wheel bpy")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    stored, drawn, lines = [], [], []
    with TemporaryDirectory() as folder, torch.no_grad():
        if (SHARED / "cars128").is_dir():
            stored = stored_cars(Path(folder), 20 if chosen.quick else 4, 3 if chosen.quick else None)
            lines += stored_table(stored)
        if chosen.bpy:
            views, reference = (2, 64) if chosen.quick else (VIEWS, REFERENCE)
            drawn = [
                row
                for textured in (False, True)
                for row in beside(Path(folder), chosen.bpy, textured, views, reference)
            ]
            lines += drawn_table(drawn, reference)
    print("\n".join(lines))
    figures = {"program": "mesh_blender", "hardware": hardware(), "threads": 1, "stored": stored, "drawn": drawn}
    save_results("mesh_blender", figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))


def stored_cars(folder: Path, step: int, count: int | None) -> list[dict]:
    """PSNR of every ``step``-th view of the first ``count`` test cars (None: all) against the stored images."""
    rows = []
    with tarfile.open(SHARED / "cars128" / "cars_test.tar") as tar:
        for key in sorted({name.split("/")[1] for name in tar.getnames() if name.count("/") > 1})[:count]:
            name, variant = key.rsplit("_", 1)
            path = baked(SHARED / "meshes_lowpoly_cc0" / "cars" / f"{name}.npz", folder / f"{key}.ply")
            random = np.random.default_rng(zlib.crc32(key.encode()))  # of which the cameras take what is left
            surface, _ = read_surface(path, "y", 10_000).varied(int(variant), random).fitted("sphere")
            scene, cameras = drawable(surface), SETS["sphere"].make(random, 40)
            values = []
            for view in range(0, 40, step):
                theirs = np.array(Image.open(io.BytesIO(tar.extractfile(f"cars_test/{key}/rgb/{view:06d}.png").read())))
                ours = draw(scene, cameras[view], (SIZE, SIZE)).numpy()
                values.append([psnr(half(ours, side), half(theirs, side)) for side in (SIZE, SIZE // 2)])
            large, small = np.mean(values, 0).tolist()
            rows.append({"object": key, "views": len(values), "psnr_128": large, "psnr_64": small})
    return rows


def baked(source: Path, out: Path) -> Path:
    """A car as a .ply file with colors of corners."""
    arrays = np.load(source)
    corners, colors = arrays["vertices"][arrays["faces"]].reshape(-1, 3), arrays["corner_rgb"].reshape(-1, 3)
    faces = np.arange(len(corners)).reshape(-1, 3)
    trimesh.Trimesh(corners, faces, vertex_colors=colors, process=False).export(out)
    return out


def half(image: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) in [0, 1], over white, of straight (H, W, 4) bytes."""
    small = area_resize(image.astype(np.float32) / 255, (side, side))
    return small[..., :3] * small[..., 3:] + 1 - small[..., 3:]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """In dB."""
    return float(-10 * np.log10(np.square(one - other).mean()))


def beside(folder: Path, python: Path, textured: bool, views: int, reference: int) -> list[dict]:
    """Time and PSNR of our images and of Cycles' with few samples, against Cycles with many."""
    path, cameras = saved(folder, textured), SETS["turntable"].make(np.random.default_rng(0), views)
    content = {"c2w": cameras.c2w.tolist(), "K": cameras.K.expand(views, 3, 3).tolist()}
    (folder / "cameras.json").write_text(json.dumps(content))
    truth, _ = cycles(python, path, folder, reference, views)
    scene = drawable(read_surface(path, "y", 20_000).fitted("sphere")[0])
    images = [draw(scene, camera, (SIZE, SIZE)).numpy() for camera in cameras]
    timing = measure({"a view": lambda: draw(scene, cameras[0], (SIZE, SIZE))}, 5)["a view"]
    rows = [row("vcgen, 4 x 4 samples", textured, images, truth, timing.wall, timing.processor)]
    for samples in SAMPLES:
        images, seconds = cycles(python, path, folder, samples, views)
        wall, processor = np.median(seconds[1:], 0).tolist()  # the first view builds what the others use
        rows.append(row(f"Cycles, {samples} samples", textured, images, truth, wall, processor))
    return rows


def saved(folder: Path, textured: bool) -> Path:
    """The ring as a .glb file, in colors that change little from pixel to pixel."""
    mesh = ring(100, 50, "cpu")
    out = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    if textured:
        rows, columns = np.mgrid[:256, :256] / 256
        waves = 0.5 + 0.5 * np.sin(2 * np.pi * np.stack([3 * rows, 2 * columns, rows + columns], -1))
        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray((255 * waves).astype(np.uint8)), doubleSided=True
        )
        out.visual = trimesh.visual.TextureVisuals(uv=mesh.vertices[:, :2].numpy() + 0.5, material=material)
    else:
        out.visual.vertex_colors = (255 * (0.5 + 0.5 * np.sin(8 * mesh.vertices.numpy()))).astype(np.uint8)
    trimesh.Scene(out).export(path := folder / ("textured.glb" if textured else "colored.glb"))
    return path


def cycles(python: Path, mesh: Path, folder: Path, samples: int, views: int) -> tuple[list[np.ndarray], list]:
    """Images (H, W, 4) that Cycles draws, and (wall clock, processor) seconds of each."""
    out = folder / f"{mesh.stem}_{samples}"
    command = [python, ROOT / "benchmarks" / "blender_cycles.py", mesh, folder / "cameras.json", out, SIZE, samples]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    seconds = json.loads(done.stdout.strip().splitlines()[-1])["seconds"]
    return [np.array(Image.open(out / f"{number}.png")) for number in range(views)], seconds


def row(what: str, textured: bool, images: list, truth: list, wall: float, processor: float) -> dict:
    """The figures of one line."""
    values = [psnr(half(one, SIZE), half(other, SIZE)) for one, other in zip(images, truth, strict=True)]
    name = "textured" if textured else "colored"
    return {
        "object": name,
        "what": what,
        "psnr": np.mean(values).item(),
        "ms": 1e3 * wall,
        "processor_ms": 1e3 * processor,
    }


def stored_table(rows: list[dict]) -> list[str]:
    """Lines of a table."""
    cells = [[r["object"], str(r["views"]), f"{r['psnr_128']:.2f}", f"{r['psnr_64']:.2f}"] for r in rows]
    means = [f"{np.mean([r[key] for r in rows]):.2f}" for key in ("psnr_128", "psnr_64")]
    cells.append(["mean", str(sum(r["views"] for r in rows)), *means])
    return table("PSNR dB against stored images of Cycles", ["object", "views", "128 pixels", "64 pixels"], cells)


def drawn_table(rows: list[dict], reference: int) -> list[str]:
    """Lines of a table."""
    cells = [[r["object"], r["what"], f"{r['psnr']:.2f}", f"{r['ms']:.0f}", f"{r['processor_ms']:.0f}"] for r in rows]
    title = f"{SIZE} pixels, one core: PSNR dB against Cycles with {reference} samples; milliseconds a view, median"
    return table(title, ["object", "what", "PSNR", "wall clock", "processor"], cells)


if __name__ == "__main__":
    main()
