"""Smooth outlines against exact areas, and their gradients against closed forms, Euler's theorem and finite
differences.
"""

import pytest
import torch

from raster_scenes import around, bumpy, flat, relative, slope, soup, straight
from vcgen.cameras import Cameras, pinhole
from vcgen.rendering import visibility
from vcgen.rendering.antialias import antialias, compose
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import rasterize


def coverage(meshes, cameras, size, **options):
    """(..., height, width) smooth alpha."""
    raster = rasterize(meshes, cameras, size, **options)
    return antialias(raster, raster.image(torch.ones_like(raster.weights[:, :1])))[..., 0, :, :]


def area_below(a: float, b: float, size: int) -> torch.Tensor:
    """(size, size) exact area of each pixel where y > a + b x: the mean over x of a clamped line, integrated in closed
    form.
    """
    x = torch.arange(size + 1, dtype=torch.float64)

    def integral(height):  # of clamp(height, 0, 1)
        return torch.where(height > 1, height - 0.5, height.clamp(min=0) ** 2 / 2)

    left, right = (x[1:, None] - (a + b * edge) for edge in (x[:-1], x[1:]))
    return (integral(right) - integral(left)) / (right - left) if b else left.clamp(0, 1)


@pytest.mark.parametrize("down", [False, True])
def test_a_strip_has_its_area_and_its_edge_the_gradient_of_a_lever(down):
    """Edges at 3.2 and 9.7: 6.5 a row. The right edge's ends lie at different distances from the rows: d area / d end =
    sum of 1 - t, t.
    """
    size, low, high = 12, -5.3, 20.1
    corners = torch.tensor([[3.2, low], [9.7, low], [9.7, high], [3.2, high]], dtype=torch.float64)
    xy = (corners.flip(1) if down else corners).requires_grad_()
    meshes = Meshes(torch.cat([xy, torch.ones(4, 1, dtype=torch.float64)], 1), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    alpha = coverage(meshes, straight(size), (size, size))[0]
    torch.testing.assert_close(
        alpha.sum(0 if down else 1), torch.full((size,), 6.5, dtype=torch.float64), atol=1e-12, rtol=0
    )
    line = alpha[:, 0] if down else alpha[0]
    assert line[2:4].tolist() == pytest.approx([0, 0.8]) and line[9:11].tolist() == pytest.approx([0.7, 0])
    alpha.sum().backward()
    t = ((torch.arange(size, dtype=torch.float64) + 0.5 - low) / (high - low)).sum().item()
    expected = [-(size - t), size - t, t, -t]
    assert xy.grad[:, 1 if down else 0].tolist() == pytest.approx(expected, abs=1e-9)
    assert xy.grad[:, 0 if down else 1].abs().max() < 1e-9


@pytest.mark.parametrize(("a", "b"), [(3.3, 0.4), (9.1, -0.25), (2.4, 0.9), (5.5, 0.0), (6.0, 0.0), (4.5, 0.5)])
@pytest.mark.parametrize("down", [True, False])
def test_the_border_of_a_half_plane_has_its_exact_area(a, b, down):
    """Per column to rounding, per pixel to an eighth at 45 degrees; also where the edge runs through centers of pixels,
    or between them.
    """
    size, far = 16, 100.0
    corners = [(-far, a - b * far), (far, a + b * far), (far, far), (-far, far)]
    alpha = coverage(flat(*(corner if down else corner[::-1] for corner in corners)), straight(size), (size, size))[0]
    exact = area_below(a, b, size)
    found = alpha if down else alpha.T
    assert (found - exact).abs().max() <= abs(b) / 8 + 1e-12
    inner = exact[-1] == 1  # the edge leaves some columns through the bottom, where no pixel lies beyond
    torch.testing.assert_close(found.sum(0)[inner], exact.sum(0)[inner], atol=1e-11, rtol=0)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("subdivisions", [1, 3, 5])
def test_gradients_of_outlines_are_whole_at_any_size_of_faces(size, subdivisions):
    """Euler: where the image of a surface grows by a factor, its area grows twice as fast; from 30 pixels a face to a
    twentieth of one.
    """
    scale, shift = (
        torch.ones(2, dtype=torch.float64).requires_grad_(),
        torch.zeros(2, dtype=torch.float64).requires_grad_(),
    )
    given = around()
    changes = torch.cat([torch.cat([torch.diag(scale - 1), shift[:, None]], 1), torch.zeros(1, 3)])
    K = given.K[0] + changes
    camera = Cameras(given.c2w, K[None], given.near, given.far)
    area = coverage(bumpy(subdivisions), camera, (size, size)).sum()
    area.backward()
    assert (scale.grad @ given.K[0].diagonal()[:2] / (2 * area)).item() == pytest.approx(1, abs=0.05)
    assert (shift.grad.abs() / (size * scale.grad.abs())).max() < 0.02  # moved, it keeps its area


def test_the_gradient_of_a_triangle_nears_that_of_its_area():
    """Half the opposite edge, turned; ever nearer with smaller pixels."""
    corners = torch.tensor([[0.13, 0.21], [0.86, 0.37], [0.41, 0.83]], dtype=torch.float64)
    opposite = corners.roll(-2, 0) - corners.roll(-1, 0)
    exact = 0.5 * torch.stack([-opposite[:, 1], opposite[:, 0]], 1)
    off = []
    for size in (8, 16, 32, 64):
        leaf = corners.clone().requires_grad_()
        meshes = Meshes(torch.cat([leaf, torch.ones(3, 1, dtype=torch.float64)], 1), torch.tensor([[0, 1, 2]]))
        area = coverage(meshes, straight(1.0), (size, size)).sum() / size**2
        area.backward()
        off.append(float((leaf.grad - exact).norm() / exact.norm()))
    assert off[0] < 0.3 and off[3] < 0.05 and off[3] < off[1] / 2, off
    assert area.item() == pytest.approx(
        0.5 * abs(float(torch.linalg.det(torch.stack([opposite[0], opposite[1]])))), rel=1e-3
    )


@pytest.mark.parametrize("make", [lambda: bumpy(2), lambda: soup(12, 1.0), lambda: soup(6, 20.0)])
def test_gradients_are_those_of_finite_differences(make):
    """Vertices, cameras and colors at once; surfaces closed, open, and reaching behind the camera."""
    meshes, given, size = make(), around(), (20, 24)
    colors, weight = (
        torch.rand(len(meshes.vertices), 2, dtype=torch.float64),
        torch.randn(1, 3, *size, dtype=torch.float64),
    )
    direction = torch.randn(len(meshes.vertices) + 1, 3, dtype=torch.float64)

    def value(parameters):
        vertices, turn = meshes.vertices + parameters[:-1], parameters[-1]
        c2w = given.c2w + torch.cat(
            [torch.zeros(4, 3, dtype=torch.float64), torch.cat([turn, torch.zeros(1)])[:, None]], 1
        )
        raster = rasterize(meshes.moved(vertices), Cameras(c2w, given.K, given.near, given.far), size)
        items = torch.cat([raster.interpolate(colors), torch.ones_like(raster.weights[:, :1])], 1)
        return (antialias(raster, raster.image(items)) * weight).sum()

    zero = torch.zeros_like(direction).requires_grad_()
    value(zero).backward()
    expected = slope(value, zero.detach(), direction, 1e-8)
    assert abs(expected) > 0.1 and relative(float((zero.grad * direction).sum()), expected) < 1e-5


def test_edges_that_run_exactly_through_centers_keep_their_gradient():
    for edge in (4.5, 5.0):  # through centers, and between them
        corners = (edge - 3 * torch.tensor([[1, 1], [0, 1], [0, 0], [1, 0]], dtype=torch.float64)).requires_grad_()
        meshes = Meshes(
            torch.cat([corners, torch.ones(4, 1, dtype=torch.float64)], 1), torch.tensor([[0, 1, 2], [0, 2, 3]])
        )
        area = coverage(meshes, straight(8), (8, 8)).sum()
        area.backward()
        assert area.item() == pytest.approx(9)
        # by Euler twice the area, but for the pixels at the four corners
        assert corners.grad.sum(0).abs().max() < 1e-9 and (corners.grad * corners).sum().item() == pytest.approx(
            18, rel=0.1
        )


def test_only_outlines_that_are_seen_are_blended():
    """A wall and a patch, before it or behind: inner edges and hidden outlines change nothing."""
    corners = [(2.3, 2.2), (6.1, 2.4), (5.2, 6.7)]
    wall = flat((-1, -1), (9, -1), (9, 9), (-1, 9))
    for z in (2.0, 0.5):
        patch = flat(*((x * z, y * z) for x, y in corners), z=z)
        both = Meshes(torch.cat([wall.vertices, patch.vertices]), torch.cat([wall.faces, patch.faces + 4]))
        raster = rasterize(both, straight(8), (8, 8))
        assert (raster.face >= 0).all() and (raster.face == 2).any() == (z < 1)
        marked = (raster.face == 2)[:, None].double()
        smooth = antialias(raster, marked)
        noise = torch.rand(1, 3, 8, 8, dtype=torch.float64)
        changed = antialias(raster, noise) != noise
        assert torch.equal(changed.any(1), changed.all(1)) and torch.equal(changed.any(1), (smooth != marked)[:, 0])
        expected = 0.5 * abs((6.1 - 2.3) * (6.7 - 2.2) - (5.2 - 2.3) * (2.4 - 2.2)) if z < 1 else 0
        assert smooth.sum().item() == pytest.approx(expected, rel=0.03)


def test_colors_are_blended_with_the_background_as_alpha_is():
    raster = rasterize(bumpy(2), around(2), (24, 24))
    red = torch.tensor([1.0, 0.2, 0.0], dtype=torch.float64).expand(len(raster.pixels), 3)
    blue = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)[:, None, None]
    seen = compose(raster, red, blue)
    torch.testing.assert_close(seen.rgb, seen.alpha * red[0][:, None, None] + (1 - seen.alpha) * blue)
    assert seen.alpha.shape == (2, 1, 24, 24) and torch.equal(seen.depth, raster.depth())
    assert ((seen.alpha > 0.01) & (seen.alpha < 0.99)).sum() > 50


def test_smooth_coverage_is_nearer_to_the_truth_than_hard_coverage():
    meshes, camera = bumpy(4), around()
    fine = torch.nn.functional.avg_pool2d((rasterize(meshes, camera, (512, 512)).face >= 0).double(), 16)
    hard, smooth = (rasterize(meshes, camera, (32, 32)).face >= 0).double(), coverage(meshes, camera, (32, 32))
    assert (smooth - fine).square().mean().sqrt() < 0.5 * (hard - fine).square().mean().sqrt()


def test_an_outline_that_starts_behind_the_camera_is_smooth_to_the_image_border():
    """A road one below the eye, from behind it to far ahead, from x = -0.5 to 0.7: row y shows it from -0.5 y to 0.7
    y.
    """
    far, size = 200.0, 64
    road = torch.tensor(
        [[-0.5, 1, -far], [0.7, 1, -far], [0.7, 1, far], [-0.5, 1, far]], dtype=torch.float64
    ).requires_grad_()
    camera = Cameras(torch.eye(4)[None], pinhole(0.5)[None], torch.ones(1) * 0.1, torch.ones(1) * 50)
    width = (
        coverage(Meshes(road, torch.tensor([[0, 1, 2], [0, 2, 3]])), camera, (size, size))[0, size // 2 + 1 :].sum(1)
        / size
        * 2
    )
    y = (torch.arange(size)[size // 2 + 1 :] + 0.5) / size * 2 - 1
    torch.testing.assert_close(width[2:], 1.2 * y[2:].double())
    width[2:].sum().backward()
    assert road.grad[1:3, 0].sum().item() == pytest.approx(y[2:].sum().item()) == -road.grad[::3, 0].sum().item()


def test_order_chunks_batches_and_repetition_change_no_bit(monkeypatch):
    parts, cameras = [bumpy(3), soup(20, 1.0)], around(4).reshape(2, 2)
    raster = rasterize(Meshes.pack(parts), cameras, (24, 32))
    image = torch.rand(2, 2, 3, 24, 32, dtype=torch.float64)
    whole = antialias(raster, image)
    assert torch.equal(antialias(raster, image), whole) and (whole != image).double().mean() > 0.01
    for i in (0, 1):
        for j in (0, 1):
            alone = rasterize(parts[i], cameras[i, j : j + 1], (24, 32))
            assert torch.equal(antialias(alone, image[i, j][None])[0], whole[i, j])
    shuffled = [Meshes(part.vertices, part.faces[torch.randperm(len(part.faces))]) for part in parts]
    assert torch.equal(antialias(rasterize(Meshes.pack(shuffled), cameras, (24, 32)), image), whole)
    monkeypatch.setattr(visibility, "CHUNK", 50)
    assert torch.equal(antialias(rasterize(Meshes.pack(parts), cameras, (24, 32)), image), whole)


def test_specks_cover_their_area_and_no_value_leaves_the_range_of_the_image():
    speck = flat((3.4, 4.45), (3.7, 4.45), (3.7, 4.55), (3.4, 4.55))
    assert coverage(speck, straight(8), (8, 8)).sum().item() == pytest.approx(0.03)
    for extent in (0.03, 0.1, 1.0):
        raster = rasterize(soup(300, extent), around(), (40, 40))
        noise = torch.rand(1, 1, 40, 40, dtype=torch.float64)
        found = antialias(raster, torch.cat([noise, raster.image(torch.ones_like(raster.weights[:, :1]))], 1))
        assert found.min() >= -1e-12 and found.max() <= 1 + 1e-12 and len(raster.pixels) > 5


def test_culled_surfaces_have_outlines_where_their_backs_begin():
    meshes = bumpy(2)
    for part in (meshes, Meshes(meshes.vertices, meshes.faces.flip(1))):
        whole, culled = (coverage(part, around(), (24, 24), cull=cull) for cull in (False, True))
        torch.testing.assert_close(culled, whole)


def test_edges_of_more_than_two_faces_are_outlines_where_all_lie_on_one_side():
    """Three fins from one edge: seen from where two lie left and one right it is none, and where all lie left it is."""
    spine = torch.tensor([[4.3, 0.5, 1.0], [4.3, 7.5, 1.0]], dtype=torch.float64)
    for tips, outline in (
        ([[1, 4, 1.0], [1.5, 4, 1.2], [7, 4, 1.0]], False),
        ([[1, 4, 1.0], [1.5, 4, 1.2], [2, 4, 1.1]], True),
    ):
        fins = Meshes(
            torch.cat([spine, torch.tensor(tips, dtype=torch.float64)]), torch.tensor([[0, 1, 2], [0, 1, 3], [1, 0, 4]])
        )
        assert len(fins.edges.ends) == 7
        row = coverage(fins, straight(8), (8, 8))[0, 4]
        assert row[4].item() == pytest.approx(0.3 if outline else 1.0)


def test_nothing_to_see_is_no_error_and_tensors_are_made_on_the_device_of_the_vertices():
    none = Meshes(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(antialias(rasterize(none, straight(8), (8, 8)), image), image)
    meshes, cameras = bumpy(1), around(2)
    with torch.device("meta"):  # what names no device lands there, and cannot meet the others
        raster = rasterize(meshes, cameras, (16, 16), cull=True)
        seen = compose(raster, raster.interpolate(meshes.vertices), 0.5)
    assert seen.rgb.device.type == seen.alpha.device.type == "cpu"
