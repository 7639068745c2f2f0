"""What a checkpoint holds beside weights: the state of loops, optimizers, schedules and callbacks, checked before
anything goes on from it.

Torch and Lightning take such state as it comes: of another type it ends in a traceback, or in a training that does not
learn."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, field
from torch import Tensor

from vcgen.errors import UserError
from vcgen.io import check, levels
from vcgen.schema import Count, NotNegative
from vcgen.tensors import all_finite
from vcgen.terminal import one_line

ADVICE = "give a .ckpt file that `vcgen fit` wrote"
Step = Annotated[int, Meta(ge=0, le=1 << 40)]


class Group(Struct):
    """A parameter group of an optimizer; there are other entries."""

    params: list[Count | str]
    lr: NotNegative


class Optimizer(Struct):
    """An optimizer's state: what it keeps for each parameter, by its number."""

    state: dict[Count | str, dict[str, Any]]
    param_groups: Annotated[list[Group], Meta(min_length=1)]

    def __post_init__(self) -> None:
        numbers = [number for group in self.param_groups for number in group.params]
        if len(set(numbers)) != len(numbers) or not self.state.keys() <= set(numbers):
            raise ValueError("an optimizer's parameters are not those of its groups")
        for entry in self.state.values():
            if odd := [name for name, value in entry.items() if not is_number(value)]:
                raise ValueError(f"an optimizer's {odd[0]} holds no numbers")


class Schedule(Struct):
    """A schedule of the learning rate; there are other entries."""

    base_lrs: list[NotNegative]
    last_epoch: Annotated[int, Meta(ge=-1, le=1 << 40)]
    step_count: Step = field(name="_step_count")
    last_lr: list[NotNegative] = field(name="_last_lr")


class Averages(Struct):
    """The state of the callback EMA."""

    weights: dict[str, Any]
    updates: Step


class Best(Struct):
    """The state of the callback Checkpoints."""

    monitor: str
    mode: str
    best: dict[Step, float]
    current_score: float | None = None
    unvalidated: bool = False


class Callbacks(Struct):
    """The callbacks whose state vcgen reads; there may be others."""

    EMA: Averages | None = None
    Checkpoints: Best | None = None


class State(Struct):
    """All of it, as Lightning names it."""

    global_step: Step
    epoch: Step
    loops: dict[str, dict[str, Any]]
    optimizer_states: list[Optimizer]
    lr_schedulers: list[Schedule]
    callbacks: Callbacks


def check_state(checkpoint: Mapping[str, Any], loop: Mapping[str, Any]) -> None:
    """Raise UserError unless training can go on from what a checkpoint holds beside weights. loop: the state of
    Lightning's loop now.
    """
    where = "the checkpoint's state of training"
    state = check({name: checkpoint.get(name) for name in State.__struct_fields__}, State, where, ADVICE)
    if odd := [
        value
        for level in levels(state.loops)
        for value in level
        if not isinstance(value, (dict, bool)) and not is_step(value)
    ]:
        raise UserError(one_line(f"{where}: its loops are at {odd[0]!r}", ADVICE))
    refuse_other_structure(state.loops.get("fit_loop"), loop, f"{where}, loops")
    weights = checkpoint["state_dict"]
    for name, value in (state.callbacks.EMA.weights if state.callbacks.EMA else {}).items():
        if (
            name not in weights
            or not isinstance(value, Tensor)
            or value.shape != weights[name].shape
            or not all_finite(value)
        ):
            raise UserError(one_line(f"{where}: its average {name} is none of the weights", ADVICE))


def refuse_other_structure(stored: Any, here: Any, where: str) -> None:
    """Raise UserError unless nested tables have the names that ``here`` has; they may have more."""
    for name, value in here.items() if isinstance(here, dict) else ():
        if (
            not isinstance(stored, dict)
            or name not in stored
            or isinstance(stored[name], dict) != isinstance(value, dict)
        ):
            raise UserError(f"{where}: lacks {name}; {ADVICE}")
        refuse_other_structure(stored[name], value, where)


def is_step(value: Any) -> bool:
    """Whether it is a count of steps, batches or epochs."""
    return isinstance(value, int) and 0 <= value <= 1 << 40


def is_number(value: Any) -> bool:
    """Whether it is a finite number, or a tensor of such."""
    if isinstance(value, Tensor):
        return all_finite(value)
    return value is None or (isinstance(value, (bool, int, float)) and abs(value) < float("inf"))
