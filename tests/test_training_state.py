"""What a checkpoint holds beside weights: training goes on from what training wrote, and from nothing else."""

import copy

import pytest
import torch

from scenes import set_at
from training import state_of_training
from vcgen.errors import UserError
from vcgen.training.callbacks.training_state import check_state


@pytest.fixture(scope="module")
def written() -> dict:
    """As Lightning and the callbacks write it, of a module with two weights after one step."""
    content = state_of_training(torch.nn.Linear(3, 2))
    return content | {"callbacks": content["callbacks"] | {"Another": {"anything": object}}}


def test_what_training_wrote_is_gone_on_from(written):
    check_state(written, written["loops"]["fit_loop"])
    check_state({**written, "callbacks": {}}, written["loops"]["fit_loop"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("global_step", -1),
        ("global_step", "1"),
        ("epoch", 1.5),
        ("epoch", ...),
        ("loops", ...),
        ("loops.fit_loop", ...),
        ("loops.fit_loop.epoch_progress", []),
        ("loops.fit_loop.epoch_progress.current.ready", 1 << 60),
        ("loops.fit_loop.epoch_progress.current.ready", ...),
        ("loops.fit_loop.epoch_progress.current.ready", "1"),
        ("optimizer_states", ...),
        ("optimizer_states.0.state", []),
        ("optimizer_states.0.state.0.exp_avg", torch.full((2, 3), float("nan"))),
        ("optimizer_states.0.state.0.step", "1"),
        ("optimizer_states.0.state.7", {}),
        ("optimizer_states.0.param_groups", []),
        ("optimizer_states.0.param_groups.0.lr", -1.0),
        ("optimizer_states.0.param_groups.0.params", [0, 0]),
        ("lr_schedulers.0.last_epoch", 1e9),
        ("lr_schedulers.0.base_lrs", ["1"]),
        ("lr_schedulers.0._last_lr", ...),
        ("callbacks", []),
        ("callbacks.EMA.updates", -1),
        ("callbacks.EMA.weights", {"other": torch.zeros(1)}),
        ("callbacks.EMA.weights.weight", torch.zeros(3)),
        ("callbacks.EMA.weights.weight", 1),
        ("callbacks.EMA.weights.bias", torch.zeros(2) / 0),
        ("callbacks.Checkpoints.best", {"1": 2.0}),
        ("callbacks.Checkpoints.best", {1: "2"}),
        ("callbacks.Checkpoints.monitor", 3),
    ],
)
def test_state_that_no_training_writes_is_refused(written, path, value):
    changed = copy.deepcopy(written)
    set_at(changed, path, value)
    with pytest.raises(UserError, match=r"the checkpoint's state of training.*give a .ckpt file") as error:
        check_state(changed, written["loops"]["fit_loop"])
    assert str(error.value).isprintable()
