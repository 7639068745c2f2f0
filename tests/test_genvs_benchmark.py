"""benchmarks/genvs.py: the way around, and what its table says."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import genvs
from small_genvs import encoder, prior
from vcgen.cameras import orbit, pinhole, view_angles
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.genvs import GeNVS


def test_the_circle_begins_where_the_input_was_taken_and_goes_once_around():
    (camera,) = (orbit(torch.tensor([70.0]), torch.tensor([40.0]), 1.3, pinhole(1.0), 0.8, 1.8)[i] for i in (0,))
    azimuth, elevation = view_angles(genvs.circle(camera, 6).centers)
    turned = (azimuth - 70) % 360
    torch.testing.assert_close(turned, torch.arange(6) * 60.0, atol=1e-3, rtol=0)
    torch.testing.assert_close(elevation, torch.full((6,), genvs.ELEVATION))


@pytest.mark.integration
def test_every_method_goes_around_the_same_cars(tmp_path):
    torch.manual_seed(0)
    model = GeNVS(encoder(), RenderOptions(4), prior=prior(size=64)).eval()
    found, groups = genvs.around(model, cars=2, frames=3, steps=1, sheet=tmp_path / "around.png")
    assert tuple(found) == genvs.METHODS and all(values.keys() == groups.keys() for values in found.values())
    assert len(groups) == 2
    with Image.open(tmp_path / "around.png") as sheet:
        assert sheet.width > 4 * 64


def test_the_gain_is_that_of_the_path_over_each_by_itself():
    cars = {"a": 0.0, "b": 1.0, "c": 2.0}
    found = {
        name: {car: value + offset for car, value in cars.items()}
        for name, offset in zip(genvs.METHODS, (20.0, 10.0, 13.0), strict=True)
    }
    rows, gain = genvs.turn_rows(found, {"a": "x", "b": "x", "c": "y"})
    assert [row["agreement"] for row in rows] == [21.0, 11.0, 14.0]
    assert gain["mean"] == 3.0 and gain["interval95"] == (3.0, 3.0) and gain["improved"] == 1.0
    assert (
        genvs.turn_table(rows, gain, 24)[-1]
        == "Along the path over each by itself: 3.00 [3.00, 3.00] dB, better for 100 % of cars."
    )
