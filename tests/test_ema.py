"""The averaged weights: their closed form, when they are in place, and where they are stored."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vcgen.errors import UserError
from vcgen.optim.ema import EMA


@pytest.fixture
def module():
    """One trained and one frozen parameter."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(1))
    module.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    return module


def start(ema, module, step=0):
    trainer = SimpleNamespace(global_step=step)
    ema.on_fit_start(trainer, module)
    ema.on_train_start(trainer, module)
    return trainer


def train(ema, trainer, module, values):
    """The weight takes each value at one optimizer step."""
    for value in values:
        with torch.no_grad():
            module.weight.fill_(value)
        trainer.global_step += 1
        ema.on_train_batch_end(trainer, module, None, None, 0)


def test_a_constant_decay_gives_the_geometric_average(module):
    ema = EMA(decay=0.1)  # (1 + n) / (10 + n) is never below it: no warm-up
    train(ema, start(ema, module), module, [1.0] * 5)
    assert ema.weights["weight"].item() == pytest.approx(1 - 0.1**5)


def test_the_warm_up_follows_its_formula(module):
    ema = EMA(decay=0.999)
    train(ema, start(ema, module), module, [1.0] * 6)
    left = 1.0
    for n in range(6):
        left *= (1 + n) / (10 + n)
    assert ema.weights["weight"].item() == pytest.approx(1 - left)


def test_only_trained_parameters_are_averaged(module):
    ema = EMA()
    start(ema, module)
    assert list(ema.weights) == ["weight"]


def test_batches_without_an_optimizer_step_do_not_count(module):
    ema = EMA(decay=0.1)
    trainer = start(ema, module)
    with torch.no_grad():
        module.weight.fill_(1.0)
    ema.on_train_batch_end(trainer, module, None, None, 0)
    assert ema.updates == 0 and ema.weights["weight"].item() == 0


def test_a_resumed_trainer_with_accumulation_does_not_count_its_first_batch(module):
    ema = EMA(decay=0.1)
    # Lightning restores the step only between these two hooks
    ema.on_fit_start(SimpleNamespace(global_step=0), module)
    resumed = SimpleNamespace(global_step=7)
    ema.on_train_start(resumed, module)
    ema.on_train_batch_end(resumed, module, None, None, 0)
    assert ema.updates == 0


def test_validation_sees_the_average_and_training_goes_on_with_the_trained_weights(module):
    ema = EMA(decay=0.1)
    train(ema, start(ema, module), module, [2.0])
    ema.on_validation_start(None, module)
    assert module.weight.item() == pytest.approx(0.9 * 2) and module.frozen.item() == 1
    ema.on_validation_end(None, module)
    assert module.weight.item() == 2.0


def test_an_error_in_validation_brings_the_trained_weights_back(module):
    ema = EMA(decay=0.1)
    train(ema, start(ema, module), module, [2.0])
    ema.on_validation_start(None, module)
    ema.on_exception(None, module, RuntimeError())
    assert module.weight.item() == 2.0


def test_restoring_continues_the_average(module):
    whole, first, second = EMA(0.999), EMA(0.999), EMA(0.999)
    train(whole, start(whole, module), module, [1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        module.weight.zero_()
    train(first, start(first, module), module, [1.0, 2.0])
    second.load_state_dict(first.state_dict())
    train(second, start(second, module, step=2), module, [3.0, 4.0])
    assert torch.equal(whole.weights["weight"], second.weights["weight"]) and whole.updates == second.updates == 4


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_impossible_decays_are_refused(decay):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        EMA(decay)


@pytest.mark.parametrize("averaged", ["weight", "other"])
def test_averages_of_other_weights_are_not_validated(module, averaged):
    """As of a checkpoint that `vcgen validate` is given with another run's configuration."""
    ema = EMA()
    ema.load_state_dict({"weights": {averaged: torch.ones(1)}, "updates": 3})
    module.weight.requires_grad_(averaged == "other")
    with pytest.raises(UserError, match=r"averages are of other weights .* config\.yaml of its run"):
        ema.on_validation_start(None, module)
