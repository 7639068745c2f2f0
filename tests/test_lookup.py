"""The fast look-up against the plain one, and the plain one against a closed form."""

import pytest
import torch

from vcgen.fields.lookup import sample_by_bags, sample_by_grid, sample_planes


def coordinates(n=200, dtype=torch.float64):
    return torch.rand(2, n, 3, 2, dtype=dtype) * 2.4 - 1.2  # some outside: the border is part of the contract


@pytest.mark.parametrize("reduce", [True, False])
def test_bags_equal_grid_sample_in_value_and_gradient(reduce):
    planes = torch.randn(2, 3, 5, 8, 8)
    uv = coordinates(dtype=torch.float32)
    results, gradients = [], []
    for sample in (sample_by_grid, sample_by_bags):
        leaf = planes.clone().requires_grad_()
        out = sample(leaf, uv, reduce)
        (out * torch.arange(out.numel()).reshape(out.shape).cos()).sum().backward()
        results.append(out.detach())
        gradients.append(leaf.grad)
    assert results[0].shape == (2, 200, 5 if reduce else 15)
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-4)


def test_a_linear_ramp_is_reproduced_exactly():
    size = 16
    steps = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    planes = torch.stack([x, y]).expand(1, 3, 2, size, size)
    uv = (torch.rand(1, 50, 3, 2) * 2 - 1) * (1 - 1 / size)
    out = sample_planes(planes, uv, reduce=False).reshape(1, 50, 3, 2)
    torch.testing.assert_close(out, uv)


def test_coordinates_get_gradients_when_asked():
    planes, uv = torch.randn(1, 3, 4, 8, 8), coordinates(10, torch.float32)[:1].requires_grad_()
    sample_planes(planes, uv, reduce=True).sum().backward()
    assert uv.grad is not None and uv.grad.abs().sum() > 0


def test_bag_gradient_equals_finite_differences():
    planes = torch.randn(1, 3, 2, 4, 4, requires_grad=True)
    uv = coordinates(6, torch.float32)[:1]
    assert torch.autograd.gradcheck(lambda p: sample_by_bags(p, uv, True), (planes,), eps=1e-2, atol=1e-2, rtol=1e-2)
