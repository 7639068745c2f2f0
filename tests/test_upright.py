"""Which way is up in a solver's world."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scenes import looking_inwards
from vcgen.data.formats.upright import guessed_up, turn_to_z


def test_up_is_guessed_where_all_photos_look_down_from_one_side_and_where_none_is_level():
    cameras = looking_inwards(400, seed=1)
    side = cameras[(cameras[:, 0, 3] > 0.3) & (cameras[:, 2, 3] > 0.5)]
    assert len(side) > 10 and -side[:, 2, 1].mean() < 0.9, "their mean upward direction leans"
    assert np.allclose(guessed_up(side)[0], [0, 0, 1], atol=1e-9)
    rolled = side.copy()
    angles = np.random.default_rng(0).normal(0, 1.2, len(side))
    rolled[:, :3, :3] = side[:, :3, :3] @ Rotation.from_rotvec(angles[:, None] * [0, 0, 1.0]).as_matrix()
    assert "mean" in guessed_up(rolled)[1]
    forward = np.stack([np.eye(4), np.eye(4)])
    assert np.allclose(guessed_up(forward)[0], [0, -1, 0])
    assert "cancel" in guessed_up(np.stack([np.eye(4), np.diag([-1.0, -1, 1, 1])]))[1]


@pytest.mark.parametrize("up", [[0, 0, 1], [0, 0, -1], [0.6, 0, 0.8], [0, -1, 0]])
def test_turning_up_to_z_is_a_rotation(up):
    turn = turn_to_z(np.array(up, float))
    assert np.allclose(turn @ up, [0, 0, 1]) and np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) > 0
