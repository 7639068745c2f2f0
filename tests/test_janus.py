"""The Janus score of objects whose number of faces is known."""

import pytest
import torch

from vcgen.metrics.janus import janus


def side(face: bool) -> torch.Tensor:
    """A gray side, or one with two eyes and a mouth."""
    image = torch.full((3, 32, 32), 0.6)
    if face:
        image[:, 10:14, 8:13] = image[:, 10:14, 19:24] = 0.05
        image[0, 20:24, 10:22], image[1:, 20:24, 10:22] = 0.9, 0.1
    return image


def score(*faces: bool) -> float:
    alpha = torch.zeros(4, 1, 32, 32)
    alpha[..., 4:28, 4:28] = 1
    return janus(torch.stack([side(face) for face in faces]), alpha)


def test_a_cube_with_four_equal_faces_scores_one():
    assert score(True, True, True, True) == pytest.approx(1)


def test_the_score_counts_the_faces():
    one, two, three = score(True, False, False, False), score(True, False, True, False), score(True, True, True, False)
    assert one < 0.05
    assert two == pytest.approx(one + (1 - one) / 3) and three == pytest.approx(one + (1 - one) * 2 / 3)


def test_a_ball_of_one_color_is_alike_on_all_sides():
    assert score(False, False, False, False) == pytest.approx(1)


def test_what_lies_behind_the_object_does_not_count():
    images, alpha = torch.stack([side(True)] * 4), torch.zeros(4, 1, 32, 32)
    alpha[..., 4:28, 4:28] = 1
    images[1:, :, :4] = torch.rand(3, 3, 4, 32)
    assert janus(images, alpha) == pytest.approx(1)


def test_another_outline_lowers_the_score():
    images, alpha = torch.stack([side(False)] * 4), torch.zeros(4, 1, 32, 32)
    alpha[:, :, 4:28, 4:28] = 1
    alpha[1:, :, 4:16] = 0
    assert janus(images, alpha) < 0.5


def test_nothing_to_see_scores_nothing():
    assert janus(torch.zeros(4, 3, 8, 8), torch.zeros(4, 1, 8, 8)) == 0
