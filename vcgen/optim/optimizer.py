"""The optimizers and the learning rate's course: AdamW for everything, or Muon for the weight matrices and AdamW for
the rest. And gradients of weights that every process has whole, beside those of weights of which it keeps a part
(FSDP2's DTensor): their norm, and clipping.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, get_world_size
from torch.distributed.tensor import DTensor

from vcgen.errors import UserError
from vcgen.schema import BelowOne, Count, NotNegative, Unit


@dataclass(frozen=True)
class OptimizerOptions:
    """Optimizer and learning-rate schedule.

    Args:
        lr: Peak learning rate of AdamW.
        betas: AdamW's.
        weight_decay: AdamW's and Muon's.
        muon_lr: Peak learning rate of Muon for all weights of two and more dimensions (0.01 was the best here; it does
            not depend on their size); null trains them by AdamW, too.
        warmup_steps: Steps of the linear rise from 0.
        schedule: "cosine" falls to the fraction ``final`` of the peak over the run (``trainer.max_steps``, else
            ``trainer.max_time``); "constant" stays; "wsd" (warmup-stable-decay, arXiv 2404.06395) stays, and falls
            linearly to ``final`` over the last ``decay_fraction``: what is trained before the fall can be prolonged.
        final: Fraction of the peak at the end of "cosine" and "wsd".
        decay_fraction: Part of the run over which "wsd" falls, in [0, 1].
    """

    lr: NotNegative = 1e-4
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    weight_decay: NotNegative = 0.0
    muon_lr: NotNegative | None = None
    warmup_steps: Count = 100
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    final: Unit = 0.02
    decay_fraction: Unit = 0.2

    def factor(self, step: int, progress: float) -> float:
        """Multiplier of the learning rates at a step, where ``progress`` in [0, 1] is the fraction of the run that is
        over.
        """
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "constant":
            return warm
        progress = min(1.0, progress)
        if self.schedule == "wsd":
            height = min(1.0, (1 - progress) / self.decay_fraction) if self.decay_fraction else 1.0
        else:
            height = 0.5 * (1 + math.cos(math.pi * progress))
        return warm * (self.final + (1 - self.final) * height)

    def build(self, parameters: Iterable[nn.Parameter], tables: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
        """The optimizer of the parameters that require gradients. tables: those whose rows are looked up; they stay
        with AdamW, since a step of Muon would turn every row for the few that were seen. Raises UserError for Muon with
        sharded ones."""
        trainable = [p for p in parameters if p.requires_grad]
        sharded, whole = (
            [p for p in trainable if isinstance(p, DTensor)],
            [p for p in trainable if not isinstance(p, DTensor)],
        )
        if sharded and self.muon_lr is not None:
            found = "model.optimizer.muon_lr: Muon needs whole matrices, and trainer.strategy sharded splits them"
            raise UserError(f"{found}; set it to null, or the strategy to ddp")
        # the fast loops of PyTorch's optimizers take one kind of tensors, and must be asked for with sharded ones
        if sharded:
            groups = [{"params": group} for group in (sharded, whole) if group]
            return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, foreach=True)
        if self.muon_lr is None:
            return takes_true_gradients(
                torch.optim.AdamW(trainable, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)
            )
        looked_up = {id(table) for table in tables}
        matrices = [p for p in trainable if p.ndim >= 2 and id(p) not in looked_up]
        others = [p for p in trainable if p.ndim < 2 or id(p) in looked_up]
        return takes_true_gradients(MuonAdamW(matrices, others, self.muon_lr, self.lr, self.betas, self.weight_decay))


def takes_true_gradients(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same fused optimizer, which could undo a GradScaler's scale inside its step, told not to:
    clipping comes before the step, needs the true gradients, and Lightning refuses to clip what is still scaled."""
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # a private attribute of fused ones
    return optimizer


class MuonAdamW(torch.optim.AdamW):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for weights of two and more dimensions, AdamW for
    the others.

    Muon takes the momentum's nearest orthogonal matrix as its step, so that all directions of a layer learn at one
    rate. torch.optim.Muon, with which this agrees, takes matrices only; here a convolution's kernel is a matrix (out,
    in * height * width)."""

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        muon_lr: float,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ):
        groups: list[dict[str, Any]] = [{"params": others}, {"params": matrices, "lr": muon_lr}]
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; returns the closure's value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices = self.param_groups.pop()
        try:
            super().step()
        finally:
            self.param_groups.append(matrices)
        # Matrices of one shape go together: one call for many small ones is twice as fast.
        shapes: defaultdict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for parameter in matrices["params"]:
            if parameter.grad is not None:
                shapes[parameter.flatten(1).shape].append((parameter, parameter.grad))
        for (rows, columns), parameters in shapes.items():
            updates = orthogonalize(torch.stack([self.momentum_of(*pair).flatten(1) for pair in parameters]))
            rate = matrices["lr"] * max(1.0, rows / columns) ** 0.5  # tall matrices: as large an effect per output
            for (parameter, _), update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - matrices["lr"] * matrices["weight_decay"])
                parameter.add_(update.reshape(parameter.shape), alpha=-rate)
        return loss

    def momentum_of(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        """The Nesterov momentum after this step's gradient."""
        state = self.state[parameter]
        if not state:
            # AdamW's loading asks for the step
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(state["momentum"], self.momentum)


class Rows(nn.Embedding):
    """A table whose other rows stay bitwise as they are, see :func:`hold_other_rows`."""


def hold_other_rows(optimizer: torch.optim.Optimizer, tables: Iterable[nn.Parameter]) -> None:
    """Have every step leave the rows of ``tables`` that have no gradient, and their moments, as they were.

    An optimizer of dense gradients takes them for rows with a gradient of zero: it moves them by their momentum and
    their weight decay, and lets their moments fade. torch.optim.SparseAdam does not, but is another optimizer, for
    other gradients, which neither clip nor average over processes; so the rows are put back after a step.
    """
    tables, before = list(tables), dict[nn.Parameter, list[Tensor]]()

    def note(*_: Any) -> None:
        before.update({table: [part.detach().clone() for part in parts_of(table)] for table in tables})

    def put_back(*_: Any) -> None:
        for table in tables:
            old = before.pop(table, [])  # of a step inside of a step, which Muon's is, the inner one has seen to it
            if table.grad is not None:
                touched = table.grad.ne(0).any(1, keepdim=True)
                # at the first step the moments are new, and zero where there was no gradient
                for part, was in zip(parts_of(table), old, strict=False):
                    part.copy_(torch.where(touched, part, was))

    def parts_of(table: nn.Parameter) -> list[Tensor]:
        state = optimizer.state.get(table, {})
        moments = [value for _, value in sorted(state.items()) if torch.is_tensor(value) and value.shape == table.shape]
        return [table.detach(), *moments]

    if tables:
        optimizer.register_step_pre_hook(note)
        optimizer.register_step_post_hook(put_back)


#: Coefficients a, b, c of the Newton-Schulz iteration x <- (a + b g + c g^2) x with g = x x^T (the Muon post).
COEFFICIENTS = 3.4445, -4.7750, 2.0315


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """About the nearest (semi-)orthogonal matrices of (n, rows, columns): their singular values become 0.7 to 1.2.
    float32.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).float()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    x = iterate_gram(x, steps) if x.shape[-1] >= 2 * x.shape[-2] else iterate(x.bfloat16(), steps).float()
    return x.mT if tall else x


def iterate(x: Tensor, steps: int) -> Tensor:
    """The iteration as it is written; bfloat16 is enough for it."""
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def iterate_gram(x: Tensor, steps: int) -> Tensor:
    """The same, cheaper for wide matrices. The polynomials commute, so they are gathered in a small square matrix that
    multiplies x once. Squaring the singular values costs digits: needs float32."""
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    product: Tensor | None = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ gram @ factor
    return x if product is None else product @ x


def local(value: Tensor) -> Tensor:
    """This process's part of a tensor, sharing its memory."""
    return value.to_local() if isinstance(value, DTensor) else value


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
