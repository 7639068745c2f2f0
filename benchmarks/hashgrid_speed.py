"""How fast are the hash grid and what is rendered from it, beside what the memory of this machine can deliver in the
same run?

Points/s of look-ups, forward and with their gradient, for the published grid (16 levels) and that of
configs/realfusion.yaml; seconds per image of a ball that fills a fifth of the sphere, with every sample looked up and
with empty cells skipped, as color alone and lit (normals are differences of the density: six further look-ups at each
sample that counts), forward and with its gradient. Points/s of images count the samples on the rays, whether looked up
or skipped. `--quick`: fewer points and rounds. The copy reads and writes a block that fits no cache; a look-up reads 8
corners per level, which its bytes count, once."""

import json
import math

import torch
import yaml

from common import ROOT, command_line, hardware, save_results
from timing import measure, table
from vcgen.cameras import orbit, pinhole
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.fields.hashgrid import HashGrid, HashGridField
from vcgen.fields.occupancy import OccupancyGrid, OccupiedField
from vcgen.rendering.shading import Shading, render_shaded
from vcgen.rendering.volume import RenderOptions

#: The fraction of the field's sphere that the ball fills.
FILLED = 0.2
#: Along a ray of an image.
SAMPLES = 64
IMAGE = f"image, {SAMPLES} samples a ray"


def main() -> None:
    """Measure, print, file."""
    parser = command_line(__doc__, filed=True)
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own choice")
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    count, rounds, size = (1 << 12, 2, 16) if chosen.quick else (1 << 16, 7, 64)
    shipped = yaml.safe_load((ROOT / "configs" / "realfusion.yaml").read_text())["model"]["init_args"]["scene"]
    grids = {"16 levels to 2048": HashGrid(), "of realfusion.yaml": HashGrid(**shipped["grid"])}
    copied = torch.empty(1 << (24 if chosen.quick else 27), dtype=torch.uint8)
    runs = {"copy": copied.clone} | look_ups(grids, count) | images(ball(shipped), size)
    seconds = {name: timing.wall for name, timing in measure(runs, rounds).items()}
    bandwidth = 2 * len(copied) / seconds.pop("copy")
    rows = [row(name, value, grids, count, bandwidth, size) for name, value in seconds.items()]
    lines = table(
        f"Look-ups of {count} points, images of {size} x {size} rays; a copy moves {bandwidth / 1e9:.1f} GB/s",
        ["what", "ms", "million points/s", "fraction of the copy's bytes/s"],
        [
            [
                r["name"],
                f"{r['ms']:.1f}",
                f"{r['points_per_s'] / 1e6:.2f}",
                f"{r['fraction']:.0%}" if "fraction" in r else "-",
            ]
            for r in rows
        ],
    )
    print("\n".join(lines))
    figures = {
        "program": "hashgrid_speed",
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "copy_bytes_per_s": bandwidth,
        "rows": rows,
    }
    save_results("hashgrid_speed", figures, lines, chosen.quick or chosen.unfiled)
    print(json.dumps(figures))


def look_ups(grids: dict[str, HashGrid], count: int) -> dict:
    """Each grid, forward and with its gradient, on random points."""
    points = torch.rand(count, 3)

    def forward(grid: HashGrid) -> None:
        with torch.no_grad():
            grid(points)

    def both(grid: HashGrid) -> None:
        grid.table.grad = None
        grid(points).sum().backward()

    found = {f"{name}, forward": lambda grid=grid: forward(grid) for name, grid in grids.items()}
    return found | {f"{name}, forward and backward": lambda grid=grid: both(grid) for name, grid in grids.items()}


def ball(shipped: dict) -> HashGridField:
    """A field of the shipped kind that is dense in a ball alone: by its blob, with a network that says nothing of
    density.
    """
    scene = SceneHashGrid(HashGrid(**shipped["grid"]), hidden=shipped["hidden"], depth=shipped["depth"])
    with torch.no_grad():
        scene.decoder[-1].weight[0] = 0
        scene.decoder[-1].bias[0] = -30.0
    radius = shipped["radius"] * FILLED ** (1 / 3)
    # exp(-30 + 60 exp(-r^2 / 2 w^2)) passes 1 where the inner exponential is a half
    blob = 60.0, radius / math.sqrt(2 * math.log(2))
    return HashGridField(
        scene.grid, scene.decoder, torch.zeros(1, 3), torch.tensor([shipped["radius"]]), shipped["half_size"], blob
    )


def images(field: HashGridField, size: int) -> dict:
    """Images of the ball: every sample looked up or empty cells skipped, color alone or lit, forward or with the
    gradient.
    """
    occupancy = OccupancyGrid()
    occupancy.refresh(field)
    distance = 2.5 * float(field.radius[0])
    camera = orbit(torch.zeros(1), torch.zeros(1), distance, pinhole(1.1), distance / 2, distance * 2)
    rays = camera.rays(size, size)
    lights = {"": Shading(), ", lit": Shading("lambertian", torch.tensor([1.0, 0.0, 0.0]))}

    def draw(what, shading: Shading) -> torch.Tensor:
        return render_shaded(what, rays, RenderOptions(SAMPLES), shading, None, shading.kind != "albedo").rays.rgb

    def forward(*chosen) -> None:
        with torch.no_grad():
            draw(*chosen)

    def both(*chosen) -> None:
        field.grid.table.grad = None
        draw(*chosen).sum().backward()

    fields = {
        "dense": field,
        f"skipping ({occupancy.fraction():.0%} of cells occupied)": OccupiedField(field, occupancy),
    }
    ways = {"": forward, ", forward and backward": both}
    return {
        f"{IMAGE}{light}, {looked}{way}": lambda call=call, what=what, shading=shading: call(what, shading)
        for light, shading in lights.items()
        for way, call in ways.items()
        for looked, what in fields.items()
    }


def row(name: str, seconds: float, grids: dict[str, HashGrid], count: int, bandwidth: float, size: int) -> dict:
    """The figures of one line."""
    found = {"name": name, "ms": seconds * 1e3}
    grid = next((grid for label, grid in grids.items() if name.startswith(label)), None)
    if name.startswith(IMAGE):
        found["points_per_s"] = size**2 * SAMPLES / seconds
    if grid is not None:
        read = count * grid.levels * 8 * grid.features * grid.table.element_size()
        found |= {"points_per_s": count / seconds, "fraction": read / seconds / bandwidth}
    return found


if __name__ == "__main__":
    main()
