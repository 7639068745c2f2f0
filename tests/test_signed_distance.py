"""A density becomes signed distances: of a ball in closed form; what is empty, hollow, apart or too thin."""

import numpy as np
import pytest
import torch
import trimesh

from stand_in import Balls
from vcgen.errors import UserError
from vcgen.metrics.geometry import volume_iou
from vcgen.rendering.signed_distance import signed_distances
from vcgen.rendering.tetrahedra import surface

MIDDLE = torch.tensor([[0.1, -0.05, 0.08]])


def mesh_of(field, cells):
    grid, distances = signed_distances(field, cells)
    mesh = surface(distances, grid.points())
    return grid, distances, trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def test_a_ball_comes_back_as_one_smooth_ball_in_a_box_that_fits():
    grid, distances, mesh = mesh_of(Balls(MIDDLE, torch.tensor([0.3])), 32)
    truth = trimesh.creation.icosphere(4, 0.3)
    truth.apply_translation(MIDDLE[0].numpy())
    assert volume_iou(mesh, truth, 64) > 0.97
    assert mesh.is_watertight and mesh.euler_number == 2
    assert np.cos(mesh.face_adjacency_angles).mean() > 0.998  # exact distances: 0.9992
    exact = (grid.points() - MIDDLE).norm(dim=-1) - 0.3
    assert (exact - distances).abs().max() < 0.8 * grid.spacing  # to centers of half as large voxels
    assert grid.cells == (32, 32, 32) and grid.spacing * 32 == pytest.approx(0.6 * 1.2, rel=0.06)


def test_cells_are_cubes_in_a_box_as_long_as_the_object():
    two = Balls(torch.tensor([[-0.2, 0, 0], [0.2, 0, 0.0]]), torch.tensor([0.22, 0.22]))
    grid, distances, mesh = mesh_of(two, 24)
    assert grid.cells[0] == 24 and grid.cells[1] == grid.cells[2] < 20
    border = [distances[edge] for edge in (0, -1)] + [distances[:, edge] for edge in (0, -1)]
    assert min(part.min() for part in border) > 0 and mesh.is_watertight


def test_only_the_largest_part_is_kept_and_nothing_of_it_lies_past_the_sphere():
    apart = Balls(torch.tensor([[-0.2, 0, 0], [0.35, 0, 0.0]]), torch.tensor([0.2, 0.08]))
    assert mesh_of(apart, 24)[2].bounds[1, 0] < 0.05
    cut = mesh_of(Balls(torch.zeros(1, 3), torch.tensor([0.4]), bound=0.3), 24)[2]
    assert np.abs(cut.bounds).max() < 0.32


def test_a_shell_is_filled():
    class Shell(Balls):
        def density(self, points):
            return torch.where((points.norm(dim=-1) - 0.3).abs() < 0.04, 200.0, 0.0)

    mesh = mesh_of(Shell(torch.zeros(1, 3), torch.tensor([0.3])), 24)[2]
    assert mesh.euler_number == 2 and mesh.volume == pytest.approx(4 / 3 * np.pi * 0.34**3, rel=0.05)


def test_an_empty_scene_and_one_thinner_than_a_cell_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"^no surface: [^\n]*$"):
        signed_distances(Balls(MIDDLE, torch.tensor([0.3]), density=0.5), 16)

    class Sheet(Balls):
        def density(self, points):
            return torch.where((points[..., 0].abs() < 0.012) & (points.norm(dim=-1) < 0.4), 1000.0, 0.0)

    with pytest.raises(UserError, match=r"^what is solid in the scene is thinner than a cell [^\n]*raise the number"):
        signed_distances(Sheet(MIDDLE, torch.tensor([0.3])), 8)


def test_a_small_part_of_a_large_scene_is_not_cut_finer_than_memory_holds():
    small = Balls(torch.zeros(1, 3), torch.tensor([0.1]), bound=1.2)
    with pytest.raises(UserError, match=r"^the solid part is [^\n]* take at most \d+$") as refused:
        signed_distances(small, 64)
    most = int(str(refused.value).split()[-1])
    assert most < 64
    with pytest.raises(UserError, match="too fine"):
        signed_distances(small, most + 1)
