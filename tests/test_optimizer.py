"""The optimizers agree with PyTorch's own; Muon's step is orthogonal; the options decide which weights it takes."""

import copy

import pytest
import torch
from torch import nn

from vcgen.optim.optimizer import MuonAdamW, OptimizerOptions, iterate, iterate_gram, orthogonalize


def gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40), nn.LayerNorm(40), nn.Linear(40, 8))


def test_matrices_and_vectors_move_as_with_pytorchs_own_optimizers():
    ours, theirs = network(), network()
    optimizer = OptimizerOptions(lr=1e-3, muon_lr=0.02, weight_decay=0.1).build(ours.parameters())
    matrices, vectors = ([p for p in theirs.parameters() if (p.ndim == 2) == flag] for flag in (True, False))
    adamw = torch.optim.AdamW(vectors, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    reference = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1), adamw
    for step in range(5):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step()
        for r in reference:
            r.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        # The iteration runs in bfloat16, whose rounding depends on the order of operations: compare the way moved.
        torch.testing.assert_close(a, b, atol=2e-3 if a.ndim == 2 else 0, rtol=0)
    moved = (ours[0].weight - network()[0].weight).abs().mean()
    assert moved > 0.01


@pytest.mark.parametrize("muon_lr", [None, 0.02])
def test_scaled_gradients_are_unscaled_before_the_step(muon_lr):
    plain, scaled = network(), network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for model in (plain, scaled):
        optimizer = OptimizerOptions(lr=1e-3, muon_lr=muon_lr).build(model.parameters())
        gradients(model, 0)
        if model is scaled:
            scaler.scale(torch.zeros(()))  # as a backward pass does first
            for p in model.parameters():
                p.grad *= scaler.get_scale()
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer) if model is scaled else optimizer.step()
    for a, b in zip(plain.parameters(), scaled.parameters()):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 4, 3, 3)])
def test_a_step_turns_all_directions_equally(shape):
    torch.manual_seed(1)
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = MuonAdamW([weight], [], muon_lr=1.0, lr=1.0)
    weight.grad = torch.randn(shape) * torch.logspace(-1, 0, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    optimizer.step()
    rows, columns = weight.flatten(1).shape
    singular = torch.linalg.svdvals(weight.detach().flatten(1)) / max(1, rows / columns) ** 0.5
    assert singular.min() > 0.6 and singular.max() < 1.25


@pytest.mark.parametrize("shape", [(16, 24), (16, 48), (48, 16)])
def test_orthogonalization_keeps_the_singular_vectors(shape):
    torch.manual_seed(2)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.mT @ orthogonalize(matrix[None])[0] @ v.mT
    diagonal = rotated.diagonal()
    assert diagonal.min() > 0.6 and diagonal.max() < 1.25 and (rotated - torch.diag(diagonal)).abs().max() < 0.1


def test_both_ways_to_iterate_agree():
    torch.manual_seed(3)
    x = torch.randn(3, 24, 60, dtype=torch.float64)
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(iterate(x, 5), iterate_gram(x, 5), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(iterate(x, 5).float(), iterate_gram(x.float(), 5), atol=1e-3, rtol=1e-3)


def test_a_saved_state_continues_exactly():
    options = OptimizerOptions(muon_lr=0.02)
    whole = network()
    first = options.build(whole.parameters())
    gradients(whole, 0)
    first.step()
    resumed = copy.deepcopy(whole)
    second = options.build(resumed.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for model, optimizer in ((whole, first), (resumed, second)):
        gradients(model, 1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters()))


def test_without_a_rate_for_muon_all_is_adamw():
    assert type(OptimizerOptions().build(network().parameters())) is torch.optim.AdamW


def test_frozen_parameters_are_left_out():
    model = network().requires_grad_(False)
    model[0].requires_grad_(True)
    groups = OptimizerOptions(muon_lr=0.02).build(model.parameters()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2
