"""The views of one object that go in, and those that are predicted: fixed, drawn, or listed."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from vcgen.errors import UserError
from vcgen.evaluation.view_lists import Listed, ViewLists
from vcgen.schema import AtLeastOne, Count, ViewNumber


class Draw(Struct, frozen=True, forbid_unknown_fields=True):
    """``draw`` views of each object, chosen by ``seed`` and the object's key alone, whatever else is scored, and
    where.
    """

    draw: AtLeastOne
    seed: Count

    def of(self, views: Sequence[int], key: str, what: str, where: str) -> tuple[int, ...]:
        """Those of ``views`` whose SHA-256 of "SEED WHAT KEY VIEW" is least, in ascending order."""
        if len(views) < self.draw:
            raise UserError(f"{where} draws {self.draw} {what} views, but only {len(views)} are left; draw fewer")
        digests = {view: hashlib.sha256(f"{self.seed} {what} {key} {view}".encode()).digest() for view in views}
        return tuple(sorted(sorted(views, key=digests.__getitem__)[: self.draw]))


Context = tuple[ViewNumber, ...] | Draw | Literal["listed"]
Targets = tuple[ViewNumber, ...] | Draw | Literal["all others", "all", "listed"]


@dataclass(frozen=True)
class Task:
    """One reconstruction of an object: the views that go in, and those that are predicted, in ascending order."""

    context: tuple[int, ...]
    targets: tuple[int, ...]


def choose(
    context: Context, targets: Targets, listed: Listed, key: str, views: int, names: Sequence[str], where: str
) -> Task:
    """The views of object ``key``, which has ``views`` views of these ``names`` (which may be left out where no list
    has names). Raises UserError, which begins with ``where``, for views that it does not have, and for none.
    """
    if isinstance(context, Draw):
        inputs = context.of(range(views), key, "context", where)
    else:
        inputs = context if isinstance(context, tuple) else numbers(listed.context, names, where)
    rest = tuple(view for view in range(views) if view not in inputs)
    if isinstance(targets, Draw):
        predicted = targets.of(rest, key, "target", where)
    elif isinstance(targets, tuple):
        predicted = targets
    elif targets == "listed":
        predicted = numbers(listed.targets, names, where)
    else:
        predicted = rest if targets == "all others" else tuple(range(views))
    if (largest := max((*inputs, *predicted), default=0)) >= views:
        raise UserError(f"{where} wants view {largest}, but it has only views 0 to {views - 1}")
    if not inputs:
        raise UserError(f"{where} gives it no input view; list one")
    if not predicted:
        raise UserError(f"{where} leaves no view to predict; give it fewer input views, or list targets")
    return Task(inputs, tuple(sorted(predicted)))


def numbers(views: Sequence[int | str], names: Sequence[str], where: str) -> tuple[int, ...]:
    """Views by their numbers. UserError for a name that no view has."""
    places = {name: number for number, name in enumerate(names)}
    if unknown := [view for view in views if isinstance(view, str) and view not in places]:
        raise UserError(f"{where} wants the view named {unknown[0]}, which it does not have; pack all of its views")
    return tuple(places[view] if isinstance(view, str) else view for view in views)


def refuse_repeated(where: str, task: Task, score_context: bool) -> None:
    """Raise UserError for a view that is named twice. score_context: an input view may be a target, too."""
    groups = [task.context, task.targets] if score_context else [(*task.context, *task.targets)]
    twice = [view for group in groups for view, count in Counter(group).items() if count > 1]
    if twice:
        raise UserError(
            f"{where}: view {twice[0]} occurs twice; a context view must not be a target (unless score_context is"
            " true), nor any view count twice"
        )


def words(views: Context | Targets, lists: ViewLists | None) -> str:
    """What is chosen, for a reader."""
    if isinstance(views, tuple):
        return ", ".join(map(str, views))
    if isinstance(views, Draw):
        return f"{views.draw} drawn by seed {views.seed}"
    return f"listed in {lists.where}" if views == "listed" and lists else views
