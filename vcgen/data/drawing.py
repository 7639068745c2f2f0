"""Images of packed scenes, drawn with Pillow: contact sheets, camera positions, epipolar lines. Functions return PNG
bytes unless they say otherwise."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vcgen.data.epipolar import epipolar_lines, fundamental_matrix
from vcgen.data.shards.record import SceneRecord, decode_views
from vcgen.visualization.images import png_bytes

COLORS = (
    (230, 25, 75),
    (60, 160, 60),
    (0, 110, 220),
    (245, 130, 48),
    (145, 30, 180),
    (0, 150, 160),
    (200, 150, 0),
    (240, 50, 230),
)
AXIS_COLORS = {"x": (200, 0, 0), "y": (0, 140, 0), "z": (0, 0, 200)}
TILE = 160
PANEL = 560
#: Ways of looking at cameras: the world axes that lie to the right and upwards, and what that is called.
SIDES = ((0, 1, "from above"), (0, 2, "from the side"))


def contact_sheet(records: list[SceneRecord], columns: int = 8) -> bytes:
    """One row of evenly chosen views a scene, over light gray where transparent; a single scene fills four rows."""
    rows = []
    for record in records:
        count = columns * (4 if len(records) == 1 else 1)
        indices = np.unique(np.linspace(0, len(record.views) - 1, min(count, len(record.views))).astype(int))
        tiles = [_image(record, int(index), TILE) for index in indices]
        rows += [(record.key, tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    width, height = rows[0][1][0].size
    sheet = Image.new("RGB", (columns * (width + 4), len(rows) * (height + 18)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (key, tiles) in enumerate(rows):
        pen.text((2, row * (height + 18) + 2), key, fill="black")
        for column, tile in enumerate(tiles):
            sheet.paste(tile, (column * (width + 4), row * (height + 18) + 15))
    return png_bytes(sheet)


def draw_cameras(record: SceneRecord) -> bytes:
    """The scene's cameras from above (x right, y up) and from the side (x right, z up): frusta, axes, and the circle of
    ray ends.
    """
    depth = 0.12 * max(np.ptp(record.c2w[:, :3, 3], axis=0).max(), 1e-6)
    return png_bytes(side_by_side(frusta_panels(record.key, record.c2w, record.K, depth)))


def frusta_panels(
    name: str,
    c2w: np.ndarray,
    K: np.ndarray,
    depth: float,
    radius: float | None = None,
    sides: Sequence[tuple[int, int, str]] = SIDES,
) -> list[Image.Image]:
    """Cameras (n, 4, 4) with intrinsics (n, 3, 3) as pyramids of height ``depth``, world units, one panel for each of
    ``sides``; and the circle of ``radius`` about the origin."""
    corners = _frustum_corners(c2w, K, depth)
    reach = (radius or 0.0) * np.array([[-1.0] * 3, [1.0] * 3])
    everything = np.concatenate([corners.reshape(-1, 3), c2w[:, :3, 3], reach])
    panels = []
    for right, upward, title in sides:
        panels.append(Image.new("RGB", (PANEL, PANEL), "white"))
        _draw_panel(
            ImageDraw.Draw(panels[-1]), c2w[:, :3, 3], corners, everything, (right, upward), f"{name} {title}", radius
        )
    return panels


def side_by_side(panels: list[Image.Image]) -> Image.Image:
    """Panels of PANEL x PANEL pixels in a row."""
    sheet = Image.new("RGB", (len(panels) * PANEL, PANEL), "white")
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number * PANEL, 0))
    return sheet


def draw_epipolar_lines(record: SceneRecord, others: int = 3) -> bytes:
    """Points of one view, and in ``others`` further views the lines on which the same spots of the object must lie, in
    one color each.
    """
    first = 0
    points = choose_points(record, first, len(COLORS))
    chosen = [first, *_neighbors(record, first, others)]
    scale = max(1, round(480 / max(record.size)))
    tiles = []
    for number, index in enumerate(chosen):
        tile = _image(record, index, max(record.size) * scale)
        pen, (width, height) = ImageDraw.Draw(tile), tile.size
        F = fundamental_matrix(record.c2w[first], record.K[first], record.c2w[index], record.K[index])
        for point, color in zip(points, COLORS, strict=False):
            if number == 0:
                x, y = point * [width, height]
                pen.ellipse([x - 5, y - 5, x + 5, y + 5], outline=color, width=3)
            else:
                _draw_line(pen, epipolar_lines(F, point[None], (height, width))[0], (width, height), color)
        pen.text((4, 4), f"view {record.views[index]}", fill="black")
        tiles.append(tile)
    sheet = Image.new("RGB", (sum(tile.width + 4 for tile in tiles), tiles[0].height), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number * (tiles[0].width + 4), 0))
    return png_bytes(sheet)


def choose_points(record: SceneRecord, index: int, count: int) -> np.ndarray:
    """(n, 2) normalized points, n <= count, where the view has most detail, spread out, on the object where coverage or
    background tells.

    Fewer than ``count`` are returned where the object is too small to hold them apart.
    """
    rgb, alpha = decode_views(record, [index])
    image = rgb[0] if alpha is None else rgb[0] * alpha[0] + 1 - alpha[0]
    mask = object_mask(record, index)
    # The small constant lets points fall on featureless parts of the object, never beside it.
    score = (np.hypot(*np.gradient(image.mean(0))) + 1e-6) * (mask if mask.any() else 1)
    v, u = np.meshgrid(np.arange(record.size[0]) + 0.5, np.arange(record.size[1]) + 0.5, indexing="ij")
    points: list[list[float]] = []
    while len(points) < count and score.max() > 0:
        row, column = np.unravel_index(np.argmax(score), score.shape)
        points.append([(column + 0.5) / record.size[1], (row + 0.5) / record.size[0]])
        score = score * (np.hypot(v - v[row, column], u - u[row, column]) > max(record.size) / 8)
    return np.array(points)


def object_mask(record: SceneRecord, index: int) -> np.ndarray:
    """(H, W) bool: coverage above one half, or any channel that differs from the known background; all true where it is
    not known.
    """
    rgb, alpha = decode_views(record, [index])
    if alpha is not None:
        return alpha[0, 0] > 0.5
    if record.background == "none":
        return np.ones(record.size, dtype=bool)
    return np.abs(rgb[0] - (1.0 if record.background == "white" else 0.0)).max(0) > 0.02


def _neighbors(record: SceneRecord, first: int, count: int) -> list[int]:
    """Views taken from nearby, nearest first, spread over the closest third: enough baseline, still much in common."""
    distances = np.linalg.norm(record.c2w[:, :3, 3] - record.c2w[first, :3, 3], axis=-1)
    order = [int(i) for i in np.argsort(distances, kind="stable") if i != first]
    count = min(count, len(order))
    ranks = np.linspace(len(order) / 20, max(len(order) / 3, count - 1), count).astype(int)
    return [order[rank] for rank in ranks]


def _image(record: SceneRecord, index: int, longest: int) -> Image.Image:
    """A view over light gray, resized so that its longer side has ``longest`` pixels."""
    rgb, alpha = decode_views(record, [index])
    blended = rgb[0] if alpha is None else rgb[0] * alpha[0] + 0.9 * (1 - alpha[0])
    image = Image.fromarray(np.round(blended.transpose(1, 2, 0) * 255).astype(np.uint8))
    factor = longest / max(image.size)
    shape = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(shape, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)


def _frustum_corners(c2w: np.ndarray, K: np.ndarray, depth: float) -> np.ndarray:
    """(V, 4, 3) world positions of the image corners at z-depth ``depth``."""
    corners = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=float)
    local = corners[None] @ np.linalg.inv(K).transpose(0, 2, 1) * depth
    return local @ c2w[:, :3, :3].transpose(0, 2, 1) + c2w[:, None, :3, 3]


def _draw_panel(
    pen: ImageDraw.ImageDraw,
    centers: np.ndarray,
    corners: np.ndarray,
    extent: np.ndarray,
    axes: tuple[int, int],
    title: str,
    radius: float | None,
) -> None:
    flat = extent[:, axes]
    middle, half = (flat.min(0) + flat.max(0)) / 2, 0.55 * max(np.ptp(flat, axis=0).max(), 1e-6)

    def place(points: np.ndarray) -> list[tuple[float, float]]:
        scaled = (np.atleast_2d(points)[:, axes] - middle) / half * (PANEL / 2) * [1, -1] + PANEL / 2
        return [tuple(point) for point in scaled]

    for axis in axes:
        name = "xyz"[axis]
        tip = np.eye(3)[axis] * half * 0.25
        pen.line(place(np.stack([np.zeros(3), tip])), fill=AXIS_COLORS[name], width=3)
        pen.text(place(tip)[0], name, fill=AXIS_COLORS[name])
    if radius is not None:
        (x, y), reach = place(np.zeros(3))[0], radius / half * PANEL / 2
        pen.ellipse([x - reach, y - reach, x + reach, y + reach], outline=(0, 110, 220), width=2)
    for number, center in enumerate(centers):
        color = (230, 25, 75) if number == 0 else (90, 90, 90)
        pen.line(place(corners[number][[0, 1, 2, 3, 0]]), fill=color)
        for corner in corners[number]:
            pen.line(place(np.stack([center, corner])), fill=color)
    pen.text((6, 6), f"{title} (red: first camera; axes: {half * 0.25:.3g} units long)", fill="black")


def _draw_line(pen: ImageDraw.ImageDraw, line: np.ndarray, size: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Draw a x + b y + c = 0 (pixels) across the whole image."""
    a, b, c = line
    reach = 2.0 * sum(size)
    foot = -c * np.array([a, b])
    start, end = foot - reach * np.array([-b, a]), foot + reach * np.array([-b, a])
    if np.abs(np.stack([start, end])).max() < 1e7:
        pen.line([tuple(start), tuple(end)], fill=color, width=2)
