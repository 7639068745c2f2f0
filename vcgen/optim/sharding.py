"""Weights of which every process keeps a part (FSDP2's DTensor) beside ones that every process has whole (plain
tensors).
"""

import functools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, get_world_size
from torch.distributed.tensor import DTensor, distribute_tensor


def local(value: Tensor) -> Tensor:
    """This process's part of a tensor, sharing its memory."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """The tensor put together, on the CPU where it was sharded. Every process must call it."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def placed_like(value: Tensor, model: Tensor) -> Tensor:
    """``value`` on the device, and sharded as, ``model`` is. Every process must have it whole."""
    if not isinstance(model, DTensor) or isinstance(value, DTensor):
        return value.to(model.device)
    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The 2-norm of all gradients together, a plain scalar; with sharded ones every process must call it."""
    gradients = list(gradients)
    kinds = [g for g in gradients if isinstance(g, DTensor)], [g for g in gradients if not isinstance(g, DTensor)]
    norms = [torch.nn.utils.get_total_norm(kind) for kind in kinds if kind]
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    return functools.reduce(torch.hypot, norms)


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """As torch.nn.utils.clip_grad_norm_, for both kinds of weights together."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    fraction = (limit / (total_norm(gradients) + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([local(gradient) for gradient in gradients], fraction)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average over all processes what FSDP2 does not: the gradients of weights that every process has whole."""
    gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    if gradients:
        flat = torch.cat([g.flatten() for g in gradients])
        all_reduce(flat, ReduceOp.SUM)
        for gradient, mean in zip(
            gradients, (flat / get_world_size()).split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))
