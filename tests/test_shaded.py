"""The benchmark's images of lit surfaces against projections known in closed form, and against images that another
renderer made.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vcgen.cameras import orbit, pinhole

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from shaded import SKY, draw, to_linear, to_srgb


def front_camera(focal=1.0):
    """At (0, -2, 0), looking along +y; x is right and z is up."""
    return orbit(torch.zeros(1), torch.zeros(1), 2.0, pinhole(focal), 0.1, 4.0)


def square(half, y, color):
    """Two triangles in the plane of constant y, and the color of their corners."""
    a, b, c, d = ([x * half, y, z * half] for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
    return np.array([[a, b, c], [a, c, d]], float), np.broadcast_to(np.array(color, float), (2, 3, 3))


def test_a_square_covers_its_projection():
    """Half the edge 0.5 at distance 2: a quarter of the image on either side of the middle, half of its width."""
    _, alpha = draw(*square(0.5, 0.0, (1, 0, 0)), front_camera(), 32)
    expected = torch.zeros(32, 32)
    expected[8:24, 8:24] = 1
    torch.testing.assert_close(alpha[0, 0], expected)


def test_the_nearer_surface_hides_the_farther_whatever_their_order():
    near, far = square(0.25, -0.5, (1, 0, 0)), square(0.5, 0.5, (0, 0, 1))
    for first, second in ((near, far), (far, near)):
        rgb, alpha = draw(
            np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]]), front_camera(), 30
        )
        assert rgb[0, 0, 15, 15] > 0.5 and rgb[0, 2, 15, 15] == 0  # red in the middle
        assert rgb[0, 2, 15, 9] > 0.3 and rgb[0, 0, 15, 9] == 0  # blue beside it
        assert alpha[0, 0].sum() == pytest.approx(144)  # of the far one: 0.4 of the width


def test_colors_are_interpolated_in_perspective():
    """A floor that leads away, black to white: the color of each row is that of the floor where the row's ray meets
    it.
    """
    floor = np.array(
        [[[-9, -1, -0.5], [9, -1, -0.5], [9, 7, -0.5]], [[-9, -1, -0.5], [9, 7, -0.5], [-9, 7, -0.5]]], float
    )
    near, far = [0.0] * 3, [0.5] * 3
    rgb, alpha = draw(floor, np.array([[near, near, far], [near, far, far]]), front_camera(), 64, finer=1)
    row = torch.arange(34, 63)
    assert (alpha[0, 0, row, 32] == 1).sum() > 20
    distance = 0.5 / ((row + 0.5) / 64 - 0.5)  # along y, from the camera at y = -2, 0.5 above the floor
    fraction = ((distance - 1) / 8).clamp(0, 1).numpy()
    seen = (alpha[0, 0, row, 32] == 1).numpy()
    light = to_linear(rgb[0, 0, row, 32]).numpy()[seen] / (fraction[seen] * to_linear(torch.tensor(0.5)).item()).clip(
        1e-9
    )
    bright = fraction[seen] > 0.05
    assert np.ptp(light[bright]) < 0.02 and light[bright].mean() > SKY


def test_srgb_and_back():
    values = torch.linspace(0, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(to_srgb(to_linear(values)), values, rtol=1e-5, atol=1e-6)
    assert to_linear(torch.tensor(0.5)).item() == pytest.approx(0.214041, abs=1e-6)


@pytest.mark.slow
def test_scans_look_as_another_renderer_drew_them(shared_data):
    """So the surfaces lie in the cameras' world: what the metrics of shapes rest on."""
    from objects import load_objects
    from vcgen.metrics.image import psnr

    for known in load_objects(
        shared_data / "toys64", shared_data / "ycb_scans", shared_data / "meshes_lowpoly_cc0", None, 4
    ):
        rgb, alpha = draw(known.triangles, known.corner_rgb, known.views.cameras, 64)
        mine, other = alpha > 0.5, known.views.alpha > 0.5
        assert ((mine & other).sum((1, 2, 3)) / (mine | other).sum((1, 2, 3))).min() > 0.97
        found = psnr(rgb * alpha + 1 - alpha, known.views.on(1.0))
        assert found.mean() > 23 and found.min() > 19  # the worst, one view of a printed box, has 19.5
