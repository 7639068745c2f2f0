"""What a checkpoint holds beside weights: training goes on from what training wrote, and from nothing else."""

import copy

import lightning.pytorch as pl
import pytest
import torch

from scenes import set_at
from vcgen.errors import UserError
from vcgen.training.callbacks.training_state import check_state


@pytest.fixture(scope="module")
def written() -> dict:
    """As Lightning and the callbacks write it, of a module with two weights after one step."""
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    return {
        "state_dict": module.state_dict(),
        "global_step": 1,
        "epoch": 0,
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0).state_dict()],
        "callbacks": {
            "EMA": {"weights": {name: p.detach().clone() for name, p in module.named_parameters()}, "updates": 1},
            "Checkpoints": {
                "monitor": "val/psnr",
                "mode": "max",
                "current_score": 20.5,
                "best": {1: 20.5},
                "unvalidated": False,
            },
            "Another": {"anything": object},
        },
    }


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
