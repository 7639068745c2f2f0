"""Surfaces of signed distances on a grid of tetrahedra, differentiable in the distances and in the grid's points
(DMTet, arXiv 2111.04276, section 3.1; its grid is a file, this one is counted).

Every cell of a cubic grid is cut into Kuhn's six tetrahedra, one for each order in which the three axes can be walked
from the cell's lowest corner to its highest, so that neighboring cells agree on the diagonals of their faces. An edge
is numbered by its lower end and the axes along which it leads up; no table of the grid is kept."""

from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vcgen.rendering.meshes import Meshes

#: Corners of a cell are numbered by the axes along which they lie high: bit 0 is x, bit 1 y, bit 2 z. The four of each
#: tetrahedron.
TETRAHEDRA = tuple((0, 1 << i, 1 << i | 1 << j, 7) for i, j, _ in permutations(range(3)))
#: Points of the grid move by less than this fraction of the spacing, along each axis. Differences of two then change by
#: less than a third, so that the matrix of a tetrahedron's edges along the axes stays dominated by its diagonal, and
#: the tetrahedron keeps its orientation.
REACH = 1 / 6


@dataclass(frozen=True)
class TetrahedralGrid:
    """Cubic cells, each cut into six tetrahedra.

    cells: along x, y and z. lowest: the world position of the lowest corner. spacing: side of a cell, world units.
    """

    cells: tuple[int, int, int]
    lowest: tuple[float, float, float]
    spacing: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Points along x, y and z."""
        x, y, z = self.cells
        return x + 1, y + 1, z + 1

    def points(self, device: torch.device | str = "cpu") -> Float[Tensor, "X Y Z 3"]:
        """(X, Y, Z, 3) world positions, before they move."""
        axes = [
            start + self.spacing * torch.arange(count, device=device)
            for start, count in zip(self.lowest, self.shape, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    def moved(self, moves: Float[Tensor, "X Y Z 3"]) -> Float[Tensor, "X Y Z 3"]:
        """(X, Y, Z, 3) world positions, moved along each axis by REACH * spacing * tanh(moves)."""
        return self.points(moves.device) + REACH * self.spacing * moves.tanh()


def surface(distances: Float[Tensor, "X Y Z"], points: Float[Tensor, "X Y Z 3"]) -> Meshes:
    """The surface between points of negative distance, inside, and the others; fronts face outwards.

    Closed where no point on the grid's border is inside; empty where none is at all. On an edge from a to b it passes
    at the fraction u = s_a / (s_a - s_b), by which vertices have their gradient: du/ds_a = -s_b / (s_a - s_b)^2.
    Vertices are ordered by their edges, faces by their cells. On a GPU the CPU waits for three counts: of cells, faces
    and edges.
    """
    device, flat = distances.device, distances.reshape(-1)
    stride = distances.shape[1] * distances.shape[2], distances.shape[2], 1
    steps = [sum(s * (corner >> axis & 1) for axis, s in enumerate(stride)) for corner in range(8)]
    step, bits, walks, cases = (
        torch.tensor(table, device="cpu").to(device, non_blocking=True)
        for table in (steps, (1, 2, 4, 8), TETRAHEDRA, CASES)
    )
    inside = distances.detach() < 0
    lowest = _mixed(inside)
    corners = inside.reshape(-1).index_select(0, (lowest[:, None] + step).reshape(-1)).reshape(-1, 8)
    pattern = (corners[:, walks] * bits).sum(-1)
    triangles = cases[torch.arange(len(TETRAHEDRA), device=device), pattern]  # (cells, tetrahedra, 2, 3)
    cell, tetrahedron, number = (triangles[..., 0] >= 0).nonzero(as_tuple=True)
    local = triangles[cell, tetrahedron, number]
    keys = (lowest[cell, None] + step[local // 8]) * 8 + local % 8
    edges, faces = torch.unique(keys, return_inverse=True)
    ends = edges // 8, edges // 8 + step[edges % 8]
    s_a, s_b = (flat.index_select(0, end)[:, None] for end in ends)
    a, b = (points.reshape(-1, 3).index_select(0, end) for end in ends)
    return Meshes(a + s_a / (s_a - s_b) * (b - a), faces)


def _mixed(inside: Bool[Tensor, "X Y Z"]) -> Int[Tensor, " cells"]:
    """The numbers of the lowest corners of cells whose corners are not all on one side."""
    some = every = inside
    for axis, count in enumerate(inside.shape):
        some = some.narrow(axis, 0, count - 1) | some.narrow(axis, 1, count - 1)
        every = every.narrow(axis, 0, count - 1) & every.narrow(axis, 1, count - 1)
    x, y, z = (some & ~every).nonzero(as_tuple=True)
    return (x * inside.shape[1] + y) * inside.shape[2] + z


def _triangles(corners: tuple[int, ...], pattern: int) -> list[list[int]]:
    """What separates a tetrahedron's corners in a pattern, bit i for corner i, from the others: around one that is
    alone a triangle, between two and two a quadrilateral, as two triangles. Always two, of three edges, numbered 8 *
    lower end + axes; -1 for none."""
    inside, outside = ([c for i, c in enumerate(corners) if (pattern >> i & 1) == side] for side in (1, 0))
    ring = [(a, b) for a in inside for b in outside]
    if len(ring) == 4:
        ring[2:] = ring[:1:-1]  # so that edges that follow each other share an end
    if ring:
        p, q, r = (_place(a) + _place(b) for a, b in ring[:3])
        outwards = torch.stack([*map(_place, outside)]).mean(0) - torch.stack([*map(_place, inside)]).mean(0)
        if torch.linalg.cross(q - p, r - p).dot(outwards) < 0:
            ring.reverse()
    edges = [8 * min(pair) + (pair[0] ^ pair[1]) for pair in ring]
    found = [[edges[0], *edges[i : i + 2]] for i in range(1, len(edges) - 1)]
    return [*found, [-1] * 3, [-1] * 3][:2]


def _place(corner: int) -> Float[Tensor, "3"]:
    """The place of a cell's corner in the unit cube."""
    return torch.tensor([float(corner >> axis & 1) for axis in range(3)])


#: (tetrahedra, patterns, 2, 3) of :func:`_triangles`.
CASES = [[_triangles(corners, pattern) for pattern in range(16)] for corners in TETRAHEDRA]
