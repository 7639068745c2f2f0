"""The hash grid: against scipy's interpolation, the published hash in plain integers, finite differences, and as a
field that learns.
"""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional as F

from vcgen.cameras import orbit, pinhole
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.fields.hashgrid import CORNERS, PRIMES, HashGrid, _WeightedSum
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.types import Field, Views


def grid(**options) -> HashGrid:
    torch.manual_seed(0)
    made = HashGrid(**{"levels": 3, "features": 2, "log2_size": 9, "coarsest": 2, "finest": 16, **options})
    torch.nn.init.normal_(made.table)
    return made


def test_resolutions_grow_geometrically_as_published():
    assert HashGrid(levels=16, coarsest=16, finest=2048, log2_size=10).sizes == [
        int(16 * 128 ** (i / 15) + 1e-9) for i in range(16)
    ]
    assert grid().sizes == [2, 5, 16] and len(grid().table) == 27 + 216 + 512


@pytest.mark.parametrize(("levels", "coarsest", "finest"), [(6, 32, 1 << 20), (7, 17, 999_983), (16, 16, 524_288)])
def test_rounding_takes_no_cell_from_a_level(levels, coarsest, finest):
    """A scene's folder keeps the finest level's number, from which its grid is made again."""
    made = HashGrid(levels, 1, 4, coarsest, finest)
    assert made.sizes[-1] == finest and made.sizes == HashGrid(levels, 1, 4, coarsest, made.sizes[-1]).sizes
    assert levels != 6 or made.sizes == [32 * 8**i for i in range(6)]


def test_levels_without_hashing_interpolate_trilinearly():
    made, points = grid(), torch.rand(200, 3, generator=torch.Generator().manual_seed(1))
    found = made(points).detach().unflatten(1, (3, 2))
    for level, (size, start) in enumerate(zip(made.sizes[:2], (0, 27))):
        # [z, y, x]
        corners = made.table.detach()[start : start + (size + 1) ** 3].reshape(size + 1, size + 1, size + 1, 2).numpy()
        where = points.numpy().T[::-1] * size
        for feature in range(2):
            expected = map_coordinates(corners[..., feature], where, order=1)
            np.testing.assert_allclose(found[:, level, feature].numpy(), expected, atol=1e-5)


def test_fine_levels_hash_their_corners_as_published():
    made = grid()

    def entry(x: int, y: int, z: int) -> int:
        return 27 + 216 + ((x * PRIMES[0]) ^ (y * PRIMES[1]) ^ (z * PRIMES[2])) % 512

    for corner in ((0, 0, 0), (3, 9, 14), (15, 15, 15)):
        rows = made.rows(torch.tensor(corner)[:, None, None].expand(3, 3, 1))[2, 0].tolist()
        assert rows == [entry(*(start + step for start, step in zip(corner, steps))) for steps in CORNERS]
    for corner in ((0, 0, 0), (3, 9, 14), (16, 16, 16)):  # a corner of the finest grid shows its own entry
        torch.testing.assert_close(made(torch.tensor([corner]) / 16.0)[0, 4:], made.table[entry(*corner)])


def test_every_entry_is_counted_in_32_bits():
    with pytest.raises(ValueError, match="log2_size of 1 to 24"):
        HashGrid(log2_size=25)


def test_gradients_agree_with_finite_differences():
    made = grid(levels=2, finest=4)
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(2)) * 0.9 + 0.03
    weights = torch.randn(20, 4, generator=torch.Generator().manual_seed(3))
    moved = points.clone().requires_grad_()
    (made(moved) * weights).sum().backward()
    step = 1e-3
    inside = (points[:, None] * torch.tensor([2.0, 4.0])[:, None] % 1 - 0.5).abs().amax(
        (1, 2)
    ) < 0.49  # no cell's face within the step
    assert inside.sum() > 10
    for axis in range(3):
        shift = torch.eye(3)[axis] * step
        difference = ((made(points + shift) - made(points - shift)) * weights).sum(1) / (2 * step)
        torch.testing.assert_close(moved.grad[inside, axis], difference[inside].detach(), atol=5e-3, rtol=1e-3)
    entry = int(made.rows(torch.zeros(3, 2, 1, dtype=torch.long))[0, 0, 0])
    near = torch.full((1, 3), 0.1)
    made.zero_grad()
    made(near)[0, 0].backward()
    assert float(made.table.grad[entry, 0]) == pytest.approx(0.8**3)  # a cell is 0.5 wide


def test_the_fast_gradients_are_those_of_pytorchs_embedding_bag():
    table = torch.randn(50, 3, requires_grad=True)
    rows, weights = torch.randint(50, (200, 8)), torch.rand(200, 8).requires_grad_()
    direction = torch.randn(200, 3)
    found = [
        torch.autograd.grad((made * direction).sum(), (table, weights))
        for made in (
            _WeightedSum.apply(table, rows, weights),
            F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum"),
        )
    ]
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs)


def test_no_points_have_no_features():
    made = grid()
    found = made(torch.empty(0, 3))
    found.sum().backward()
    assert found.shape == (0, 6) and bool((made.table.grad == 0).all())


def test_a_density_bias_lowers_the_density_everywhere():
    fields = []
    for bias in (0.0, -3.0):
        torch.manual_seed(0)
        fields.append(SceneHashGrid(HashGrid(2, 2, 8, 4, 8), density_bias=bias)(views(1)))
    points = torch.rand(1, 20, 3)
    ratio = fields[1].density(points) / fields[0].density(points)
    torch.testing.assert_close(ratio, torch.full_like(ratio, math.exp(-3)))


def test_hidden_levels_are_zero_and_get_no_gradient():
    made, points = grid(), torch.rand(50, 3)
    whole = made(points).detach()
    made.active_levels = 1
    coarse = made(points)
    torch.testing.assert_close(coarse[:, :2], whole[:, :2])
    assert bool((coarse[:, 2:] == 0).all())
    coarse.sum().backward()
    assert bool((made.table.grad[27:] == 0).all()) and bool((made.table.grad[:27] != 0).any())


def test_points_outside_show_the_nearest_face():
    made = grid()
    torch.testing.assert_close(made(torch.tensor([[-1.0, 0.3, 2.0]])), made(torch.tensor([[0.0, 0.3, 1.0]])))


def test_the_blob_puts_matter_into_the_middle():
    torch.manual_seed(0)
    field = SceneHashGrid(HashGrid(4, 2, 8, 4, 16), half_size=1.0, blob=(5.0, 0.2))(views(1))
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.9, 0.0, 0.0]]])
    bare = SceneHashGrid(HashGrid(4, 2, 8, 4, 16), half_size=1.0)
    bare.decoder, bare.grid = field.decoder, field.grid
    ratio = field.density(points) / bare(views(1)).density(points)
    torch.testing.assert_close(
        ratio[0].log(), 5 * torch.tensor([1.0, math.exp(-0.5), math.exp(-0.81 / 0.08)]), atol=1e-4, rtol=1e-4
    )
    assert isinstance(field, Field)


def views(count: int, size: int = 16) -> Views:
    cameras = orbit(
        torch.arange(count) * 360.0 / count, torch.full((count,), 20.0), 3.0, pinhole(1.2, 1.2), 1.5, 4.5
    ).reshape(1, count)
    return Views(torch.ones(1, count, 3, size, size), cameras, torch.ones(1, count, 1, size, size))


def test_it_learns_a_ball_from_its_images():
    class Ball:
        center, radius, proposal = torch.zeros(1, 3), torch.ones(1), None

        def __call__(self, points, directions):
            return self.density(points), (points + 0.5).clamp(0, 1)

        def density(self, points):
            return 40.0 * (points.norm(dim=-1) < 0.5)

    seen, size, options = views(6), (12, 12), RenderOptions(24)
    truth = render_image(Ball(), seen.cameras, size, options)
    torch.manual_seed(0)
    scene = SceneHashGrid(HashGrid(6, 2, 12, 4, 32), half_size=1.0)
    optimizer = torch.optim.Adam(scene.parameters(), lr=1e-2)
    errors = []
    for _ in range(50):
        loss = (render_image(scene(seen), seen.cameras, size, options).rgb - truth.rgb).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.1 * errors[0]
    other = orbit(torch.tensor([22.0]), torch.tensor([20.0]), 3.0, pinhole(1.2, 1.2), 1.5, 4.5).reshape(1, 1)
    with torch.no_grad():
        shown, expected = (render_image(f, other, size, options).rgb for f in (scene(seen), Ball()))
    assert -10 * math.log10(float((shown - expected).square().mean())) > 20


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"features": 0}, {"coarsest": 8, "finest": 4}])
def test_impossible_grids_are_refused(wrong):
    with pytest.raises(ValueError):
        HashGrid(**wrong)
