"""What limits the amortized field? Quality over core-hours of training, on objects that were trained on and on others.

python benchmarks/limits.py RUNS.json [...] [--figure OUT.svg]

A file lists runs, under "rows" or by itself: {"name", "data", "core_hours", "steps", and "trained", "held_out", "test",
each null, the figures by metric, or the folder of a `vcgen evaluate --out`, relative to the file}. "trained_groups"
and "held_out_groups" name the groups of objects that count, of an evaluation of more. The file that this program files
can be given again, beside others that continue it. Without one, the newest that is filed is shown.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from common import RESULTS, ROOT, hardware, save_results

SETS, METRICS = ("trained", "held_out", "test"), ("psnr", "ssim", "lpips_squeeze", "gmsd")
#: Colors of the data sets' curves, in the order in which they come.
COLORS = ("#3b6fb6", "#c2572b", "#4a8f4f", "#7a5ba6", "#8a8a8a")
#: Of a panel: width, height, and the margin that labels need.
WIDTH, HEIGHT, MARGIN = 380, 260, 46


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="RUNS.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "outputs" / "limits.svg")
    parser.add_argument("--quick", action="store_true", help="the newest filed runs again, filing nothing")
    options = parser.parse_args()
    again = options.quick or not options.files
    files = sorted(RESULTS.glob("*_limits_*.json"))[-1:] if again else options.files
    runs = [run for file in files for run in read(file)]
    if not runs:
        parser.error("no runs are filed: give a RUNS.json")
    lines = table(runs)
    print("\n".join(lines))
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    options.figure.write_text(figure(runs))
    print(f"figure: {options.figure}")
    figures = {"program": "limits", "hardware": hardware(), "rows": runs}
    save_results("limits", figures, lines, quick=again)
    print(json.dumps(figures))


def read(file: Path) -> list[dict]:
    """The runs of a file, folders replaced by their figures."""
    rows = json.loads(file.read_text())
    rows = rows["rows"] if isinstance(rows, dict) else rows
    for row in rows:
        for name in SETS:
            groups, found = row.pop(f"{name}_groups", None), row.get(name)
            row[name] = mean(file.parent / found, groups) if isinstance(found, str) else found
    return rows


def mean(folder: Path, groups: Sequence[str] | None) -> dict[str, float]:
    """Means over images of an evaluation, of some groups of its objects or of all."""
    images = json.loads((folder / "results.json").read_text())["images"]
    chosen = [image for image in images if groups is None or image["group"] in groups]
    metrics = [metric for metric in METRICS if metric in chosen[0]]
    return {metric: round(sum(image[metric] for image in chosen) / len(chosen), 4) for metric in metrics}


def table(runs: Sequence[dict]) -> list[str]:
    """Markdown: the test objects in all measures, those held out and those trained on, and how much better the last
    are.
    """
    lines = [
        "| run | data | core-hours | steps | test PSNR dB | SSIM | LPIPS-squeeze | GMSD | held out PSNR dB | SSIM | "
    ]
    lines[0] += "LPIPS | GMSD | trained PSNR dB | trained - test |"
    lines.append("| --- " * 14 + "|")
    for run in runs:
        trained, held_out, test = (run[name] or {} for name in SETS)
        cells = [f"{run['core_hours']:.2f}", run["steps"] or ""]
        cells += [figure_of(values, metric) for values in (test, held_out) for metric in METRICS]
        gap = f"{trained['psnr'] - test['psnr']:+.2f}" if "psnr" in trained and "psnr" in test else ""
        cells += [figure_of(trained, "psnr"), gap]
        lines.append(f"| {run['name']} | {run['data']} | " + " | ".join(map(str, cells)) + " |")
    return lines


def figure_of(values: dict[str, float], metric: str) -> str:
    """A printed number, or nothing."""
    return f"{values[metric]:.{2 if metric == 'psnr' else 3}f}" if metric in values else ""


def figure(runs: Sequence[dict]) -> str:
    """An SVG of two panels, PSNR and LPIPS over core-hours: the test objects filled and, per data set, connected, what
    was trained on hollow.
    """
    names = list(dict.fromkeys(run["data"] for run in runs))
    panels = [
        panel(runs, names, metric, title, number * (WIDTH + MARGIN))
        for number, (metric, title) in enumerate((("psnr", "PSNR, dB"), ("lpips_squeeze", "LPIPS-squeeze")))
    ]
    keys = [
        f"<circle cx='{MARGIN + 8}' cy='{HEIGHT + 52 + 18 * n}' r='4' fill='{COLORS[n % len(COLORS)]}'/>"
        f"<text x='{MARGIN + 18}' y='{HEIGHT + 56 + 18 * n}'>{name}: test filled, trained hollow</text>"
        for n, name in enumerate(names)
    ]
    size = f"{2 * (WIDTH + MARGIN)} {HEIGHT + 60 + 18 * len(names)}"
    style = "font-family='sans-serif' font-size='12' fill='#333'"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {size}' {style}>" + "".join(panels + keys) + "</svg>\n"
    )


def panel(runs: Sequence[dict], names: Sequence[str], metric: str, title: str, left: float) -> str:
    """One panel, its left edge at ``left``."""
    points = [
        (run["core_hours"], (run[kind] or {}).get(metric), names.index(run["data"]), kind)
        for run in runs
        for kind in ("test", "trained")
    ]
    points = [point for point in points if point[1] is not None]
    across, up = ([point[axis] for point in points] for axis in (0, 1))
    low, high = min(up), max(up)
    spread, longest = (high - low) or 1.0, max(across)

    def place(hours: float, value: float) -> tuple[float, float]:
        return left + MARGIN + hours / longest * (WIDTH - MARGIN), 20 + (high - value) / spread * (HEIGHT - 20)

    marks = [f"<text x='{left + MARGIN}' y='12'>{title}</text>"]
    for value in (low, (low + high) / 2, high):
        y = place(0, value)[1]
        marks.append(f"<text x='{left}' y='{y + 4:.1f}'>{value:.2f}</text>")
        marks.append(f"<path d='M{left + MARGIN} {y:.1f}H{left + WIDTH}' stroke='#ddd'/>")
    marks += [
        f"<text x='{place(hours, high)[0]:.1f}' y='{HEIGHT + 18}' text-anchor='middle'>{hours:.2g}</text>"
        for hours in (0, longest / 2, longest)
    ]
    marks.append(f"<text x='{left + WIDTH / 2}' y='{HEIGHT + 34}'>core-hours</text>")
    for number, color in zip(range(len(names)), COLORS * len(names), strict=False):
        curve = sorted(place(*point[:2]) for point in points if point[2:] == (number, "test"))
        marks.append(
            f"<polyline points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in curve)}' fill='none' stroke='{color}'/>"
        )
        for hours, value, of, kind in points:
            x, y = place(hours, value)
            fill = color if kind == "test" else "white"
            if of == number:
                marks.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{fill}' stroke='{color}'/>")
    return "".join(marks)


if __name__ == "__main__":
    main()
