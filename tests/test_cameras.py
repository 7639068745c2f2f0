"""Cameras: every conversion against explicit formulas or another library, every map against its inverse. All in
float64.
"""

import math

import pytest
import torch

from vcgen import cameras as cam

HEIGHT, WIDTH = 5, 8


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_rotations(count: int) -> torch.Tensor:
    q, r = torch.linalg.qr(torch.randn(count, 3, 3))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    return q * torch.linalg.det(q)[:, None, None]


def random_poses(count: int = 3) -> torch.Tensor:
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, :3, :3] = random_rotations(count)
    poses[:, :3, 3] = torch.randn(count, 3)
    return poses


def random_cameras(count: int = 3) -> cam.Cameras:
    K = torch.stack([cam.pinhole(1.1 + 0.2 * i, 1.7 - 0.1 * i, 0.5 + 0.03 * i, 0.48) for i in range(count)])
    return cam.Cameras(random_poses(count), K, torch.full((count,), 0.5), torch.full((count,), 4.0))


def assert_rigid(c2w: torch.Tensor) -> None:
    rotation = c2w[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.transpose(-1, -2), torch.eye(3).expand_as(rotation))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(rotation.shape[:-2]))
    torch.testing.assert_close(c2w[..., 3, :], torch.tensor([0.0, 0.0, 0.0, 1.0]).expand_as(c2w[..., 3, :]))


def test_rigid_inverse_equals_the_general_inverse():
    poses = random_poses()
    torch.testing.assert_close(cam.rigid_inverse(poses), torch.linalg.inv(poses))


def test_rotate_equals_the_matrix_product():
    rotations, vectors = torch.randn(3, 1, 3, 3), torch.randn(2, 7, 3)
    torch.testing.assert_close(cam.rotate(vectors, rotations), torch.einsum("aoij,bnj->abni", rotations, vectors))


def test_axis_flips_are_rotations_and_their_own_inverse():
    for flip in (cam.OPENGL_TO_OPENCV, cam.PYTORCH3D_TO_OPENCV):
        assert torch.equal(flip @ flip, torch.eye(4, dtype=flip.dtype))
        assert torch.linalg.det(flip) == 1


def test_opengl_camera_keeps_its_right_and_turns_up_and_backward_over():
    opengl = random_poses()
    opencv = opengl @ cam.OPENGL_TO_OPENCV.to(opengl)
    right, up, backward, center = opengl[..., :3, :].unbind(-1)
    torch.testing.assert_close(opencv[..., :3, :], torch.stack([right, -up, -backward, center], -1))


def test_pytorch3d_point_lands_on_the_same_pixel():
    # PyTorch3D: x_cam = x_world R + T, x left, y up; screen x = width/2 - focal x/z and y alike (PerspectiveCameras,
    # in_ndc=False).
    R, T, points, focal = random_rotations(3), torch.randn(3, 3), torch.randn(3, 9, 3), 70.0
    local = torch.einsum("bni,bij->bnj", points, R) + T[:, None]
    screen = torch.tensor([WIDTH, HEIGHT]) / 2 - focal * local[..., :2] / local[..., 2:]
    K = cam.normalize_intrinsics(
        torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]]), HEIGHT, WIDTH
    )
    cameras = cam.Cameras(cam.pytorch3d_to_c2w(R, T), K.expand(3, 3, 3), torch.ones(3), torch.ones(3))
    uv, depth = cameras.project(points)
    torch.testing.assert_close(uv * torch.tensor([WIDTH, HEIGHT]), screen)
    torch.testing.assert_close(depth, local[..., 2])


def test_pytorch3d_cameras_see_points_where_its_own_formula_says():
    R, T, points = random_rotations(3), torch.randn(3, 3), torch.randn(3, 5, 3)
    c2w = cam.pytorch3d_to_c2w(R, T)
    assert_rigid(c2w)
    seen = (points - c2w[:, None, :3, 3]) @ c2w[:, :3, :3]  # x right, y down; there x left, y up
    torch.testing.assert_close(seen * torch.tensor([-1.0, -1.0, 1.0]), points @ R + T[:, None])


def test_colmap_quaternion_agrees_with_scipy():
    Rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    quaternion, translation = torch.randn(6, 4), torch.randn(6, 3)  # not normalized: text files are rounded
    w2c = torch.eye(4).repeat(6, 1, 1)
    w2c[:, :3, :3] = torch.from_numpy(Rotation.from_quat(quaternion[:, [1, 2, 3, 0]].numpy()).as_matrix())
    w2c[:, :3, 3] = translation
    c2w = cam.colmap_to_c2w(quaternion, translation)
    torch.testing.assert_close(c2w, torch.linalg.inv(w2c))
    assert_rigid(c2w)


def test_colmap_points_land_on_the_pixels_that_its_manual_says():
    # COLMAP: x_cam = q x q* + t, the product of quaternions; PINHOLE projects to fx X/Z + cx, fy Y/Z + cy, (0, 0) the
    # upper left corner.
    quaternion, translation, points = (
        torch.randn(6, 4),
        torch.randn(6, 3) + torch.tensor([0, 0, 4.0]),
        torch.randn(6, 9, 3),
    )
    w, axis = quaternion[:, None, :1], quaternion[:, None, 1:].expand(points.shape)
    squared = quaternion.square().sum(-1)[:, None, None]
    turned = torch.linalg.cross(axis, w * points + torch.linalg.cross(axis, points))
    local = points + 2 * turned / squared + translation[:, None]
    fx, fy, cx, cy = 9.0, 7.0, 3.5, 2.25
    screen = torch.stack([fx * local[..., 0] / local[..., 2] + cx, fy * local[..., 1] / local[..., 2] + cy], -1)
    K = cam.normalize_intrinsics(torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), HEIGHT, WIDTH)
    cameras = cam.Cameras(cam.colmap_to_c2w(quaternion, translation), K.expand(6, 3, 3), torch.ones(6), torch.ones(6))
    uv, depth = cameras.project(points)
    torch.testing.assert_close(uv * torch.tensor([WIDTH, HEIGHT]), screen)
    torch.testing.assert_close(depth, local[..., 2])


def test_projection_equals_the_pinhole_formula_in_pixels():
    # OpenCV: u = fx X/Z + cx in pixels, (0, 0) the image's upper left corner; the pose is the camera's placement.
    K_pixels = torch.tensor([[9.0, 0, 3.5], [0, 7.0, 2.25], [0, 0, 1]])
    pose = random_poses(1)
    local = torch.tensor([[[0.3, -0.2, 2.0], [-0.5, 0.4, 1.5]]])
    world = local @ pose[:, :3, :3].transpose(-1, -2) + pose[:, None, :3, 3]
    cameras = cam.Cameras(pose, cam.normalize_intrinsics(K_pixels, HEIGHT, WIDTH)[None], torch.ones(1), torch.ones(1))
    uv, depth = cameras.project(world)
    expected = torch.tensor([[[9 * 0.15 + 3.5, -7 * 0.1 + 2.25], [-9 / 3 + 3.5, 7 * 0.4 / 1.5 + 2.25]]])
    torch.testing.assert_close(uv * torch.tensor([WIDTH, HEIGHT]), expected)
    torch.testing.assert_close(depth, torch.tensor([[2.0, 1.5]]))


def test_rays_through_pixel_centers_project_back_to_them():
    cameras = random_cameras()
    rays = cameras.rays(HEIGHT, WIDTH)
    uv, depth = cameras.project(rays.at(torch.full((*rays.shape, 1), 2.5)).flatten(1, 2))
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    expected = torch.stack([(columns + 0.5) / WIDTH, (rows + 0.5) / HEIGHT], -1).reshape(-1, 2)
    torch.testing.assert_close(uv, expected.expand_as(uv))
    assert (depth > 0).all()
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(3, HEIGHT * WIDTH))
    torch.testing.assert_close(rays.origins, cameras.centers[:, None].expand_as(rays.origins))
    torch.testing.assert_close(rays.far, cameras.far[:, None].expand(rays.shape))


def test_points_behind_the_camera_have_negative_depth():
    cameras = random_cameras()
    rays = cameras.rays(HEIGHT, WIDTH)
    assert (cameras.project(rays.origins - rays.directions)[1] < 0).all()


def test_normalized_intrinsics_survive_resizing():
    # Pixel (i, j) of a 2x smaller image covers four pixels, whose common corner is its center.
    cameras = random_cameras()
    small = cameras.rays(2, 3).directions
    corners = torch.tensor([[(j + 0.5) / 3, (i + 0.5) / 2] for i in range(2) for j in range(3)])
    torch.testing.assert_close(small, cameras.rays_at(corners).directions)
    K_pixels = torch.tensor([[300.0, 0, 161], [0, 290.0, 119], [0, 0, 1]])
    half = torch.diag(torch.tensor([0.5, 0.5, 1.0])) @ K_pixels
    torch.testing.assert_close(cam.normalize_intrinsics(K_pixels, 240, 320), cam.normalize_intrinsics(half, 120, 160))


def test_look_at_centers_the_target_with_up_up():
    eye, target, up = torch.randn(4, 3), torch.randn(3), torch.tensor([0.0, 0.0, 2.0])
    c2w = cam.look_at(eye, target, up)
    assert_rigid(c2w)
    cameras = cam.Cameras(c2w, cam.pinhole(1.0).expand(4, 3, 3), torch.ones(4), torch.ones(4))
    uv, depth = cameras.project(torch.stack([target, target + 0.01 * up]))
    torch.testing.assert_close(uv[:, 0], torch.full((4, 2), 0.5))
    torch.testing.assert_close(depth[:, 0], (target - eye).norm(dim=-1))
    torch.testing.assert_close(uv[:, 1, 0], torch.full((4,), 0.5))
    assert (uv[:, 1, 1] < 0.5).all()


def test_look_at_takes_many_targets_from_one_eye():
    targets = torch.randn(4, 3)
    c2w = cam.look_at(torch.zeros(3), targets, torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(c2w[:, :3, 2], torch.nn.functional.normalize(targets, dim=-1))


def test_look_at_refuses_an_undefined_roll():
    with pytest.raises(ValueError, match="parallel"):
        cam.look_at(torch.tensor([0.0, 0.0, 3.0]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))


def test_view_angles_invert_orbit():
    azimuth, elevation = torch.tensor([0.0, 10, 95, 180, 271, 359]), torch.tensor([0.0, -89, 45, 30, -5, 89.9])
    cameras = cam.orbit(azimuth, elevation, 1.3, cam.pinhole(1.0), 0.8, 1.8)
    assert_rigid(cameras.c2w)
    torch.testing.assert_close(cam.view_angles(cameras.centers), (azimuth, elevation))
    torch.testing.assert_close(cameras.centers.norm(dim=-1), torch.full((6,), 1.3))
    assert torch.equal(cameras.far, torch.full((6,), 1.8))


def test_orbit_starts_at_minus_y_and_turns_counter_clockwise():
    cameras = cam.orbit(torch.tensor([0.0, 90.0]), torch.zeros(2), 2.0, cam.pinhole(1.0), 1.0, 3.0)
    torch.testing.assert_close(cameras.centers, torch.tensor([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0]]))
    torch.testing.assert_close(cameras.c2w[0, :3, :3], torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]))


def test_orbit_passes_over_the_pole_smoothly():
    cameras = cam.orbit(torch.full((2,), 20.0), torch.tensor([90.0, 90.0 - 1e-6]), 1.0, cam.pinhole(1.0), 0.5, 2.0)
    assert_rigid(cameras.c2w)
    torch.testing.assert_close(cameras.c2w[0], cameras.c2w[1], atol=1e-6, rtol=0)


def test_view_angles_at_the_pole_are_finite_in_single_precision():
    elevation = cam.view_angles(torch.tensor([[0.0, 0.0, 1.3], [1e-5, 1e-5, -0.7]], dtype=torch.float32))[1]
    torch.testing.assert_close(elevation, torch.tensor([90.0, -90.0], dtype=torch.float32), atol=2e-3, rtol=0)


def test_the_focal_length_spans_the_field_of_view():
    assert cam.focal_from_fov(90.0) == pytest.approx(0.5)
    assert 2 * math.degrees(math.atan(0.5 / cam.focal_from_fov(40.0))) == pytest.approx(40.0)


def test_reduced_precision_modes_leave_rays_and_projections_alone():
    cameras, points = random_cameras().to(torch.float32), torch.randn(3, 9, 3, dtype=torch.float32)
    expected = cameras.rays(HEIGHT, WIDTH).directions, cameras.project(points)[0], cam.rigid_inverse(cameras.c2w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = cameras.rays(HEIGHT, WIDTH).directions, cameras.project(points)[0], cam.rigid_inverse(cameras.c2w)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_indexing_and_reshaping_keep_cameras_together():
    cameras = random_cameras(6)
    grid = cameras.reshape(2, 3)
    assert grid.shape == (2, 3)
    assert torch.equal(grid[1, 2].c2w, cameras.c2w[5]) and torch.equal(grid[:, 1].K, cameras.K[[1, 4]])
    assert torch.equal(grid.reshape(-1).centers, cameras.centers)
    with pytest.raises(IndexError, match="matrices"):
        grid[..., 0]


def test_cat_joins_along_a_batch_dimension():
    first, second = (cam.orbit(torch.rand(n), torch.rand(n), 1.3, cam.pinhole(1.0), 0.8, 1.8) for n in (2, 3))
    joined = cam.Cameras.cat([first[None], second[None]], 1)
    assert joined.shape == (1, 5)
    for name in ("c2w", "K", "near", "far"):
        assert torch.equal(getattr(joined, name)[0, 2:], getattr(second, name))
        assert torch.equal(getattr(joined, name)[0, :2], getattr(first, name))
