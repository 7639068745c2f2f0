"""Surfaces of signed distances on tetrahedra: closed, outward, exact where the distance is linear; gradients in closed
form.
"""

import math
from itertools import permutations, product

import pytest
import torch

from vcgen.rendering.meshes import Meshes
from vcgen.rendering.tetrahedra import TETRAHEDRA, TetrahedralGrid, surface

RADIUS = 0.6


def cube(cells: int) -> TetrahedralGrid:
    """Of side 2 about the origin."""
    return TetrahedralGrid((cells,) * 3, (-1.0,) * 3, 2 / cells)


def ball(cells: int, grown: torch.Tensor | float = 0.0) -> Meshes:
    points = cube(cells).points().double()
    return surface(points.norm(dim=-1) - RADIUS - grown, points)


def areas(mesh: Meshes) -> torch.Tensor:
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return torch.linalg.cross(b - a, c - a) / 2


def volume(mesh: Meshes) -> torch.Tensor:
    """By the divergence theorem; positive where faces look outwards."""
    return (mesh.vertices[mesh.faces[:, 0]] * areas(mesh)).sum() / 3


@pytest.mark.parametrize(
    ("cells", "fraction", "slope"), [(16, 0.9785, 1.0043), (32, 0.9946, 1.0016), (64, 0.9986, 1.0002)]
)
def test_a_ball_is_a_closed_sphere_whose_volume_grows_by_its_area(cells, fraction, slope):
    grown = torch.zeros((), dtype=torch.float64, requires_grad=True)
    mesh = ball(cells, grown)
    found = volume(mesh)
    found.backward()
    assert found.item() / (4 / 3 * math.pi * RADIUS**3) == pytest.approx(fraction, abs=1e-4)
    assert grown.grad.item() / areas(mesh).norm(dim=1).sum().item() == pytest.approx(slope, abs=1e-4)
    edges = mesh.edges
    assert (edges.of_faces.reshape(-1).bincount() == 2).all()
    directions = edges.forward.reshape(-1) * 2 - 1
    assert (
        not torch.zeros(len(edges.ends), dtype=torch.int64).index_add(0, edges.of_faces.reshape(-1), directions).any()
    )
    assert len(mesh.vertices) - len(edges.ends) + len(mesh.faces) == 2  # Euler's characteristic of a sphere


def test_a_linear_distance_gives_its_plane_however_the_points_have_moved():
    torch.manual_seed(0)
    grid = TetrahedralGrid((5, 6, 7), (-0.4, -0.6, -0.5), 0.16)
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    points = grid.moved(3 * torch.randn(*grid.shape, 3)).double()
    mesh = surface(points @ normal - 0.03, points)
    assert (mesh.vertices @ normal - 0.03).abs().max() < 1e-14
    assert (mesh.face_normals() @ normal).min() > 1 - 1e-9  # outwards is where distances are positive
    assert mesh.edge_cosines().min() > 1 - 1e-9


def test_vertices_follow_the_distances_at_their_edge_by_the_quotient_rule():
    """Of one cell, whose lowest corner alone is inside: its vertex on the x axis."""
    distances = torch.tensor([-0.2, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], dtype=torch.float64).reshape(2, 2, 2)
    distances.requires_grad_()
    grid = TetrahedralGrid((1, 1, 1), (0.0, 0.0, 0.0), 1.0)
    mesh = surface(distances, grid.points().double())
    assert len(mesh.vertices) == 7  # on three sides, three diagonals of faces, and the main one
    along_x = mesh.vertices[(mesh.vertices[:, 1:] == 0).all(1)]
    assert along_x.shape == (1, 3) and along_x[0, 0].item() == pytest.approx(0.25)
    along_x[0, 0].backward()
    slopes = distances.grad
    assert slopes[0, 0, 0].item() == pytest.approx(-0.6 / 0.8**2)  # -s_b / (s_a - s_b)^2
    assert slopes[1, 0, 0].item() == pytest.approx(-0.2 / 0.8**2)  # s_a / (s_a - s_b)^2
    assert slopes.count_nonzero() == 2


def test_six_tetrahedra_fill_a_cell_and_stay_upright_however_far_points_move():
    corners = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], dtype=torch.float64)
    places = corners[torch.tensor(TETRAHEDRA)]
    signs = torch.linalg.det(places[:, 1:] - places[:, :1]).sign()
    assert signs.tolist() == [1.0, -1.0, -1.0, 1.0, 1.0, -1.0]  # of the six orders of three axes
    assert sorted(TETRAHEDRA) == sorted({(0, 1 << i, 1 << i | 1 << j, 7) for i, j, _ in permutations(range(3))})
    grid = TetrahedralGrid((1, 1, 1), (0.0, 0.0, 0.0), 1.0)
    rest = grid.points().reshape(8, 3)
    farthest = torch.tensor(list(product([-1e9, 1e9], repeat=12)))[torch.randperm(4096)[:500]].reshape(-1, 4, 3)
    for tetrahedron, sign in zip(TETRAHEDRA, signs, strict=True):
        order = [4 * (c & 1) + 2 * (c >> 1 & 1) + (c >> 2) for c in tetrahedron]
        moves = torch.zeros(len(farthest), 8, 3)
        moves[:, order] = farthest
        moved = torch.stack([grid.moved(one.reshape(2, 2, 2, 3)).reshape(8, 3) for one in moves])[:, order]
        assert (moved - rest[order]).abs().max() < 1 / 6 + 1e-6
        assert (sign * torch.linalg.det((moved[:, 1:] - moved[:, :1]).double()) > 0).all()


def test_every_pattern_of_signs_separates_inside_from_outside():
    """All 256 cells, surrounded by outside: closed, and as much inside as the signs say, up to rounding of corners."""
    grid = TetrahedralGrid((3, 3, 3), (0.0, 0.0, 0.0), 1.0)
    points = grid.points().double()
    for number in range(1, 256):
        distances = torch.ones(grid.shape, dtype=torch.float64)
        distances[1:3, 1:3, 1:3] = torch.tensor([1 - 2 * (number >> c & 1) for c in range(8)]).reshape(2, 2, 2).double()
        mesh = surface(distances, points)
        assert (mesh.edges.of_faces.reshape(-1).bincount() == 2).all(), number
        assert volume(mesh) > 0


def test_nothing_inside_gives_no_faces():
    grid = cube(2)
    mesh = surface(torch.ones(grid.shape), grid.points())
    assert mesh.vertices.shape == (0, 3) and mesh.faces.shape == (0, 3)


def test_all_tensors_are_made_on_the_device_of_the_distances():
    grid = cube(4)
    points, moves = grid.points(), torch.zeros(*grid.shape, 3)
    with torch.device("meta"):  # what names no device lands there, and cannot meet the others
        mesh = surface(points.norm(dim=-1) - RADIUS, grid.moved(moves))
        mesh.edge_cosines()
    assert mesh.vertices.device.type == mesh.faces.device.type == "cpu"


def test_normals_of_neighboring_faces_agree_but_at_the_edges_of_a_box():
    bent = Meshes(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1]]), torch.tensor([[0, 1, 2], [0, 3, 1]]))
    cosines = bent.edge_cosines()
    assert cosines.sort().values.tolist() == pytest.approx([0.0, 1.0, 1.0, 1.0, 1.0])
