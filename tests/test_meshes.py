"""Packed meshes: numbering, edges, seams and normals."""

import torch
import trimesh

from raster_scenes import bumpy, flat, soup
from vcgen.rendering.meshes import Instances, Meshes


def test_every_edge_of_a_closed_mesh_is_listed_once_with_two_faces_that_run_along_it_in_both_ways():
    meshes = Meshes.pack([bumpy(1), bumpy(2)])
    edges = meshes.edges
    assert edges.counts == (120, 480)  # three for every two faces
    assert torch.equal(edges.of_faces.reshape(-1).bincount(), torch.full((600,), 2))
    ends = torch.stack([meshes.faces.roll(-1, 1), meshes.faces.roll(-2, 1)], -1)
    listed = edges.ends[edges.of_faces]
    assert torch.equal(torch.where(edges.forward[..., None], listed, listed.flip(-1)), ends)
    assert (
        torch.zeros(600, dtype=torch.int64)
        .index_add(0, edges.of_faces.reshape(-1), edges.forward.reshape(-1) * 2 - 1)
        .abs()
        .sum()
        == 0
    )
    assert (edges.ends[:120] < 42).all() and (edges.ends[120:] >= 42).all()  # vertices of the first


def test_moved_vertices_keep_the_table_of_edges():
    meshes = bumpy(1)
    assert "edges" not in meshes.moved(meshes.vertices * 2).__dict__
    edges = meshes.edges
    assert meshes.moved(meshes.vertices * 2).edges is edges


def test_parts_are_numbered_view_after_view():
    counts = Instances.of((2, 0, 3), 2, torch.device("cpu"))
    views, parts = counts.locate(torch.arange(counts.total))
    assert views.tolist() == [0, 0, 1, 1, 4, 4, 4, 5, 5, 5] and parts.tolist() == [0, 1, 0, 1, 2, 3, 4, 2, 3, 4]
    assert (parts + counts.shift[views]).tolist() == list(range(10))


def test_welding_joins_what_lies_in_one_place_in_one_mesh():
    parts = [bumpy(1), soup(3, 0.2), bumpy(1)]
    torn = [
        Meshes(part.vertices[part.faces].reshape(-1, 3), torch.arange(part.faces.numel()).reshape(-1, 3))
        for part in parts
    ]
    torn[0].vertices[torn[0].vertices == 0] *= -1  # a zero is a zero
    whole = Meshes.pack(torn).welded()
    assert whole.vertex_counts == (42, 9, 42) and whole.edges.counts == (120, 9, 120)
    assert torch.equal(whole.vertices[whole.faces], Meshes.pack(parts).vertices[Meshes.pack(parts).faces])
    assert len(Meshes(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)).welded().vertices) == 0


def test_normals_are_those_of_trimesh_and_point_to_the_front():
    box = trimesh.creation.box((1, 2, 3)).subdivide()
    meshes = Meshes(torch.tensor(box.vertices), torch.tensor(box.faces))
    torch.testing.assert_close(meshes.face_normals(), torch.tensor(box.face_normals.copy()))
    smooth = bumpy(3).vertex_normals()
    assert ((smooth * bumpy(3).vertices).sum(1) > 0.2).all() and torch.allclose(
        smooth.norm(dim=1), torch.ones(642).double()
    )
    # counterclockwise as seen from above, y down: the normal points away from a camera that looks along z
    assert flat((0, 0), (1, 0), (1, 1)).vertex_normals()[0].tolist() == [0, 0, 1]
    line = flat((0, 0), (1, 1), (2, 2))
    line.vertices.requires_grad_()
    (line.face_normals().sum() + line.vertex_normals().sum()).backward()
    assert line.face_normals().tolist() == [[0, 0, 0]] and line.vertices.grad.isfinite().all()


def test_gradients_of_normals_are_those_of_finite_differences():
    meshes = soup(4, 1.0)
    assert torch.autograd.gradcheck(lambda v: meshes.moved(v).vertex_normals(), meshes.vertices.requires_grad_())
