"""Objects of flat polygons, each of one color: boxes, round bars and panels laid on them."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vcgen.meshes.surface import UPRIGHT, Surface, to_linear

#: Across the plane x = 0.
MIRROR = np.array([-1, 1, 1])
#: Corners of a square in the plane of x and z.
SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
#: Triangles with less area than this are left out.
LEAST_AREA = 1e-7
Range = tuple[float, float]


class Polygons:
    """Collects triangles and their sRGB colors, y up. ``mirror`` adds the mirror image across x = 0, too."""

    def __init__(self) -> None:
        self.triangles: list[np.ndarray] = []
        self.colors: list[np.ndarray] = []

    def face(self, points: Sequence[Any] | np.ndarray, color: np.ndarray, mirror: bool = False) -> None:
        """A convex polygon (n, 3), counterclockwise as seen from outside."""
        p = np.asarray(points, float)
        for i in range(1, len(p) - 1):
            self.triangles.append(p[[0, i, i + 1]])
            self.colors.append(color)
        if mirror:
            self.face((p * MIRROR)[::-1], color)

    def strip(self, lines: Sequence[np.ndarray], color: np.ndarray, mirror: bool = False) -> None:
        """The quads between each line of points (n, 3) and the next."""
        for p, q in itertools.pairwise(lines):
            for i in range(len(p) - 1):
                self.face([p[i], p[i + 1], q[i + 1], q[i]], color, mirror)

    def box(
        self,
        x: Range,
        y: Range,
        z: Range,
        color: np.ndarray,
        top: Range = (1, 1),
        lean: float = 0.0,
        mirror: bool = False,
    ) -> None:
        """Between (low, high) along each axis. top: factors on the upper side's extent in x and z; lean: its shift in
        z.
        """
        middle = np.array([x[0] + x[1], z[0] + z[1]]) / 2
        half = np.array([x[1] - x[0], z[1] - z[0]]) / 2
        low = np.insert(middle + SQUARE * half, 1, y[0], 1)
        high = np.insert(middle + [0, lean] + SQUARE * half * top, 1, y[1], 1)
        self.face(low, color, mirror)
        self.face(high[::-1], color, mirror)
        for i, j in zip(range(4), (1, 2, 3, 0), strict=True):
            self.face([low[j], low[i], high[i], high[j]], color, mirror)

    def bar(
        self,
        start: Sequence[float] | np.ndarray,
        end: Sequence[float] | np.ndarray,
        radius: float,
        sides: int,
        color: np.ndarray,
        cap: np.ndarray | None = None,
        taper: float = 1.0,
        mirror: bool = False,
    ) -> None:
        """A prism from start to end. cap: color of its end; taper: factor on the radius there."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        axis = (end - start) / np.linalg.norm(end - start)
        u = np.cross(axis, [0, 1, 0] if abs(axis[1]) < 0.9 else [1, 0, 0])
        u /= np.linalg.norm(u)
        angle = 2 * np.pi * (np.arange(sides) + 0.5) / sides
        ring = radius * (np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * np.cross(axis, u))
        a, b = start + ring, end + taper * ring
        for i in range(sides):
            j = (i + 1) % sides
            self.face([a[i], a[j], b[j], b[i]], color, mirror)
        self.face(b, color if cap is None else cap, mirror)
        self.face(a[::-1], color, mirror)

    def panel(
        self,
        quad: Sequence[Any] | np.ndarray,
        across: Range,
        along: Range,
        color: np.ndarray,
        lift: float = 0.012,
        mirror: bool = False,
    ) -> None:
        """A part of a quad (lower left, lower right, upper right, upper left, seen from outside), lifted off it."""
        q = np.asarray(quad, float)
        normal = np.cross(q[1] - q[0], q[3] - q[0])
        offset = lift * normal / (np.linalg.norm(normal) + 1e-9)

        def at(s: float, t: float) -> np.ndarray:
            return (1 - t) * ((1 - s) * q[0] + s * q[1]) + t * ((1 - s) * q[3] + s * q[2]) + offset

        places = zip(
            (across[0], across[1], across[1], across[0]), (along[0], along[0], along[1], along[1]), strict=True
        )
        self.face([at(s, t) for s, t in places], color, mirror)

    def surface(self, shade: float = 0.0) -> Surface:
        """What was collected, z up and front to -y as a glTF file's, with flat normals. shade: by how much colors are
        darker at the bottom than at the top, as palettes of some toys are.
        """
        triangles, colors = np.array(self.triangles), np.array(self.colors)
        areas = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
        triangles, colors = triangles[areas > LEAST_AREA], colors[areas > LEAST_AREA]
        height = triangles[..., 1]
        bright = 1 - shade * (height.max() - height) / max(np.ptp(height), 1e-9)
        rgb = to_linear(torch.tensor((colors[:, None] * bright[..., None]).clip(0, 1), dtype=torch.float32))
        flat = Surface.opaque(torch.tensor(triangles), rgb)
        return flat.moved(torch.tensor(UPRIGHT["y"], dtype=torch.float64))
