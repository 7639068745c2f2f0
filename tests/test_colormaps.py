"""Colors of depth and errors mean the same wherever they are shown."""

import numpy as np
import pytest

from vcgen.visualization.images import PLASMA, REDS, colored, depth_image, error_image


def lightness(colors: np.ndarray) -> np.ndarray:
    """CIE L* (1976) of sRGB colors (n, 3): what the eye takes for equal steps from black, 0, to white, 100."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


@pytest.mark.parametrize(("colors", "sign"), [(PLASMA, 1), (REDS, -1)])
def test_lightness_orders_the_values_in_even_steps(colors, sign):
    steps = sign * np.diff(lightness(colored(np.linspace(0, 1, 65), colors)))
    assert steps.min() > 0.3 and steps.max() < 3 * steps.mean()


def test_depth_is_warm_near_cold_far_and_white_where_empty():
    near, middle, far = depth_image(np.array([[0.8, 1.3, 1.8]]), 0.8, 1.8)[0].astype(int)
    assert near[0] > 200 > 100 > near[2] and middle.argmax() == 0 and far.argmax() == 2
    assert depth_image(np.array([[1.0]]), 0.8, 1.8, np.zeros((1, 1)))[0, 0].tolist() == [255, 255, 255]


def test_depth_outside_the_range_is_clamped():
    below, at, past, end = depth_image(np.array([[0.1, 0.8, 9.0, 1.8]]), 0.8, 1.8)[0].tolist()
    assert below == at and past == end


def test_errors_are_white_where_there_is_none_and_end_at_half_the_range():
    truth = np.full((3, 1, 3), 0.5)
    none, half, whole = error_image(truth + np.array([[[0.0, 0.5, -0.5]]]), truth)[0].tolist()
    assert none == [255, 255, 255] and half == whole == [0x73, 0x0A, 0x26]
