"""Texture look-ups against grid_sample and finite differences; the level of mipmaps against the size of texels in the
image.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from raster_scenes import flat, straight
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import rasterize
from vcgen.rendering.textures import Mipmaps, mip_level, sample


def by_grid(texture, uv, padding):
    """(m, C) of one texture (1, C, H, W) by PyTorch's own look-up."""
    return F.grid_sample(texture, (uv * 2 - 1)[None, None], align_corners=False, padding_mode=padding)[0, :, 0].T


@pytest.mark.parametrize(("wrap", "padding"), [("clamp", "border"), ("mirror", "reflection"), ("repeat", None)])
def test_look_ups_equal_grid_sample_in_value_and_gradient(wrap, padding):
    texture, uv = torch.rand(1, 3, 5, 8, dtype=torch.float64), torch.rand(200, 2, dtype=torch.float64) * 3 - 1
    weight, found = torch.randn(200, 3, dtype=torch.float64), []
    for look_up in (
        lambda t, at: sample(Mipmaps.of(t), at, wrap=(wrap, wrap)),
        lambda t, at: by_grid(t, at, padding) if padding else by_grid(t.tile(1, 1, 5, 5), (at + 2) / 5, "zeros"),
    ):
        leaves = texture.clone().requires_grad_(), uv.clone().requires_grad_()
        values = look_up(*leaves)
        (values * weight).sum().backward()
        found.append((values.detach(), *(leaf.grad for leaf in leaves)))
    for mine, other in zip(*found):
        torch.testing.assert_close(mine, other)


def test_each_axis_wraps_in_its_own_way_and_v_points_down():
    texture = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    at = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [1.25, 0.25], [0.25, 1.25]])
    assert sample(Mipmaps.of(texture), at, wrap=("repeat", "clamp"))[:, 0].tolist() == [0, 1, 2, 0, 2]
    assert sample(Mipmaps.of(texture), at, wrap=("mirror", "repeat"))[:, 0].tolist() == [0, 1, 2, 1, 0]


def test_gradients_with_levels_are_those_of_finite_differences():
    texture = torch.rand(2, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    uv = torch.rand(9, 2, dtype=torch.float64, requires_grad=True)
    slopes, which = torch.rand(9, 2, 2, dtype=torch.float64), torch.arange(9) % 2
    assert torch.autograd.gradcheck(
        lambda t, at: sample(Mipmaps.of(t), at, slopes, which, ("repeat", "clamp")), (texture, uv)
    )


def test_several_textures_are_told_apart_on_every_level():
    textures, uv = torch.rand(3, 2, 8, 4), torch.rand(30, 2)
    which, slopes = torch.arange(30) % 3, torch.rand(30, 2, 2)
    together = sample(Mipmaps.of(textures), uv, slopes, which)
    for i in range(3):
        mine = which == i
        assert torch.equal(together[mine], sample(Mipmaps.of(textures[i : i + 1]), uv[mine], slopes[mine]))
    with pytest.raises(ValueError, match="3 textures"):
        sample(Mipmaps.of(textures), uv)


def test_levels_are_means_by_area_and_between_them_lies_a_mean():
    texture = torch.rand(1, 2, 8, 16, dtype=torch.float64)
    mipmaps = Mipmaps.of(texture)
    assert mipmaps.sizes == ((8, 16), (4, 8), (2, 4), (1, 2), (1, 1)) and Mipmaps.of(texture, 2).sizes == (
        (8, 16),
        (4, 8),
    )
    assert Mipmaps.of(torch.rand(1, 1, 5, 3)).sizes == ((5, 3), (2, 1), (1, 1))
    torch.testing.assert_close(mipmaps.table[-1], texture.mean((0, 2, 3)))
    uv = torch.rand(50, 2, dtype=torch.float64)
    for level in (0, 1, 2, 0.5, 1.75):
        slopes = torch.zeros(50, 2, 2, dtype=torch.float64)
        slopes[:, 0, 0] = 2**level / 16  # that many texels to the right
        slopes[:, 1, 1] = 0.5 / 8
        low, high = (
            by_grid(F.avg_pool2d(texture, 2**whole), uv, "border") for whole in (math.floor(level), math.ceil(level))
        )
        torch.testing.assert_close(
            sample(mipmaps, uv, slopes, wrap=("clamp", "clamp")), low + (level % 1) * (high - low)
        )


@pytest.mark.parametrize(("texels", "pixels"), [(64, 64), (64, 16), (64, 24), (16, 64)])
def test_a_surface_reads_the_level_whose_texels_are_as_large_as_its_pixels(texels, pixels):
    """A square that fills the image, and the same seen at a slant, whose rows are each farther than the last."""
    square = flat((0, 0), (1, 0), (1, 1), (0, 1))
    raster = rasterize(square, straight(1), (pixels, pixels))
    slopes = raster.slopes(square.vertices[:, :2])
    assert slopes.shape == (pixels**2, 2, 2)
    level = mip_level(slopes, (texels, texels))
    torch.testing.assert_close(level, torch.full_like(level, max(0.0, math.log2(texels / pixels))))
    board = (torch.arange(texels)[:, None] + torch.arange(texels)) % 2
    seen = sample(Mipmaps.of(board[None, None].double()), raster.interpolate(square.vertices[:, :2]), slopes)
    if texels == 4 * pixels:
        assert (seen - 0.5).abs().max() < 1e-12  # without levels every pixel would see one and the same
    if texels == pixels:
        assert torch.equal(seen[:, 0].round(), board.reshape(-1).double())


def test_levels_grow_with_distance():
    corners = torch.tensor([[0.0, 1, 0.5], [1, 1, 0.5], [1, 1, 40], [0, 1, 40]], dtype=torch.float64)
    floor = Meshes(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    raster = rasterize(floor, straight(1), (40, 40))
    level = mip_level(raster.slopes(corners[:, ::2]), (32, 32))
    # at z = 1 / v a pixel down is z^2 / 40 of the floor's length, and as much times x / z of its width; a texel is 1 /
    # 32
    x = (raster.pixels % 40 + 0.5) / 40
    torch.testing.assert_close(level, (raster.z**2 / 40 * 32 * (1 + x.double() ** 2).sqrt()).clamp(min=1).log2())
    assert level.max() > 3


def test_unknown_wraps_are_refused():
    with pytest.raises((ValueError, TypeError), match="mirror"):
        sample(Mipmaps.of(torch.rand(1, 1, 2, 2)), torch.rand(1, 2), wrap=("border", "clamp"))


def test_levels_are_made_on_the_device_of_the_textures():
    texture, uv, slopes = torch.rand(1, 3, 4, 4), torch.rand(5, 2), torch.rand(5, 2, 2)
    with torch.device("meta"):
        assert sample(Mipmaps.of(texture), uv, slopes).device.type == "cpu"
