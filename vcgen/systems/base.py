"""What all systems share: one training step, one optimizer set-up, randomness as a function of (seed, step, rank)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from vcgen.diffusion.base import ImagePrior
from vcgen.errors import UserError
from vcgen.metrics.base import PSNR_CAP
from vcgen.optim.optimizer import OptimizerOptions, Rows, average_gradients, clip_gradients, hold_other_rows, total_norm
from vcgen.random import run_seed, seeded
from vcgen.schema import NotNegative
from vcgen.types import Example, FieldModel


class System(pl.LightningModule, ABC):
    """A training stage: named losses, their weights, an optimizer."""

    #: The data modules of vcgen that it learns from, by the names of their classes; none: any.
    takes: tuple[str, ...] = ()
    #: The model folder that its weights start from.
    pretrained: Path | None = None
    #: The checkpoint that the run goes on from, or validates: its weights come after ``setup``. None: none.
    resumes_from: str | None = None
    #: What to change, by the names of its own options, when losses or gradients are not finite.
    advice_when_not_finite = (
        "lower model.optimizer.lr, set trainer.gradient_clip_val, or check the scenes with `vcgen data inspect`"
    )

    def __init__(self, optimizer: OptimizerOptions, loss_weights: dict[str, NotNegative]):
        super().__init__()
        self.optimizer_options = optimizer
        self.loss_weights = loss_weights
        self.val_psnr = Mean()
        #: The optimizer step that the last batch belonged to, and the batch's number in it, from 0. A run resumes at
        #: optimizer steps, so that nothing need be stored.
        self.micro_batch = (-1, 0)
        #: What training steps want to log beside their losses, by its name in TensorBoard; logged until it is
        #: overwritten.
        self.monitored: dict[str, Tensor] = {}
        #: What the last training step worked on, such as {"rays": 16384, "images": 8}; see callbacks/speed.py.
        self.work: dict[str, int] = {}
        #: Losses and keys of the last training step, for the line that ends a run.
        self.last_losses: dict[str, Tensor] = {}
        self.last_keys: tuple[str, ...] = ()
        #: The weighted sum, losses and keys of each batch since the last optimizer step.
        self.unlearned: list[tuple[Tensor, dict[str, Tensor], tuple[str, ...]]] = []
        #: 2-norm of all gradients of the last optimizer step, before clipping.
        self.gradient_norm = torch.zeros(())

    @property
    def writes(self) -> bool:
        """Whether this process leaves files in the run's folder: the first one, and not in a trial
        (``trainer.fast_dev_run``).
        """
        return self.trainer.is_global_zero and not self.trainer.fast_dev_run

    @property
    def starts_trained(self) -> bool:
        """Whether its weights mean something before any training, as those of a model folder do; `vcgen validate`
        asks.
        """
        return self.pretrained is not None

    @abstractmethod
    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """Named scalar losses of a batch; each system states sum or mean, and over what."""

    def training_step(self, example: Example, batch_index: int) -> Tensor:
        """The weighted sum of the losses of one batch, of which ``trainer.accumulate_grad_batches`` make an
        optimization step.
        """
        step, number = self.micro_batch
        self.micro_batch = (step, number + 1) if step == self.global_step else (self.global_step, 0)
        losses = self.losses(example, self.step_generator())
        total = torch.stack([self.loss_weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        self.last_losses, self.last_keys = {name: value.detach() for name, value in losses.items()}, example.keys
        self.unlearned.append((total.detach(), self.last_losses, self.last_keys))
        # Of several processes each looks now, before the others get its gradients and blame their own scenes.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.refuse_not_finite()
        logged = {f"train/{name}": value for name, value in self.last_losses.items()} | self.monitored
        self.log_dict(logged, batch_size=len(example.keys))
        self.log("train/loss", total.detach(), batch_size=len(example.keys), prog_bar=True)
        if "rgb" in losses:
            # of rays that meet the object's sphere, over the training background: some dB below val/psnr, which counts
            # empty pixels too
            self.log("train/psnr", -10 * losses["rgb"].detach().log10(), batch_size=len(example.keys), prog_bar=True)
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lightning's hook: gradients are complete, and neither clipped nor learned from yet. Raises UserError where
        they, or the losses behind them, are not finite; the scaler of 16-bit mixed precision, which lowers its scale by
        such gradients, leaves them out by itself."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradients:
            self.gradient_norm = total_norm(gradients)
        self.refuse_not_finite([self.gradient_norm] if gradients and not scaled else [])
        self.unlearned.clear()

    def refuse_not_finite(self, norms: Sequence[Tensor] = ()) -> None:
        """Raises UserError for losses since the last optimizer step, or norms of gradients, that are not finite. All
        are looked at together: each look makes the CPU wait for the GPU."""
        numbers = [total for total, _, _ in self.unlearned] + [norm.to(self.device) for norm in norms]
        if not numbers or not (~torch.isfinite(torch.stack(numbers))).any():
            return
        for total, losses, keys in self.unlearned:
            if not torch.isfinite(total):
                raise self.not_finite("loss is", losses, keys)
        raise self.not_finite("gradients are", self.last_losses, self.last_keys)

    def not_finite(self, what: str, losses: Mapping[str, Tensor], keys: Sequence[str]) -> UserError:
        """The line for what, "loss is" or "gradients are", with a batch's losses and keys."""
        found = ", ".join(f"{name} = {float(value):.3g}" for name, value in losses.items())
        keys = ", ".join(keys)
        return UserError(
            f"{what} not finite at step {self.global_step} ({found}); learning from {keys}:"
            f" {self.advice_when_not_finite}"
        )

    def log_psnr(self, example: Example, images: Tensor) -> None:
        """Logs ``val/psnr``: the mean over all target images of all ranks of dB per image, over white, as evaluation
        has it: identical images, as of a view beside the object, count as PSNR_CAP dB.

        images: (batch, views, 3, height, width), what the system makes of the target views; clamped to [0, 1].
        """
        error = (images.clamp(0, 1) - example.target.on(1.0)).square().mean((-3, -2, -1))
        self.val_psnr.update((-10 * error.log10()).clamp(max=PSNR_CAP), example.weight)
        self.log("val/psnr", self.val_psnr, prog_bar=True)

    def step_generator(self) -> torch.Generator:
        """Noise of this batch: different at every step, on every rank, and for every batch of an accumulation; the same
        after a resume.
        """
        step, number = self.micro_batch
        number = number if step == self.global_step else 0
        return seeded(run_seed(), self.global_step, self.global_rank, number, device=self.device)

    def configure_model(self) -> None:
        """Lightning's hook: with ``trainer.strategy`` sharded the U-Nets are split among the processes."""
        if self.device_mesh is not None:
            from vcgen.optim.sharding import shard  # which imports much that rendering does not need

            shard(self, self.device_mesh["data_parallel"], reduced=self.trainer.precision == "bf16-mixed")

    def on_after_backward(self) -> None:
        """Lightning's hook: DDP averages all gradients, FSDP2 those of what it has sharded."""
        if self.device_mesh is not None:
            average_gradients(self.parameters())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's hook; its own way cannot measure sharded and whole weights together."""
        if self.device_mesh is None:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            if gradient_clip_algorithm not in (None, "norm"):
                raise UserError(
                    "trainer.gradient_clip_algorithm: with trainer.strategy sharded gradients are clipped by norm only"
                )
            clip_gradients(self.parameters(), gradient_clip_val)

    def transfer_batch_to_device(self, batch: Example, device: torch.device, dataloader_idx: int) -> Example:
        """Lightning's hook; it cannot walk frozen dataclasses by itself."""
        return batch.to(device)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of all trainable parameters, scheduled every step."""
        options = self.optimizer_options
        optimizer = options.build(
            self.parameters(),
            [cast(nn.Parameter, m.weight) for m in self.modules() if isinstance(m, torch.nn.Embedding)],
        )
        hold_other_rows(optimizer, [cast(nn.Parameter, m.weight) for m in self.modules() if isinstance(m, Rows)])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: options.factor(step, self.progress(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def progress(self, step: int) -> float:
        """Fraction of the run that is over: by ``trainer.max_steps`` where set, or by the steps of
        ``trainer.max_epochs`` of a limited length (reproducible), else by ``trainer.max_time``, else 0. All processes
        ask together, and go by the first one's clock: learning rates of their own would part their weights.
        """
        trainer = self.trainer
        if trainer.max_steps > 0:
            return step / trainer.max_steps
        if isinstance(batches := trainer.limit_train_batches, int) and batches and (trainer.max_epochs or -1) > 0:
            return step / (trainer.max_epochs * math.ceil(batches / trainer.accumulate_grad_batches))
        timer = next((c for c in trainer.callbacks if isinstance(c, Timer)), None)
        if timer is None or (left := timer.time_remaining()) is None:
            return 0.0
        return trainer.strategy.broadcast((passed := timer.time_elapsed()) / (passed + left))


class FieldSystem(System, FieldModel):
    """A system whose outcome is a scene, and which a model folder can hold.

    Args:
        optimizer: Optimizer and learning rates.
        loss_weights: Weight of each loss by name.
    """

    prior: ImagePrior | None

    def __init__(self, optimizer: OptimizerOptions, loss_weights: dict[str, NotNegative]):
        super().__init__(optimizer, loss_weights)
        self.prior = None


class Mean(Metric):
    """The mean of all values of all ranks since the last reset, however a validation set was dealt out to them: one sum
    over one count, in float64 where the device has it.

    Two traps that this avoids: ``log(sync_dist=True)`` divides the count of values by the number of ranks and drops the
    remainder; torchmetrics' MeanMetric drops NaNs, or with ``nan_strategy="disable"`` the weights."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        precise = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("total", torch.zeros((), dtype=precise), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=precise), dist_reduce_fx="sum")

    def update(self, values: Tensor, weight: float = 1.0) -> None:
        """Add values of any shape, each counted ``weight`` times; 0 leaves them out, whatever they are."""
        if weight:
            self.total += values.detach().to(self.total.dtype).sum() * weight
            self.count += values.numel() * weight

    def compute(self) -> Tensor:
        """The mean; NaN where nothing counted."""
        return self.total / self.count
