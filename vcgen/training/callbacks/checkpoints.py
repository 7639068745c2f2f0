"""The checkpoints of a run: ``last.ckpt``, which really is the last, ``best.ckpt`` by a validation metric, and some of
the next best.
"""

import math
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from vcgen.errors import UserError
from vcgen.io import replacing
from vcgen.schema import AtLeastOne
from vcgen.terminal import complain
from vcgen.training.lightning_private import count_time_anew, is_accumulating, is_validation_due, validate


class Checkpoints(Checkpoint):
    """Saves ``last.ckpt`` after every validation and the last step, ``best.ckpt`` after the best validation.

    ``last.ckpt`` is written between optimizer steps only, when no accumulated gradient is in hand that a resumed run
    would lack; a request to stop, or a validation, in the midst of an accumulation is heard after its step. Lightning's
    ModelCheckpoint saves its last file only beside a new best one, and forgets its best when the folder is moved; it
    leaves out a validation that was due when the run was stopped, which here is made up for when the run goes on, so
    that the best of a stopped run is that of an undisturbed one.

    Args:
        dirpath: Folder of the files.
        monitor: The logged metric that decides which weights are best.
        mode: Whether more of it ("max") or less ("min") is better.
        keep_best: How many of the best to keep: ``best.ckpt`` is always the best; if more than one, each is there as
            ``step-STEP.ckpt``.
        every_n_steps: Save ``last.ckpt`` after so many steps, too; null: with validations only (without data for them:
            when they were due).
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str = "val/psnr",
        mode: Literal["min", "max"] = "max",
        keep_best: AtLeastOne = 1,
        every_n_steps: AtLeastOne | None = None,
    ):
        if keep_best < 1:
            raise ValueError(f"checkpoint.keep_best must be at least 1, got {keep_best}")
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"checkpoint.every_n_steps must be at least 1, or null for none; got {every_n_steps}")
        self.folder, self.monitor, self.mode = Path(dirpath), monitor, mode
        self.keep_best, self.every_n_steps = keep_best, every_n_steps
        #: Step -> score of the best so far, the best first.
        self.best: dict[int, float] = {}
        #: What the last validation measured, while its weights are the current ones.
        self.score: float | None = None
        self.owed = self.stopping = False
        #: Whether ``last.ckpt`` was written where a validation was due that has not been.
        self.unvalidated = False

    @property
    def state_key(self) -> str:
        """Its name in the checkpoint."""
        return "Checkpoints"

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last step, before the loops wind up: what they store then is a clean place to resume from."""
        if trainer.fast_dev_run:
            return
        if is_accumulating(trainer):
            self.owed = self.owed or is_validation_due(trainer)
            self.stopping, trainer.should_stop = self.stopping or trainer.should_stop, False
            return
        trainer.should_stop = trainer.should_stop or self.stopping
        if is_stopping(trainer) or self._is_due(trainer):
            self.write_last(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The best first: ``last.ckpt`` then knows the new best score. What is no longer among the best goes after both
        are safe.
        """
        if trainer.fast_dev_run or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self.unvalidated = False
        if self.monitor not in trainer.callback_metrics:
            self._refuse_monitor(trainer)
        self._save_best(trainer)
        if is_accumulating(trainer):
            self.owed = True
            return
        self.write_last(trainer, self.score)
        if trainer.is_global_zero:
            remove_others(self.folder, set(self.best) if self.keep_best > 1 else set())

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint; ``monitor`` and ``current_score`` are what ``vcgen export`` notes."""
        found = {"current_score": self.score, "best": dict(self.best), "unvalidated": self.unvalidated}
        return {"monitor": self.monitor, "mode": self.mode, **found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint. What was best by another metric does not count."""
        self.unvalidated = state.get("unvalidated", False)
        if (state["monitor"], state["mode"]) == (self.monitor, self.mode):
            self.best = dict(list(state["best"].items())[: self.keep_best])

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """All is restored, by the callbacks before this one, too: make up for the validation that the stopped run did
        not come to.
        """
        if trainer.is_global_zero and self.best:
            self._look_in_folder()
        if trainer.is_global_zero and sum(trainer.num_val_batches) > 0 and (line := never_due(trainer)):
            complain(line, "warning")
        if self.unvalidated and sum(trainer.num_val_batches) > 0:
            validate(trainer)

    def _look_in_folder(self) -> None:
        """Only what is in the folder counts: the checkpoint may be another run's, or ``keep_best`` another than it
        was.
        """
        if not self._file(None).exists():
            self.best = {}
        elif self.keep_best > 1:
            first = self._file(next(iter(self.best)))
            if not first.exists():  # until now the only one that was kept
                link(self._file(None), first)
            self.best = {step: score for step, score in self.best.items() if self._file(step).exists()}

    def write_last(self, trainer: pl.Trainer, score: float | None = None) -> Path:
        """Write ``last.ckpt``, to be called in all processes after an optimizer step; when it returns, the file is
        complete on the disk.

        score: what a validation has just measured of these weights.
        """
        self.owed, self.score = False, score
        self.unvalidated = score is None and validates(trainer)
        path = self.folder / "last.ckpt"
        trainer.save_checkpoint(path, False)  # not the weights alone
        return path

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Whether this step is to be saved now: a validation that follows at once will save it, with its score."""
        if validates(trainer):
            return False
        instead = is_validation_due(trainer)  # there is nothing to validate on
        if instead:
            count_time_anew(trainer)
        periodic = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        return instead or periodic or self.owed or is_last_step(trainer)

    def _save_best(self, trainer: pl.Trainer) -> None:
        # One process decides: metrics that are not reduced over the processes differ, and all must save or none.
        self.best, self.score = trainer.strategy.broadcast(self._rank(trainer))
        if trainer.global_step not in self.best:
            return
        path = self._file(trainer.global_step if self.keep_best > 1 else None)
        trainer.save_checkpoint(path, False)  # not the weights alone
        if self.keep_best > 1 and trainer.global_step == next(iter(self.best)) and trainer.is_global_zero:
            link(path, self._file(None))

    def _rank(self, trainer: pl.Trainer) -> tuple[dict[int, float], float]:
        """The best steps with the current one among them if it is one, and its score. Of equals the earlier is the
        better.
        """
        score, sign = float(trainer.callback_metrics[self.monitor]), -1 if self.mode == "max" else 1
        candidates = dict(self.best)
        if torch.isfinite(torch.tensor(score)):
            candidates.pop(trainer.global_step, None)
            candidates[trainer.global_step] = score
        ranked = sorted(candidates.items(), key=lambda item: (sign * item[1], item[0]))
        return dict(ranked[: self.keep_best]), score

    def _refuse_monitor(self, trainer: pl.Trainer) -> NoReturn:
        """What has been learned until now is kept."""
        kept = not is_accumulating(trainer)
        if kept:
            self.write_last(trainer)
        known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/"))) or "none"
        advice = "set it to one of them" + (" and go on with --ckpt_path last" if kept else "")
        raise UserError(f"checkpoint.monitor: validation logged no {self.monitor!r}; logged were {known}: {advice}")

    def _file(self, step: int | None) -> Path:
        return self.folder / ("best.ckpt" if step is None else f"step-{step}.ckpt")


def is_last_step(trainer: pl.Trainer) -> bool:
    """Whether the run ends with this batch, by its number of steps or of epochs."""
    last_epoch = trainer.max_epochs > 0 and trainer.current_epoch + 1 >= trainer.max_epochs
    return trainer.global_step == trainer.max_steps or (last_epoch and trainer.is_last_batch)


def is_stopping(trainer: pl.Trainer) -> bool:
    """Whether the run ends with this batch, because something asked for it: not before its least steps and epochs."""
    epochs = trainer.current_epoch + trainer.is_last_batch
    enough = epochs >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
    return trainer.should_stop and enough


def never_due(trainer: pl.Trainer) -> str | None:
    """The warning for a run in which no validation will come, though there is something to validate on; None where one
    will, or may.
    """
    if trainer.val_check_batch is None or trainer.fast_dev_run:  # by the clock
        return None
    first = min(trainer.val_check_batch, trainer.num_training_batches)
    batches = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else math.inf
    if first <= batches and first != math.inf:
        return None
    found = (
        f"{first:g} batches, the run has {batches:g}"
        if first != math.inf
        else "not a number of batches, and the data has no end"
    )
    return f"there will be no validation and no best.ckpt: trainer.val_check_interval is {found}"


def validates(trainer: pl.Trainer) -> bool:
    """Whether one will follow at once, since there is something to validate on."""
    return is_validation_due(trainer) and sum(trainer.num_val_batches) > 0


def remove_others(folder: Path, steps: set[int]) -> None:
    """Remove the ``step-STEP.ckpt`` of a folder, except those of ``steps``."""
    for path in folder.glob("step-*.ckpt"):
        found = re.fullmatch(r"step-(\d+)\.ckpt", path.name)
        if found and int(found[1]) not in steps:
            path.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Let ``target`` be the same file as ``source``, at once and without taking space; a copy where the file system
    knows no hard links.
    """
    try:
        with replacing(target) as temporary:
            temporary.unlink()
            os.link(source, temporary)  # refused, too, where something has that name
    except OSError:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
