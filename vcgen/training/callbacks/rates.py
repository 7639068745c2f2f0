"""The learning rates of a run that goes on: its configuration's, whatever those of the checkpoint were."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import LambdaLR

#: What a configuration says of an optimizer's parameters, and what it is called: with a schedule, and without one.
NAMES = {"initial_lr": "learning rate", "lr": "learning rate", "betas": "betas", "weight_decay": "weight decay"}


class Rates(pl.Callback):
    """Keeps learning rates, betas and weight decay as they are configured; says which differ from the checkpoint's.

    A checkpoint brings those of the run that wrote it, which take the place of the configuration's without a word: who
    lowers a learning rate before a run goes on would go on with the old one."""

    def __init__(self) -> None:
        self.configured: list[list[dict[str, Any]]] = []

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Optimizers are made, and nothing is restored."""
        self.configured = [[settings(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """All is restored."""
        changes: dict[str, None] = {}
        for optimizer, groups in zip(trainer.optimizers, self.configured, strict=True):
            for group, here in zip(optimizer.param_groups, groups, strict=True):
                changed = {name: value for name, value in here.items() if group[name] != value}
                changes |= {f"{NAMES[name]} {value} instead of {group[name]}": None for name, value in changed.items()}
                group.update(changed)
        if not changes:
            return
        for scheduler in (config.scheduler for config in trainer.lr_scheduler_configs):
            if isinstance(scheduler, LambdaLR):
                groups = scheduler.optimizer.param_groups
                scheduler.base_lrs = [group["initial_lr"] for group in groups]
                for group, factor in zip(groups, scheduler.lr_lambdas, strict=True):
                    group["lr"] = group["initial_lr"] * factor(scheduler.last_epoch)
        rank_zero_info(f"going on with {', '.join(changes)}, with which the checkpoint was trained")


def settings(group: dict[str, Any]) -> dict[str, Any]:
    """What a configuration says of a group of parameters; of learning rates the height, where there is a schedule."""
    return {name: group[name] for name in NAMES if name in group and (name != "lr" or "initial_lr" not in group)}
