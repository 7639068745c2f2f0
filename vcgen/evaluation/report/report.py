"""report.md and report.html: the table with its definitions beside it, and what best, median and worst objects look
like.
"""

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vcgen.evaluation.report.escaping import html_text, markdown_code, markdown_text
from vcgen.evaluation.report.page import PAGE
from vcgen.evaluation.report.row import latex_row, markdown_row, scored
from vcgen.evaluation.report.table import difference_rows, distance_rows, number, rows, title
from vcgen.evaluation.results import Results
from vcgen.io import write_bytes
from vcgen.types import Rendering
from vcgen.visualization.images import LARGEST_ERROR, depth_image, error_image, png_bytes, to_uint8

#: (object key, view indices) -> first input images (V, 3, H, W), true images (V, 3, H, W), Rendering (V, ...)
Images = Callable[[str, Sequence[int]], tuple[Tensor, Tensor, Rendering]]

#: Below this many groups a bootstrap interval is too narrow to lean on, and the report says so.
FEW_GROUPS = 20


def write_report(results: Results, folder: Path, images: Images) -> None:
    """Write report.md and report.html (self-contained: images inside, no scripts, nothing from the network) into
    ``folder``.
    """
    write_bytes(folder / "report.md", markdown(results).encode())
    write_bytes(folder / "report.html", page(results, images).encode())


def summary(results: Results) -> str:
    """One sentence: what was scored, on how much."""
    counts, protocol = results.counts, results.protocol
    names = ", ".join(results.skipped)
    skipped = f" LEFT OUT, since they cannot be read: {len(results.skipped)} objects, {names}." if names else ""
    few = " So few groups make rough intervals." if counts["groups"] < FEW_GROUPS else ""
    capped = (
        f", {counts['psnr_capped']} of them at the PSNR cap, as identical images are" if counts["psnr_capped"] else ""
    )
    return (
        f"Protocol {protocol['name']}: {protocol['summary']}, "
        f"{protocol['size'][0]} x {protocol['size'][1]} pixels on gray level {protocol['background']:g}; "
        f"{counts['objects']} objects in {counts['groups']} groups, {counts['images']} images{capped}.{skipped}{few}"
    )


def markdown(results: Results) -> str:
    """The whole of report.md."""
    parts = [
        f"# {markdown_text(results.name)} on {markdown_text(results.protocol['name'])}",
        "",
        markdown_text(summary(results)),
        "",
    ]
    parts += [*_markdown_table(rows(results)), "", "Brackets: 95 % intervals.", ""]
    if results.distances:
        parts += [*_markdown_table(distance_rows(results)), ""]
    if results.baselines:
        parts += ["Paired differences on the same objects:", "", *_markdown_table(difference_rows(results)), ""]
    missing = [
        f"- **{markdown_text(name)}** is missing: {markdown_text(reason)}" for name, reason in results.missing.items()
    ]
    parts += missing + [""] * bool(missing)
    parts += [
        "## Definitions",
        "",
        *(f"- **{markdown_text(k)}**: {markdown_text(v)}" for k, v in _definitions(results).items()),
        "",
    ]
    parts += [
        "## Provenance",
        "",
        *(f"- {markdown_text(k)}: {markdown_code(v)}" for k, v in _provenance(results).items()),
        "",
    ]
    parts += ["## A row for a paper's table", "", markdown_text(scored(results)), ""]
    parts += ["```latex", latex_row(results), "```", "", "```markdown", markdown_row(results), "```", ""]
    return "\n".join(parts)


def page(results: Results, images: Images) -> str:
    """The whole of report.html."""
    missing = "".join(
        f"<p class='warning'>{html_text(k)} is missing: {html_text(v)}</p>" for k, v in results.missing.items()
    )
    differences = difference_rows(results)
    paired = f"<h2>Paired differences on the same objects</h2>{_html_table(differences)}" if differences else ""
    headings = ["object", "group", "views", *(title(results, metric) for metric in results.metrics)]
    objects = [
        [
            entry["object"],
            entry["group"],
            str(entry["views"]),
            *(number(results.column(m), entry[m]) for m in results.metrics),
        ]
        for entry in results.ranked()
    ]
    return Template(PAGE).substitute(
        title=html_text(f"{results.name} on {results.protocol['name']}"),
        summary=html_text(f"{results.protocol['description']} {summary(results)}"),
        table=_html_table(rows(results)) + (_html_table(distance_rows(results)) if results.distances else ""),
        missing=missing,
        paired=paired,
        definitions=_html_list(_definitions(results)),
        examples="".join(_example(results, label, entry, images) for label, entry in chosen_objects(results)),
        error_scale=f"{LARGEST_ERROR:g}",
        histogram=histogram([entry["psnr"] for entry in results.objects]),
        objects=_html_table([headings, *objects]),
        provenance=_html_list(_provenance(results)),
        row="\n\n".join(map(html.escape, (latex_row(results), markdown_row(results)))),
    )


def chosen_objects(results: Results) -> list[tuple[str, dict[str, Any]]]:
    """The best, median and worst object by mean PSNR, without repeats."""
    ranked = results.ranked()
    places = {"best object": 0, "median object": len(ranked) // 2, "worst object": len(ranked) - 1}
    kept = {place: label for label, place in reversed(places.items())}
    return [(label, ranked[place]) for label, place in places.items() if kept[place] == label]


def histogram(values: Sequence[float], bins: int = 24, width: int = 640, height: int = 150) -> str:
    """An SVG histogram of per-object PSNR in dB."""
    low, high = min(values), max(values)
    step = (high - low) / bins or 1.0
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / step), bins - 1)] += 1
    bar, base = width / bins, height - 24
    bars = "".join(
        f"<rect x='{i * bar + 1:.1f}' y='{base - base * count / max(counts):.1f}' width='{bar - 2:.1f}' "
        f"height='{base * count / max(counts):.1f}'>"
        f"<title>{count} objects, {low + i * step:.2f} to {low + (i + 1) * step:.2f} dB</title></rect>"
        for i, count in enumerate(counts)
    )
    ends = (
        f"<text x='0' y='{height - 6}'>{low:.2f} dB</text><text x='{width}' y='{height - 6}'"
        f" text-anchor='end'>{high:.2f} dB</text>"
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='histogram of PSNR per object'>{bars}{ends}</svg>"
    )


def _example(results: Results, label: str, entry: dict[str, Any], render_views: Images) -> str:
    """One object: its best, median and worst view, each as input, truth, rendering, error and depth."""
    images = sorted((i for i in results.images if i["object"] == entry["object"]), key=lambda image: -image["psnr"])
    images = [images[place] for place in sorted({0, len(images) // 2, len(images) - 1})]
    context, truth, rendering = render_views(entry["object"], [image["view"] for image in images])
    lines = []
    for position, image in enumerate(images):
        panels = {
            "input": to_uint8(context[position]),
            "truth": to_uint8(truth[position]),
            "rendering": to_uint8(rendering.rgb[position]),
            "error": error_image(rendering.rgb[position].clamp(0, 1).numpy(), truth[position].numpy()),
            "depth": depth_panel(rendering.depth[position, 0], rendering.alpha[position, 0]),
        }
        cells = "".join(
            f"<figure><img alt='{n}' src='{data_address(p)}'><figcaption>{n}</figcaption></figure>"
            for n, p in panels.items()
        )
        values = "<br>".join(
            f"{html_text(title(results, metric)[:-2])} <b>{number(results.column(metric), image[metric])}</b>"
            for metric in results.metrics
        )
        lines.append(
            f"<div class='row'>{cells}<p>view {image['view']} ({html_text(image['view_name'])})<br>{values}</p></div>"
        )
    heading = f"{label.capitalize()}: {html_text(entry['object'])}, mean PSNR {entry['psnr']:.2f} dB"
    return f"<h3>{heading}</h3>{''.join(lines)}"


def depth_panel(depth: Tensor, alpha: Tensor) -> NDArray[np.uint8]:
    """Depth (height, width) as colors over the range that is seen; white where nothing is, or all is equally far."""
    visible = depth[alpha > 0.5]
    if len(visible) == 0 or visible.max() == visible.min():
        return np.full((*depth.shape, 3), 255, np.uint8)
    return depth_image(depth.numpy(), float(visible.min()), float(visible.max()), alpha.numpy())


def data_address(pixels: NDArray[np.uint8]) -> str:
    """A ``data:`` address that holds the pixels (height, width, 3) as PNG."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode()


def _definitions(results: Results) -> dict[str, str]:
    return results.definitions | {name: distance.definition for name, distance in results.distances.items()}


def _provenance(results: Results) -> dict[str, str]:
    hashes = {f"{name} hash": value for name, value in results.hashes.items()}
    return {name: str(value) for name, value in (hashes | results.versions | results.run).items()}


def _markdown_table(table: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(markdown_text, row)) + " |" for row in table]
    return [lines[0], "| --- |" + " ---: |" * (len(table[0]) - 1), *lines[1:]]


def _html_table(table: list[list[str]]) -> str:
    head = "".join(f"<th>{html_text(cell)}</th>" for cell in table[0])
    rows = (["<br>".join(map(html_text, cell.split("; "))) for cell in row] for row in table[1:])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _html_list(entries: dict[str, str]) -> str:
    return (
        "<dl>"
        + "".join(f"<dt>{html_text(name)}</dt><dd>{html_text(value)}</dd>" for name, value in entries.items())
        + "</dl>"
    )
