"""What does an image of a mesh cost, with and without its gradient, beside a plain z-buffer in numpy in the same run?

A closed surface of 10,000 and 100,000 faces fills two fifths of an image of 64, 128 and 512 pixels: colors of vertices
and alpha with smooth outlines, then the same with the gradient with respect to vertices and colors. One view a call,
and eight. The table of edges, needed anew where faces change, is a line of its own. The baseline draws the same face
numbers, by testing each face with every pixel of its bounding box and sorting by depth, one view, without colors,
outlines and gradients. `--quick`: fewer rounds and sizes."""

import json
import math
import resource

import numpy as np
import torch

from common import command_line, hardware, save_results
from timing import Timing, measure, table
from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.metrics.geometry import lattice_hits
from vcgen.rendering.antialias import compose
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import rasterize

#: Faces -> quads along and around a ring.
RINGS = {10_000: (100, 50), 100_000: (400, 125)}


def main() -> None:
    """Measure, print, file."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own choice")
    parser.add_argument("--device", default="cpu", help="of the rasterizer; the baseline runs on the CPU")
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    rows, before = [], memory()
    for faces, sides in list(RINGS.items())[: 1 if chosen.quick else None]:
        mesh = ring(*sides, chosen.device)
        for size in (64,) if chosen.quick else (64, 128, 512):
            rows += measured(mesh, faces, size, 2 if chosen.quick else 7)
    lines = table(
        "Milliseconds per view: wall clock, median and least; processor; and how often the baseline's wall clock it"
        " goes into",
        ["faces", "pixels", "what", "median", "least", "processor", "baseline / this"],
        [
            [
                f"{r['faces']:,}",
                str(r["size"]),
                r["what"],
                *(f"{r[k]:.1f}" for k in ("ms", "least_ms", "processor_ms", "ratio")),
            ]
            for r in rows
        ],
    )
    peak = memory() - before
    lines += [f"Peak memory, baseline included, above that of the loaded libraries: {peak:.0f} MiB", ""]
    print("\n".join(lines))
    figures = {
        "program": "rasterizer",
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "device": chosen.device,
        "peak_mib": peak,
        "rows": rows,
    }
    save_results("rasterizer", figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))


def memory() -> float:
    """MiB that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def ring(along: int, around: int, device: str) -> Meshes:
    """A bumpy ring of 2 * along * around faces that fits a sphere of radius 0.5."""
    i, j = torch.meshgrid(torch.arange(along), torch.arange(around), indexing="ij")
    a, b = 2 * math.pi * i / along, 2 * math.pi * j / around
    thick = 0.16 * (1 + 0.15 * torch.sin(5 * a) * torch.cos(3 * b))
    wide = 0.3 + thick * b.cos()
    vertices = torch.stack([wide * a.cos(), wide * a.sin(), thick * b.sin()], -1).reshape(-1, 3)
    corner = [
        ((i + down) % along * around + (j + right) % around).reshape(-1)
        for down, right in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    faces = torch.cat(
        [torch.stack([corner[0], corner[1], corner[2]], 1), torch.stack([corner[0], corner[2], corner[3]], 1)]
    )
    return Meshes(vertices.to(device), faces.to(device))


def cameras(views: int, device: str) -> Cameras:
    """Around the ring, from above, at distance 1.3."""
    angles = torch.arange(views) * 45.0 + 20
    return orbit(angles, torch.full_like(angles, 50.0), 1.3, pinhole(1.0), 0.8, 1.8).to(device)


def measured(mesh: Meshes, faces: int, size: int, rounds: int) -> list[dict]:
    """Figures of one mesh at one size."""
    colors, device = torch.rand_like(mesh.vertices), str(mesh.vertices.device)
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    mesh.edges  # noqa: B018  (made once for a mesh whose faces stay)

    def forward(views: int) -> None:
        with torch.no_grad():
            raster = rasterize(mesh, cameras(views, device), (size, size))
            compose(raster, raster.interpolate(colors))
        wait()

    def both(views: int) -> None:
        vertices, leaves = mesh.vertices.clone().requires_grad_(), colors.clone().requires_grad_()
        raster = rasterize(mesh.moved(vertices), cameras(views, device), (size, size))
        seen = compose(raster, raster.interpolate(leaves))
        (seen.rgb.sum() + seen.alpha.sum()).backward()
        wait()

    def edges() -> None:
        _ = Meshes(mesh.vertices, mesh.faces).edges
        wait()

    calls = {
        "baseline": lambda: baseline(mesh, cameras(1, "cpu"), size),
        "forward": lambda: forward(1),
        "forward and backward": lambda: both(1),
    }
    if size == 64:
        calls |= {
            "forward, 8 views": lambda: forward(8),
            "forward and backward, 8 views": lambda: both(8),
            "table of edges": edges,
        }
    with torch.no_grad():
        same = (
            rasterize(mesh, cameras(1, device), (size, size)).face[0].cpu().numpy()
            == baseline(mesh, cameras(1, "cpu"), size)
        ).mean()
    assert same > 0.999, f"baseline and rasterizer agree on {same:.2%} of the pixels alone"
    timings = measure(calls, rounds)
    return [row(name, timing, timings["baseline"], faces, size) for name, timing in timings.items()]


def row(name: str, timing: Timing, base: Timing, faces: int, size: int) -> dict:
    """The figures of one line, per view."""
    each = 1e3 / (8 if "8 views" in name else 1)
    return {
        "faces": faces,
        "size": size,
        "what": name,
        "ms": timing.wall * each,
        "least_ms": timing.least * each,
        "processor_ms": timing.processor * each,
        "ratio": base.wall * 1e3 / (timing.wall * each),
    }


def baseline(mesh: Meshes, camera: Cameras, size: int) -> np.ndarray:
    """(size, size) numbers of the nearest faces, -1 where there is none: all pixels of all faces' bounding boxes, in
    float64.
    """
    points, depth = camera.project(mesh.vertices.cpu()[None])
    faces = mesh.faces.cpu().numpy()
    flat, inverse = points[0].double().numpy()[faces], 1 / depth[0].double().numpy()[faces]
    hits = lattice_hits(flat, (np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size)
    order = np.argsort((hits.weights * inverse[hits.face]).sum(-1))  # the nearest is written last
    seen = np.full((size, size), -1)
    seen[hits.second[order], hits.first[order]] = hits.face[order]
    return seen


if __name__ == "__main__":
    main()
