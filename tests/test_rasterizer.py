"""The rasterizer against ray casting by brute force, closed forms and finite differences."""

import numpy as np
import pytest
import torch
import trimesh

from raster_scenes import around, bumpy, cast, flat, relative, slope, soup, straight
from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.errors import UserError
from vcgen.rendering import visibility
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import rasterize


@pytest.mark.parametrize(("extent", "count"), [(0.05, 1500), (0.2, 300), (1.0, 60), (20.0, 40)])
def test_the_nearest_face_is_that_of_ray_casting_at_any_size_of_faces(extent, count):
    """From less than a pixel to more than the image; the largest reach behind the camera and are cut at the plane."""
    meshes, camera, size = soup(count, extent), around(), (23, 31)
    raster = rasterize(meshes, camera, size, clip=0.3)
    face, distance, weights = cast(meshes, camera, size, 0.3)
    assert (raster.face.reshape(-1).numpy() == face).all() and len(raster.pixels) > 50
    np.testing.assert_allclose(raster.distance(), distance[face >= 0], rtol=1e-9)
    np.testing.assert_allclose(raster.weights, weights[face >= 0], atol=1e-7)


def test_layers_hold_every_face_that_a_center_meets_from_front_to_back():
    meshes, camera, size = soup(40, 1.0), around(), (23, 31)
    wanted = torch.zeros(len(meshes.faces), *size, dtype=torch.bool)
    for number, face in enumerate(meshes.faces):
        wanted[number] = rasterize(Meshes(meshes.vertices, face[None]), camera, size).face[0] >= 0
    found, depth, layers, raster = torch.zeros_like(wanted), torch.zeros(size, dtype=torch.float64).reshape(-1), 0, None
    while raster is None or len(raster.pixels):
        raster = rasterize(meshes, camera, size, behind=raster)
        assert not found.reshape(len(found), -1)[raster.faces, raster.pixels].any(), "no face twice"
        assert (raster.z > depth[raster.pixels]).all()
        found.view(len(found), -1)[raster.faces, raster.pixels] = True
        depth[raster.pixels] = raster.z
        layers += 1
    assert (found == wanted).all() and layers == wanted.sum(0).max() + 1 > 4


def test_faces_that_share_edges_leave_no_hole_and_cover_no_center_twice():
    """Corners and edges lie on centers of pixels, or anywhere: every face by itself, all in one batch, covers each
    center once.
    """
    n = 10
    lattice = torch.stack(
        torch.meshgrid(*[torch.arange(n, dtype=torch.float64) * 2 - 0.5] * 2, indexing="xy"), -1
    ).reshape(-1, 2)
    corner = torch.arange(n * n).reshape(n, n)[:-1, :-1].reshape(-1, 1)
    faces = torch.cat([corner + torch.tensor([0, 1, n]), corner + torch.tensor([1, n + 1, n])])
    moved = lattice + torch.rand(n * n, 2, dtype=torch.float64) - 0.5
    for points in (lattice, torch.where((torch.arange(n * n) % 3 == 0)[:, None], moved, lattice)):
        corners = torch.cat([points, torch.ones(n * n, 1, dtype=torch.float64)], 1)[faces]
        single = Meshes.pack([Meshes(triangle, torch.tensor([[0, 1, 2]])) for triangle in corners])
        cameras = straight(16)
        raster = rasterize(
            single, Cameras(*(x.expand(len(faces), 1, *x.shape[1:]) for x in vars(cameras).values())), (16, 16)
        )
        times = (raster.face >= 0).sum((0, 1))
        assert (times == 1).all()


def test_a_center_on_the_left_or_upper_edge_is_covered_and_on_the_right_or_lower_is_not():
    raster = rasterize(flat((2.5, 3.5), (6.5, 3.5), (6.5, 5.5), (2.5, 5.5)), straight(8), (8, 8))
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[3:5, 2:6] = True
    assert torch.equal(raster.face[0] >= 0, expected)


def test_of_faces_in_one_place_the_first_is_seen():
    once = soup(10, 1.0)
    alone = rasterize(once, around(), (20, 20))
    for again in (once.faces, once.faces.roll(1, 1), once.faces.flip(1)):
        twice = rasterize(Meshes(once.vertices, torch.cat([once.faces, again])), around(), (20, 20))
        assert torch.equal(twice.face, alone.face) and (twice.face >= 0).sum() > 100


def test_order_of_faces_chunks_and_repetition_change_no_bit(monkeypatch):
    meshes, cameras = bumpy(3), around(2)
    whole = rasterize(meshes, cameras, (24, 32))
    order = torch.randperm(len(meshes.faces))
    shuffled = rasterize(Meshes(meshes.vertices, meshes.faces[order]), cameras, (24, 32))
    assert torch.equal(order[shuffled.faces], whole.faces) and torch.equal(shuffled.weights, whole.weights)
    monkeypatch.setattr(visibility, "CHUNK", 100)
    for again in (rasterize(meshes, cameras, (24, 32)), rasterize(meshes, cameras, (24, 32))):
        assert torch.equal(again.face, whole.face) and torch.equal(again.depth(), whole.depth())


def test_a_batch_of_meshes_and_views_equals_one_by_one():
    parts, cameras = [bumpy(1), soup(50, 0.3), bumpy(2)], around(6).reshape(3, 2)
    together = rasterize(Meshes.pack(parts), cameras, (20, 28))
    values = together.image(together.interpolate(torch.cat([part.vertices for part in parts])))
    first = 0
    for i, part in enumerate(parts):
        for j in range(2):
            alone = rasterize(part, cameras[i, j : j + 1], (20, 28))
            assert torch.equal(together.face[i, j], torch.where(alone.face[0] < 0, -1, alone.face[0] + first))
            assert torch.equal(values[i, j], alone.image(alone.interpolate(part.vertices))[0])
            assert torch.equal(together.depth()[i, j], alone.depth()[0])
            assert torch.equal(together.normals(smooth=True)[together.views == 2 * i + j], alone.normals(smooth=True))
        first += len(part.faces)


def test_the_world_position_of_a_pixel_projects_onto_its_center():
    """Perspective-correct, also for faces that reach behind the camera."""
    for meshes in (bumpy(2), soup(40, 20.0)):
        raster = rasterize(meshes, around(), (23, 31))
        uv, z = around()[0].project(raster.interpolate(meshes.vertices))
        assert (z > 0).all() and len(z) > 200
        centers = torch.stack([raster.pixels % 31 + 0.5, raster.pixels // 31 + 0.5], 1) / torch.tensor(
            [31.0, 23.0], dtype=torch.float64
        )
        torch.testing.assert_close(uv, centers, atol=1e-11, rtol=0)
        torch.testing.assert_close(raster.z, z, atol=0, rtol=1e-9)


def test_a_floor_is_seen_to_the_plane_at_which_faces_are_cut():
    """A floor one below the eye, from behind the camera to far ahead: row y, of the image's 2 units of slope, sees it
    at z = 1 / y.
    """
    far, size = 1000.0, 64
    floor = Meshes(
        torch.tensor([[-far, 1, -far], [far, 1, -far], [far, 1, far], [-far, 1, far]]),
        torch.tensor([[0, 1, 2], [0, 2, 3]]),
    )
    camera = Cameras(torch.eye(4)[None], pinhole(0.5)[None], torch.ones(1) * 0.1, torch.ones(1) * 50)
    y = (torch.arange(size) + 0.5) / size * 2 - 1
    for clip in (None, 1.5):
        raster = rasterize(floor, camera, (size, size), clip=clip)
        seen = (y > 0) & (1 / y >= (clip or 0.001))
        assert torch.equal(raster.face[0] >= 0, seen[:, None].expand(size, size))
        row = raster.pixels // size
        torch.testing.assert_close(raster.z.float(), 1 / y[row])
        x = (raster.pixels % size + 0.5) / size * 2 - 1
        torch.testing.assert_close(raster.distance(), (1 + x**2 + y[row] ** 2).sqrt() / y[row])


def test_boxes_and_balls_lie_at_their_distance():
    box, camera = (
        trimesh.creation.box((0.4, 0.6, 0.2)),
        orbit(torch.zeros(1), torch.zeros(1), 1.3, pinhole(1.0), 0.8, 1.8),
    )
    depth = rasterize(Meshes(torch.tensor(box.vertices), torch.tensor(box.faces)), camera, (33, 33)).depth()[0, 0]
    assert depth[16, 16] == pytest.approx(1.0) and depth[0, 0] == pytest.approx(1.8)
    # the front is 0.4 x 0.2 at z = 1
    assert ((depth < 1.79).sum(0) > 0).sum() == 13 and ((depth < 1.79).sum(1) > 0).sum() == 7
    ball = trimesh.creation.icosphere(4, radius=0.5)
    raster = rasterize(Meshes(torch.tensor(ball.vertices), torch.tensor(ball.faces)), camera, (64, 64))
    rays = camera.rays(64, 64)[0]
    half = (rays.origins * rays.directions).sum(1)
    root = half**2 - (1.3**2 - 0.25)
    sure = root[raster.pixels] > 0.02
    torch.testing.assert_close(
        raster.distance()[sure], (-half - root.clamp(min=0).sqrt())[raster.pixels][sure].double(), atol=5e-3, rtol=0
    )
    assert len(raster.pixels) == pytest.approx(int((root > 0).sum()), rel=0.01)
    normal = torch.nn.functional.normalize(raster.interpolate(torch.tensor(ball.vertices)), dim=1)
    for found, least in ((raster.normals(), 0.998), (raster.normals(smooth=True), 0.9999)):
        assert ((found * normal).sum(1) > least).all()


def test_culling_drops_backs_alone():
    meshes, cameras = bumpy(2), around(2)
    whole, culled = (rasterize(meshes, cameras, (24, 24), cull=cull) for cull in (False, True))
    assert torch.equal(whole.face, culled.face)  # of a closed surface no back is seen
    turned = Meshes(meshes.vertices, meshes.faces.flip(1))
    inner = rasterize(turned, cameras, (24, 24), cull=True)
    assert (
        torch.equal(inner.face >= 0, whole.face >= 0)
        and (inner.distance() > whole.distance() + 0.01).float().mean() > 0.95
    )
    # a normal is turned to the camera, whichever side it sees
    torch.testing.assert_close(rasterize(turned, cameras, (24, 24)).normals(), whole.normals())
    crossing = soup(60, 20.0)
    front = rasterize(crossing, around(), (20, 20), cull=True)
    a, b, c = crossing.vertices[crossing.faces].unbind(1)
    facing = (torch.linalg.cross(b - a, c - a) * (around().centers - a)).sum(1) > 0
    assert facing[front.faces].all() and len(front.pixels) > 100
    kept = Meshes(crossing.vertices, crossing.faces[facing])
    assert torch.equal(facing.nonzero()[:, 0][rasterize(kept, around(), (20, 20)).faces], front.faces)


def test_gradients_are_those_of_finite_differences_while_each_pixel_sees_the_same_face():
    meshes, K = bumpy(1), around().K
    color, direction = torch.rand(len(meshes.vertices), 2, dtype=torch.float64), torch.randn_like(meshes.vertices)

    def value(vertices, focal=1.0, color=color):
        scale = (
            torch.tensor([[focal, 1, 1], [1, focal, 1], [1, 1, 1]], dtype=torch.float64)
            if isinstance(focal, float)
            else focal
        )
        camera = Cameras(around().c2w, K * scale, around().near, around().far)
        raster = rasterize(meshes.moved(vertices), camera, (16, 16))
        wave = torch.cos(raster.pixels.double())[:, None]
        return (
            wave * (raster.interpolate(color) + raster.normals(smooth=True)[:, :2] + raster.normals()[:, 1:])
        ).sum() + (wave[:, 0] * raster.distance()).sum()

    vertices = meshes.vertices.clone().requires_grad_()
    scale = torch.ones(3, 3, dtype=torch.float64).requires_grad_()
    colors = color.clone().requires_grad_()
    value(vertices, scale, colors).backward()
    assert relative(float((vertices.grad * direction).sum()), slope(value, meshes.vertices, direction, 1e-7)) < 1e-5
    focal = float(scale.grad[0, 0] + scale.grad[1, 1])
    assert relative(focal, (value(meshes.vertices, 1 + 1e-7) - value(meshes.vertices, 1 - 1e-7)).item() / 2e-7) < 1e-5
    step = torch.randn_like(color)
    assert (
        relative(float((colors.grad * step).sum()), slope(lambda c: value(meshes.vertices, 1.0, c), color, step)) < 1e-7
    )


def test_slopes_are_the_change_from_pixel_to_pixel():
    meshes = soup(1, 3.0, seed=4)
    raster = rasterize(meshes, around(), (12, 12))
    color = torch.rand(3, 2, dtype=torch.float64)
    found, step = raster.slopes(color), 1e-4
    assert len(found) > 20
    for axis, moved in enumerate(([step, 0.0], [0.0, step])):
        K = around().K.clone()
        K[0, :2, 2] -= torch.tensor(moved) / 12  # the image moves left, so that each center sees what lies to its right
        beside = rasterize(meshes, Cameras(around().c2w, K, around().near, around().far), (12, 12))
        assert torch.equal(beside.pixels, raster.pixels)
        change = (beside.interpolate(color) - raster.interpolate(color)) / step
        torch.testing.assert_close(found[:, axis], change, atol=1e-4, rtol=1e-3)


def test_values_may_belong_to_corners_and_images_have_backgrounds():
    meshes = bumpy(1)
    raster = rasterize(meshes, around(2), (10, 12))
    torch.testing.assert_close(raster.interpolate(meshes.vertices[meshes.faces]), raster.interpolate(meshes.vertices))
    behind = torch.rand(3, 10, 12, dtype=torch.float64)
    image = raster.image(raster.interpolate(meshes.vertices), behind)
    assert image.shape == (2, 3, 10, 12)
    empty = (raster.face < 0)[:, None]
    assert torch.equal(torch.where(empty, image, 0), torch.where(empty, behind, 0)) and 0 < empty.double().mean() < 1
    assert torch.equal(image.movedim(1, -1)[raster.face >= 0], raster.interpolate(meshes.vertices))


def test_what_is_given_in_single_precision_comes_back_so():
    meshes, cameras = bumpy(2, torch.float32), Cameras(*(x.float() for x in vars(around()).values()))
    raster, exact = rasterize(meshes, cameras, (32, 32)), rasterize(bumpy(2), around(), (32, 32))
    assert (raster.face == exact.face).double().mean() > 0.99
    assert {x.dtype for x in (raster.weights, raster.distance(), raster.depth(), raster.normals())} == {torch.float32}
    torch.testing.assert_close(raster.depth(), exact.depth().float(), atol=1e-3, rtol=0)


def test_nothing_to_see_is_no_error():
    none = Meshes(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    behind = flat((0, 0), (1, 0), (0, 1), z=-1.0)
    point = flat((3, 3), (3, 3), (3, 3))
    for meshes in (none, behind, point, Meshes.pack([none, none])):
        cameras = (
            straight(8)
            if len(meshes) == 1
            else Cameras(*(x.expand(2, 3, *x.shape[1:]) for x in vars(straight(8)).values()))
        )
        raster = rasterize(meshes, cameras, (8, 8))
        assert (
            (raster.face == -1).all() and (raster.depth() == 10).all() and raster.normals(smooth=True).shape == (0, 3)
        )


def test_all_tensors_are_made_on_the_device_of_the_vertices():
    meshes, cameras = bumpy(1), around(2)
    with torch.device("meta"):  # what names no device lands there, and cannot meet the others
        raster = rasterize(meshes, cameras, (16, 16), cull=True)
        raster.slopes(meshes.vertices), raster.normals(smooth=True), raster.depth()
    assert raster.face.device.type == "cpu"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v, f: v.__setitem__((0, 0), torch.nan), "not finite"),
        (lambda v, f: f.__setitem__((0, 0), 3), "beyond"),
        (lambda v, f: f.__setitem__((0, 0), -1), "beyond"),
    ],
)
def test_broken_meshes_are_refused(change, words):
    meshes = flat((1, 1), (7, 1), (7, 7))
    change(meshes.vertices, meshes.faces)
    with pytest.raises(UserError, match=words):
        rasterize(meshes, straight(8), (8, 8))


def test_calls_that_make_no_sense_are_refused():
    meshes = flat((1, 1), (7, 1), (7, 7))
    with pytest.raises(UserError, match="positive"):
        rasterize(meshes, straight(8), (8, 8), clip=0.0)
    with pytest.raises(ValueError, match=r"\(2, views\)"):
        rasterize(Meshes.pack([meshes, meshes]), straight(8), (8, 8))
    with pytest.raises(ValueError, match="int64"):
        Meshes(meshes.vertices, meshes.faces.int())
    with pytest.raises(ValueError, match="add up"):
        Meshes(meshes.vertices, meshes.faces, (2,), (1,))
