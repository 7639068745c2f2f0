"""The figure of benchmarks/fewshot.py: quality over the number of input views, a line for each member, and one for
copying an input view.

  python benchmarks/fewshot_figure.py benchmarks/results/DATE_fewshot_HARDWARE.json docs/images/representations.png
"""

import itertools
import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from fewshot_tables import HELD_OUT_VIEWS
from vcgen.io import write_bytes
from vcgen.visualization.images import png_bytes

#: Okabe and Ito's colors, which the color-blind can tell apart.
COLORS = ("000000", "E69F00", "56B4E9", "009E73", "A89F00", "0072B2", "D55E00", "CC79A7")
#: What nothing was trained for.
GRAYS = {"copying": "999999", "mean_image": "555555"}
SIZE, MARGIN, LEGEND = (620, 400), 46, 150


def draw(rows: list[dict], path: Path, metric: str = "psnr") -> Path:
    """Write the longest training of each member as a PNG; points stand at equal distances along the number of views."""
    longest = {r["name"]: max(o["minutes"] for o in rows if o["name"] == r["name"]) for r in rows}
    kept = [r for r in rows if r["minutes"] == longest[r["name"]] and HELD_OUT_VIEWS not in r["name"]]
    # of one view the nearest is that one
    kept = [{**r, "name": "copying" if r["name"].startswith("copy") else r["name"]} for r in kept]
    views, values = sorted({r["views"] for r in kept}), [r[metric] for r in kept]
    low, high = min(values) - 0.5, max(values) + 0.5
    width, height = SIZE[0] - LEGEND - 2 * MARGIN, SIZE[1] - 2 * MARGIN
    image = Image.new("RGB", SIZE, "white")
    canvas = ImageDraw.Draw(image)

    def place(count: int, value: float) -> tuple[float, float]:
        step = views.index(count) / max(1, len(views) - 1)
        return MARGIN + step * width, MARGIN + (high - value) / (high - low) * height

    for tick in range(int(low) + 1, int(high) + 1):
        y = place(views[0], tick)[1]
        canvas.line([(MARGIN, y), (MARGIN + width, y)], fill="#dddddd")
        canvas.text((MARGIN - 22, y - 6), str(tick), fill="black")
    for count in views:
        canvas.text((place(count, low)[0] - 4, MARGIN + height + 8), str(count), fill="black")
    canvas.text((MARGIN, MARGIN - 24), metric.upper() + (" in dB" if metric == "psnr" else ""), fill="black")
    canvas.text((MARGIN + width / 2 - 30, SIZE[1] - 18), "input views", fill="black")
    order = sorted(
        dict.fromkeys(r["name"] for r in kept), key=lambda n: -max(r[metric] for r in kept if r["name"] == n)
    )
    colors = dict(zip([name for name in order if name not in GRAYS], itertools.cycle(COLORS))) | GRAYS
    for number, name in enumerate(order):
        color = "#" + colors[name]
        points = sorted((r["views"], r[metric]) for r in kept if r["name"] == name)
        line = [place(*point) for point in points]
        if len(line) > 1:
            canvas.line(line, fill=color, width=2)
        for x, y in line:
            canvas.ellipse([x - 3, y - 3, x + 3, y + 3], fill=color)
        canvas.rectangle(
            [SIZE[0] - LEGEND, MARGIN + 18 * number, SIZE[0] - LEGEND + 10, MARGIN + 18 * number + 10], fill=color
        )
        canvas.text((SIZE[0] - LEGEND + 16, MARGIN + 18 * number - 1), name.replace("_", " "), fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, png_bytes(image))
    return path


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["rows"], Path(sys.argv[2]))
