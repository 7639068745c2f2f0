"""Distances between two triangle meshes, each with one written definition. The unit is that of the meshes; vcgen's own
data fit a sphere of radius 0.5."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vcgen.errors import UserError

if TYPE_CHECKING:
    from trimesh import Trimesh

#: metric -> the definition printed beside it.
DEFINITIONS = {
    "chamfer": (
        "mean of the two mean distances from a sample of one surface to the nearest sample of the other; not squared,"
        " not summed"
    ),
    "fscore": (
        "harmonic mean of precision and recall: the fractions of samples of prediction and truth that lie nearer than"
        " the threshold to a sample of the other"
    ),
    "iou": "cells whose center is inside both meshes over cells whose center is inside either, see `occupancy`",
}


class Geometry(NamedTuple):
    """What :func:`compare` finds; chamfer in units of the meshes, the others in [0, 1]. Higher is better except for
    chamfer.
    """

    chamfer: float
    fscore: float
    precision: float
    recall: float
    iou: float


class Grid(NamedTuple):
    """Cubic cells. low: (3,) the first cell's lowest corner. cell: edge of a cell. shape: cells along each axis."""

    low: NDArray[np.float64]
    cell: float
    shape: tuple[int, int, int]

    def centers(self, axis: int) -> NDArray[np.float64]:
        """Coordinates of the cells' centers along an axis."""
        return self.low[axis] + self.cell * (np.arange(self.shape[axis]) + 0.5)


def compare(
    prediction: "Trimesh",
    truth: "Trimesh",
    threshold: float = 0.05,
    samples: int = 30_000,
    resolution: int = 64,
    seed: int = 0,
    align: Literal["none", "box"] = "none",
) -> Geometry:
    """All metrics of two meshes.

    threshold: of the F-score, in units of the meshes. samples: points per surface. resolution: cells along the longest
    edge of the box around both. align: "none" compares them where they are, which is right when the reference camera is
    known; "box" first moves and scales each by its bounding box (:func:`boxed`). Raises UserError for a mesh without
    faces."""
    for name, mesh in (("predicted", prediction), ("true", truth)):
        if len(mesh.faces) == 0:
            raise UserError(f"the {name} mesh has no faces, so there is nothing to compare")
    if align == "box":
        prediction, truth = boxed(prediction), boxed(truth)
    to_truth, to_prediction = surface_distances(prediction, truth, samples, seed)
    precision, recall = float((to_truth < threshold).mean()), float((to_prediction < threshold).mean())
    fscore = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    chamfer = (float(to_truth.mean()) + float(to_prediction.mean())) / 2
    return Geometry(chamfer, fscore, precision, recall, volume_iou(prediction, truth, resolution))


def boxed(mesh: "Trimesh") -> "Trimesh":
    """A copy whose bounding box has its center at the origin and a diagonal of 1, so that it fits a sphere of radius
    0.5.
    """
    low, high = mesh.bounds
    moved = mesh.copy()
    moved.vertices = (mesh.vertices - (low + high) / 2) / np.linalg.norm(high - low)
    return moved


def surface_distances(
    first: "Trimesh", second: "Trimesh", samples: int = 30_000, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Euclidean distances (samples,) from points of the first surface to the nearest point of the second, and the other
    way round.

    Points are drawn uniformly by area, both with the same seed: equal meshes have distance 0, equal surfaces with other
    triangles about half of sqrt(area / samples), which is the resolution of the measurement."""
    from scipy.spatial import cKDTree
    from trimesh.sample import sample_surface

    points = [np.asarray(sample_surface(mesh, samples, seed=seed)[0]) for mesh in (first, second)]
    return cKDTree(points[1]).query(points[0])[0], cKDTree(points[0]).query(points[1])[0]


def volume_iou(first: "Trimesh", second: "Trimesh", resolution: int = 64) -> float:
    """Shared over joint volume, on cells that divide the longest edge of the box around both meshes into
    ``resolution``; 0 where both are empty."""
    low = np.minimum(first.bounds[0], second.bounds[0])
    extent = np.maximum(first.bounds[1], second.bounds[1]) - low
    cell = float(extent.max()) / resolution
    # not one cell more for a rounding error in the division
    x, y, z = (int(n) for n in np.maximum(1, np.ceil(extent / cell - 1e-6)))
    grid = Grid(low, cell, (x, y, z))
    inside = [occupancy(mesh, grid) for mesh in (first, second)]
    joint = int((inside[0] | inside[1]).sum())
    return int((inside[0] & inside[1]).sum()) / joint if joint else 0.0


def occupancy(mesh: "Trimesh", grid: Grid) -> NDArray[np.bool_]:
    """Which cells' centers lie inside a mesh: ``grid.shape``.

    From each center six rays leave along the axes. Faces crossed outward count 1, inward -1; a ray whose sum is not 0
    votes for inside, and more than three votes are needed. In a closed mesh all six agree (the sum is the winding
    number, so parts may overlap); where one side is missing, as in many scans and hand-made models, five still do."""
    votes = np.zeros(grid.shape, np.int8)
    for axis in range(3):
        above, below = _crossings(mesh, grid, axis)
        votes += np.moveaxis((above != 0).astype(np.int8) + (below != 0), -1, axis)
    return votes > 3


def _crossings(mesh: "Trimesh", grid: Grid, axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Signed crossings of the rays from each center up and down ``axis``; the two other axes come first in the result,
    in order.
    """
    across = [i for i in range(3) if i != axis]
    triangles = np.asarray(mesh.triangles, np.float64)
    # A line through an edge would meet two faces or none: all lines are moved by an irrational ten-thousandth of a
    # cell.
    lines = [
        grid.centers(i) + grid.cell * 1e-4 * offset
        for i, offset in zip(across, (np.sqrt(2) - 1, np.sqrt(3) - 1), strict=True)
    ]
    hits = lattice_hits(triangles[:, :, across], *lines)
    height = (hits.weights * triangles[hits.face][:, :, axis]).sum(-1)
    centers = grid.centers(axis)
    counts = np.zeros((len(lines[0]), len(lines[1]), len(centers) + 1), np.int32)
    np.add.at(counts, (hits.first, hits.second, np.searchsorted(centers, height)), hits.sign)
    below = counts.cumsum(-1)  # crossings under center k are those filed under 0 ... k
    return below[..., -1:] - below[..., :-1], below[..., :-1]


class Hits(NamedTuple):
    """Which points of a lattice lie inside which flat triangles, one entry per pair.

    face: the triangle's number. first, second: the point's, along both axes. weights: (n, 3) barycentric coordinates.
    sign: 1 for a triangle whose corners go from the first axis to the second, else -1.
    """

    face: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weights: NDArray[np.float64]
    sign: NDArray[np.int32]


def lattice_hits(triangles: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]) -> Hits:
    """All pairs of triangles (n, 3, 2) and points (first[i], second[j]) strictly inside; first and second ascend."""
    low, high = triangles.min(1), triangles.max(1)
    start = np.searchsorted(first, low[:, 0]), np.searchsorted(second, low[:, 1])
    count = np.searchsorted(first, high[:, 0]) - start[0], np.searchsorted(second, high[:, 1]) - start[1]
    pairs = count[0] * count[1]  # points in the triangle's bounding rectangle
    face = np.repeat(np.arange(len(triangles)), pairs)
    number = np.arange(len(face)) - np.repeat(pairs.cumsum() - pairs, pairs)
    i, j = start[0][face] + number // count[1][face], start[1][face] + number % count[1][face]
    corners = triangles[face] - np.stack([first[i], second[j]], -1)[:, None]
    # areas of the triangles that the point makes with each edge
    parts = np.stack([_cross(corners[:, (k + 1) % 3], corners[:, (k + 2) % 3]) for k in range(3)], -1)
    inside = (parts > 0).all(-1) | (parts < 0).all(-1)
    face, i, j, parts = face[inside], i[inside], j[inside], parts[inside]
    whole = parts.sum(-1)
    return Hits(face, i, j, parts / whole[:, None], np.sign(whole).astype(np.int32))


def _cross(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
