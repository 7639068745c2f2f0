"""Meshes of balls, whose radius, volume and colors are known."""

import json
import math

import numpy as np
import pytest
import torch
import trimesh
from scipy import special

from stand_in import Balls
from vcgen.errors import UserError
from vcgen.rendering.marching_cubes import OUTLINE, SKIN, density_grid, extract_mesh, solidity, surface_colors
from vcgen.visualization.mesh_files import srgb_to_linear, write_mesh

RESOLUTION = 64
VOXEL = 1 / (RESOLUTION - 1)
MIDDLE = torch.tensor([[0.1, -0.05, 0.08]])


def ball(**options):
    return Balls(MIDDLE, torch.tensor([0.3]), **options)


@pytest.fixture(scope="module")
def surface():
    return extract_mesh(ball(), RESOLUTION)


def test_a_ball_becomes_a_closed_ball(surface):
    mesh = surface.mesh
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    distances = np.linalg.norm(mesh.vertices - MIDDLE.numpy(), axis=1)
    assert np.abs(distances - 0.3).max() < VOXEL
    assert np.abs(mesh.centroid - MIDDLE.numpy()).max() < VOXEL / 4
    # a tenth of the light is lost in its soft edge
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.04)


def test_vertex_colors_are_those_of_the_surface(surface):
    outward = (surface.mesh.vertices - MIDDLE.numpy()) / np.linalg.norm(
        surface.mesh.vertices - MIDDLE.numpy(), axis=1, keepdims=True
    )
    expected = 255 * (1 + outward) / 2
    assert np.abs(surface.mesh.visual.vertex_colors[:, :3] - expected).max() < 5


def test_colors_are_asked_for_from_outside(surface):
    class Watched(Balls):
        def __call__(self, points, directions):
            outward = torch.nn.functional.normalize(points - MIDDLE, dim=-1)
            assert (outward * directions).sum(-1).max() < -0.5
            return super().__call__(points, directions)

    colors = surface_colors(Watched(MIDDLE, torch.tensor([0.3])), surface.mesh, VOXEL)
    np.testing.assert_array_equal(colors, surface.mesh.visual.vertex_colors[:, :3])


def radius_at(density, peak, skin):
    """Where peak / (1 + exp((r - 0.3) / skin)) equals ``density``."""
    return 0.3 + skin * math.log(peak / density - 1)


@pytest.mark.parametrize("peak", [20.0, 200.0, 5000.0])
def test_the_surface_of_a_ball_lies_a_skin_inside_it(peak):
    """Along its axes, the skin's depth over the density: there the way out is shortest."""
    mesh = extract_mesh(ball(density=peak, skin=0.0005), RESOLUTION).mesh
    assert np.abs(mesh.bounds - MIDDLE.numpy()).ravel() == pytest.approx([0.3 - SKIN / peak] * 6, abs=0.6 * VOXEL)


def test_the_automatic_surface_is_where_the_rendering_ends():
    """Seen from afar, the ball's outline in the image (half opacity) and in the mesh have the same radius."""
    field = ball(density=100.0, skin=0.01)
    across = torch.linspace(0.25, 0.4, 301)
    along = torch.linspace(-0.5, 0.5, 2001)
    points = torch.stack([across[:, None].expand(-1, 2001), along.expand(301, -1), torch.zeros(301, 2001)], -1) + MIDDLE
    thickness = torch.trapezoid(field.density(points), along, dim=1)
    outline = across[(thickness > math.log(2)).nonzero().max()].item()
    mesh = extract_mesh(field, RESOLUTION).mesh
    assert (mesh.volume * 3 / 4 / math.pi) ** (1 / 3) == pytest.approx(outline, abs=1.5 * VOXEL)


def test_a_given_threshold_is_the_density_of_the_surface():
    surface = extract_mesh(ball(skin=0.02), RESOLUTION, threshold=30.0)
    assert surface.threshold == pytest.approx(30, rel=1e-3)
    assert (surface.mesh.volume * 3 / 4 / math.pi) ** (1 / 3) == pytest.approx(radius_at(30, 200, 0.02), abs=VOXEL / 8)


def test_only_the_largest_of_two_balls_is_kept():
    balls = Balls(torch.tensor([[-0.2, 0, 0], [0.3, 0, 0.0]]), torch.tensor([0.2, 0.1]))
    mesh = extract_mesh(balls, RESOLUTION).mesh
    assert mesh.bounds[:, 0] == pytest.approx([-0.4, 0.0], abs=VOXEL) and mesh.body_count == 1


def test_an_object_that_leaves_the_fields_sphere_is_closed_there():
    """Nothing is rendered outside of the sphere."""
    mesh = extract_mesh(Balls(torch.zeros(1, 3), torch.tensor([0.6])), 32).mesh
    assert mesh.is_watertight and mesh.volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.03)


def test_a_threshold_does_not_bring_out_what_lies_outside_of_the_fields_sphere():
    """In the corners of the cube a field is never rendered, and may be as dense as it likes."""
    two = Balls(torch.tensor([[0.0, 0, 0], [0.45, 0.45, 0.45]]), torch.tensor([0.15, 0.2]))
    alone = extract_mesh(Balls(torch.zeros(1, 3), torch.tensor([0.15])), 48, threshold=30.0).mesh
    mesh = extract_mesh(two, 48, threshold=30.0).mesh
    np.testing.assert_allclose(mesh.bounds, alone.bounds, atol=1e-6)
    with pytest.raises(UserError, match="no surface at density 30: the density on the grid lies between"):
        extract_mesh(Balls(torch.full((1, 3), 0.45), torch.tensor([0.15])), 48, threshold=30.0)


def test_a_field_without_bounds_needs_a_radius():
    endless = ball(bound=math.inf)
    assert extract_mesh(endless, RESOLUTION, radius=0.5).mesh.volume == pytest.approx(
        4 / 3 * math.pi * 0.3**3, rel=0.04
    )


def test_a_cube_whose_points_all_miss_the_sphere_holds_no_surface():
    with pytest.raises(UserError, match="no surface: the density on the grid lies between 0 and 0"):
        extract_mesh(ball(), 8, radius=100.0)


def test_the_grid_is_the_field_at_its_corners_whatever_the_chunk():
    whole, chunked = density_grid(ball(), 9, 0.5), density_grid(ball(), 9, 0.5, chunk=10)
    np.testing.assert_allclose(whole, chunked, rtol=1e-5)
    assert whole[3, 4, 5] == pytest.approx(ball().density(torch.tensor([[[-0.125, 0.0, 0.125]]])).item())


@pytest.mark.parametrize("peak", [10.0, 100.0, 1000.0])
def test_the_solidity_of_a_cloud_is_its_integrals(peak):
    """Of a density peak exp(-r^2 / 2 w^2), the line along x through (x, y, z) passes peak w sqrt(2 pi) exp(-(y^2 + z^2)
    / 2 w^2), of which half of erfc(|x| / w sqrt(2)) lies beyond the point; and so along the other axes."""
    width, line = 0.12, np.linspace(-0.6, 0.6, 97)
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"))
    falling = np.exp(-(points**2).sum(0) / (2 * width**2))
    whole = peak * width * math.sqrt(2 * math.pi) * falling / np.exp(-(points**2) / (2 * width**2))
    beyond = whole * special.erfc(np.abs(points) / (width * math.sqrt(2))) / 2
    found = solidity((peak * falling).astype(np.float32), line[1] - line[0])
    np.testing.assert_allclose(
        found, np.minimum(beyond.min(0) / SKIN, whole.min(0) / OUTLINE), rtol=0.02, atol=2e-4 * peak
    )


def test_a_shaft_is_open_and_a_cave_is_solid():
    """A block with a shaft from its top, which a straight line from outside sees into, and a closed hollow, which none
    does.
    """
    density = np.zeros((24, 24, 24), np.float32)
    density[4:20, 4:20, 4:20] = 1000
    density[10:14, 10:14, 12:20] = 0
    density[6:8, 6:8, 6:8] = 0
    found = solidity(density, 1 / 23)
    assert found[11, 11, 15] == 0 and found[6, 6, 6] > 1 and found[11, 11, 8] > 1 and found[2, 2, 2] == 0


def test_what_stops_no_light_has_no_surface():
    with pytest.raises(UserError, match="loses half of its light"):
        extract_mesh(ball(density=0.9 * math.log(2) / 0.6), RESOLUTION)
    assert len(extract_mesh(ball(density=1.2 * math.log(2) / 0.6), RESOLUTION).mesh.faces)


def test_the_surface_of_a_soft_ball_with_a_hard_spot_is_the_ball():
    """A histogram of densities would take the hard spot for all there is."""

    class Spotted(Balls):
        def density(self, points):
            spot = (points - MIDDLE - torch.tensor([0.0, 0.0, 0.25])).norm(dim=-1) < 0.04
            return super().density(points) + 3000 * spot

    field = Spotted(MIDDLE, torch.tensor([0.3]), density=20.0)
    assert extract_mesh(field, RESOLUTION).mesh.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.01}, r"between .* and 0.01.*train for longer"),
        ({"density": math.inf}, "diverged"),
        ({"threshold": 500.0}, "no surface at density 500: .*200; choose a threshold between"),
        ({"threshold": -1.0}, "positive"),
        ({"resolution": 2}, "at least 8"),
    ],
)
def test_nothing_to_extract_says_why(options, message):
    field = ball(density=options.pop("density", 200.0))
    with pytest.raises(UserError, match=message):
        extract_mesh(field, **{"resolution": 24, **options})


def test_glb_is_y_up_linear_and_unlit(tmp_path, surface):
    path = write_mesh(tmp_path / "ball.glb", surface.mesh)
    loaded = trimesh.load(path, force="mesh", skip_materials=True, process=False)
    x, y, z = MIDDLE[0].tolist()
    assert loaded.centroid == pytest.approx([x, z, -y], abs=1e-3) and loaded.volume == pytest.approx(
        surface.mesh.volume, rel=1e-4
    )
    top = loaded.visual.vertex_colors[loaded.vertices[:, 1].argmax(), :3]
    # The top of the ball has the normal (0, 0, 1) of the z-up world, so sRGB (128, 128, 255): linear light 0.2140.
    assert np.abs(top.astype(int) - [55, 55, 255]).max() <= 6
    header = path.read_bytes()
    tree = json.loads(header[20 : 20 + int.from_bytes(header[12:16], "little")])
    assert (
        tree["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
        and tree["meshes"][0]["primitives"][0]["material"] == 0
    )


def test_glb_keeps_vertex_colors_with_its_material(tmp_path, surface):
    (loaded,) = trimesh.load(write_mesh(tmp_path / "ball.glb", surface.mesh)).geometry.values()
    colors = loaded.visual.vertex_attributes["color"]
    assert len(colors) == len(loaded.vertices) and np.ptp(colors[:, :3], axis=0).min() > 200


@pytest.mark.parametrize("name", ["ball.ply", "ball.obj"])
def test_other_formats_keep_the_world_and_the_colors(tmp_path, surface, name):
    loaded = trimesh.load(write_mesh(tmp_path / name, surface.mesh), process=False)
    assert loaded.vertices == pytest.approx(surface.mesh.vertices, abs=1e-6)
    assert np.abs(loaded.visual.vertex_colors.astype(int) - surface.mesh.visual.vertex_colors).max() <= 1


def test_another_format_is_refused(tmp_path, surface):
    with pytest.raises(UserError, match=r"glb, .ply, .obj or .stl"):
        write_mesh(tmp_path / "ball.fbx", surface.mesh)


def test_linear_light_at_known_points():
    assert srgb_to_linear(np.array([0, 10, 128, 188, 255], np.uint8)).tolist() == [0, 1, 55, 128, 255]
