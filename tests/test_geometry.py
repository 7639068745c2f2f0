"""Mesh metrics against closed forms: spheres, boxes, overlapping and open ones."""

import numpy as np
import pytest
import trimesh

from vcgen.errors import UserError
from vcgen.metrics.geometry import Grid, boxed, compare, occupancy, surface_distances, volume_iou

UNIT = [[0, 0, 0], [1, 1, 1]]


def sphere(radius):
    return trimesh.creation.icosphere(subdivisions=4, radius=radius)


def box(shift=(0.0, 0.0, 0.0), bounds=UNIT):
    return trimesh.creation.box(bounds=np.asarray(bounds, float) + shift)


def square(shift):
    """The unit square in the xy plane, moved along x."""
    return trimesh.Trimesh(
        np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]) + np.array([shift, 0, 0]), [[0, 1, 2], [0, 2, 3]]
    )


def test_concentric_spheres():
    small, large = sphere(0.3), sphere(0.4)
    found = compare(small, large)
    assert found.chamfer == pytest.approx(0.1, rel=0.01)
    assert found.iou == pytest.approx((0.3 / 0.4) ** 3, rel=0.01)
    assert found.fscore == 0 and compare(small, large, threshold=0.11).fscore == 1


def test_a_mesh_equals_itself():
    assert compare(sphere(0.5), sphere(0.5)) == (0.0, 1.0, 1.0, 1.0, 1.0)


def test_equal_surfaces_with_other_triangles_differ_by_the_sampling_alone():
    one, other = sphere(0.5), trimesh.creation.uv_sphere(0.5, count=[64, 64])
    chamfer = compare(one, other, samples=10_000).chamfer
    # of a Poisson process of n points per area: the mean nearest distance is 1 / (2 sqrt(n))
    assert chamfer == pytest.approx(0.5 * np.sqrt(np.pi / 10_000), rel=0.05)


def test_half_overlapping_squares():
    """Half of each square lies on the other; of the rest a strip as wide as the threshold counts, at a mean distance of
    a quarter.
    """
    found = compare(square(0.0), square(0.5), threshold=0.1, samples=100_000)
    assert found.precision == pytest.approx(0.6, abs=0.01) and found.recall == pytest.approx(0.6, abs=0.01)
    assert found.fscore == pytest.approx(0.6, abs=0.01)
    assert found.chamfer == pytest.approx(0.5 * 0.25, abs=0.003)


def test_precision_and_recall_tell_too_much_from_too_little():
    whole = trimesh.util.concatenate(
        [sphere(0.1), trimesh.creation.icosphere(subdivisions=4, radius=0.1).apply_translation([1, 0, 0])]
    )
    too_little, too_much = compare(sphere(0.1), whole), compare(whole, sphere(0.1))
    assert too_little.precision == 1 and too_little.recall == pytest.approx(0.5, abs=0.01)
    assert too_much.precision == pytest.approx(0.5, abs=0.01) and too_much.recall == 1
    assert too_little.fscore == pytest.approx(2 / 3, abs=0.01)


def test_distances_of_known_points():
    """A tiny triangle at height 2 above another: every distance is 2, either way."""
    speck = np.array([[0, 0, 0], [1e-9, 0, 0], [0, 1e-9, 0]])
    there, back = surface_distances(
        trimesh.Trimesh(speck, [[0, 1, 2]]), trimesh.Trimesh(speck + np.array([0, 0, 2]), [[0, 1, 2]]), 10
    )
    assert there == pytest.approx(np.full(10, 2.0)) and back == pytest.approx(np.full(10, 2.0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_boxes_moved_by_half_share_a_third(axis):
    """The lines of the grid pass through no edge by luck: cells divide the boxes evenly, and the diagonals of faces
    meet their centers.
    """
    assert volume_iou(box(), box(0.5 * np.eye(3)[axis]), resolution=48) == pytest.approx(1 / 3, abs=1e-12)


def test_boxes_apart_share_nothing():
    assert volume_iou(box(), box((3, 0, 0))) == 0


def test_overlapping_parts_are_one_solid():
    """Parity would call the overlap empty."""
    both = trimesh.util.concatenate([box(), box((0.5, 0, 0))])
    assert volume_iou(both, box(bounds=[[0, 0, 0], [1.5, 1, 1]]), resolution=48) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_missing_side_leaves_the_inside_inside(axis, side):
    lidless = box()
    lidless.update_faces(lidless.face_normals[:, axis] * side < 0.5)
    assert len(lidless.faces) == 10 and volume_iou(lidless, box(), resolution=16) == 1


def test_the_inside_is_the_same_turned_inside_out():
    inverted = box()
    inverted.invert()
    assert volume_iou(inverted, box(), resolution=16) == 1


def test_occupancy_of_a_solid_without_symmetry():
    """A tetrahedron's inside is x, y, z > 0 and x + 2 y + 4 z < 1; no center of a cell lies on a face."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0, 0, 0.25]])
    solid = trimesh.Trimesh(corners, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    grid = Grid(np.array([-0.1, -0.2, -0.05]), 0.043, (30, 20, 10))
    x, y, z = np.meshgrid(*(grid.centers(i) for i in range(3)), indexing="ij")
    assert np.array_equal(occupancy(solid, grid), (x > 0) & (y > 0) & (z > 0) & (x + 2 * y + 4 * z < 1))


def test_alignment_by_the_box_takes_position_and_size_out():
    moved = sphere(0.5).apply_scale(3).apply_translation([5, 6, 7])
    assert compare(moved, sphere(0.5)).iou == 0
    found = compare(moved, sphere(0.5), align="box")
    assert found.chamfer < 1e-6 and found.fscore == 1 and found.iou > 0.99
    assert np.linalg.norm(np.subtract(*boxed(moved).bounds)) == pytest.approx(1)


def test_a_mesh_without_faces_is_refused():
    with pytest.raises(UserError, match="the predicted mesh has no faces"):
        compare(trimesh.Trimesh(), sphere(1))
