"""Guidance: from a prior and renderings of virtual views to images that the scene is pulled towards, round after round.

A guidance never sees the scene: it gets renderings of n virtual views and the prior under their condition, and answers
with targets of the renderings' shape. Fitting the scene to them is the caller's part, under half the squared error: so
a guidance whose signal is a gradient g answers with renderings - g. Where it must compose the images itself, from color
and opacity, it gives losses of views in place of targets."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.diffusion.base import Denoised, Prior

#: noisy images or latents (n, C, H, W), timesteps (n,) -> what the prior makes of them
Denoise = Callable[[Tensor, Tensor], Denoised]


class Round(NamedTuple):
    """The outcome of one round.

    targets: (n, 3, H, W) in [-1, 1]. noise: (n, 3, H, W), as the next round needs it. timestep: of the round, -1 before
        the first; where it is drawn for each rendering, their mean (). weight: of the rendering in the targets, in [0,
        1]. disagreement: root mean square () of the prior's clean images minus the renderings. What a GPU has computed
        stays there: to look at it here would make the CPU wait.
    """

    targets: Tensor
    noise: Tensor
    timestep: int | Tensor
    weight: float
    disagreement: float | Tensor


@dataclass(frozen=True)
class ConditionedPrior:
    """A prior under the condition of the n renderings at hand.

    schedule: the prior's noise schedule. The rest is for guidances with networks of their own; condition: what the
    prior is given, and cameras (n,) and texts (n), where the system knows them.
    """

    denoise: Denoise
    schedule: DDPMScheduler
    condition: Any = None
    cameras: Cameras | None = None
    texts: tuple[str, ...] = ()


class Guidance(ABC):
    """What makes targets of renderings.

    Options are the fields of a dataclass. A guidance with parameters, or other state that a checkpoint must hold, is a
    ``torch.nn.Module`` too, and overrides what says so below. rounds: how often targets are made. updates: optimizer
    steps of the scene after each round.
    """

    rounds: int
    updates: int
    #: Whether its rounds are steps of one walk, which must see the same views in every round.
    fixed_views: ClassVar[bool] = False
    #: What it is shown: "prior", what the prior denoises (images (n, 3, H, W) in [-1, 1], or their latents), "images",
    #: images whatever the prior denoises, or "views", color and opacity, of which it gives losses, see view_losses; it
    #: needs no prior then.
    shown: ClassVar[Literal["prior", "images", "views"]] = "prior"

    def attach(self, prior: Prior[Any] | None) -> None:  # noqa: B027  (most have nothing to do)
        """Told once, before the optimizer is made, which prior it will see; for networks of its own that build on it.
        Here nothing is done.
        """

    def begin(self, renderings: Tensor, generator: torch.Generator) -> Round:
        """The state before the first round; here one from which nothing is carried over."""
        return Round(renderings, torch.zeros_like(renderings), -1, 0.0, 0.0)

    @abstractmethod
    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """Round ``number`` (0 ... rounds - 1): new targets from the last round's and the scene's present renderings.
        No gradient is recorded unless the guidance asks for it.
        """

    def view_losses(
        self, color: Tensor, alpha: Tensor, texts: Sequence[str], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Losses () of n views by name, in place of targets, where it is shown "views"; gradients reach the scene.

        color: (n, 3, s, s), premultiplied by opacity, in [0, 1]. alpha: (n, 1, s, s). texts: of each view. progress:
        fraction of the run in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} gives targets, or has to say what its losses are")

    def annealed(self, progress: float, end: float, lowest: float | None = None) -> Self:
        """This guidance after a fraction of a run in [0, 1], if its highest noise level, as a fraction of the schedule,
        falls linearly to ``end``; itself where it has none to lower. lowest: noise level in place of its own.
        """
        return self

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of its own parameters at the last round's renderings, by name; called at every update of the scene.
        They must not reach the scene.
        """
        return {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Its own parameters as an optimizer takes them: {"params": ..., "lr": ...}."""
        return []

    def settings(self) -> dict[str, Any]:
        """What determines its targets, as JSON can hold it; what is kept of a distillation is found again by it."""
        if not is_dataclass(self):
            raise NotImplementedError(f"{type(self).__name__} is no dataclass: it must say what its settings are")
        return {"class": type(self).__name__, **asdict(self)}

    def with_rounds(self, rounds: int) -> Self:
        """The same with another number of rounds."""
        return replace(cast(Any, self), rounds=rounds)


def refuse_views(guidance: Guidance) -> None:
    """Raise ValueError for a guidance that gives losses of views, where targets are asked for."""
    if guidance.shown == "views":
        found = f"{type(guidance).__name__} needs the opacity of its views"
        raise ValueError(f"model.guidance: {found}: use it with TextTo3D or RealFusion, or take SDS")
