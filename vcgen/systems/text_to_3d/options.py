"""What a fit to a text is told: the words, and how the scene is fitted."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

from vcgen.data.viewpoints import VIEWS
from vcgen.diffusion.prompts import fault_of
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.guidance.base import Guidance
from vcgen.losses.course import Course, check_course
from vcgen.schema import AtLeastOne, NotNegative, Positive, Side, Unit, check_options


@dataclass(frozen=True)
class Prompt:
    """The words that the prior is conditioned on.

    Args:
        subject: The object's noun, or the token that stands for it, such as <e>.
        template: Has {subject} and {view}.
        negative: Words that the prior is guided away from.
        negative_views: The same for single views, such as {"back": "face"}.
        perp_neg: Scale of the weights by which Perp-Neg leads away from the prompts of other views; 0 switches it off,
            1 is as in threestudio.
    """

    subject: str | None = None
    template: str = "a photo of a {subject}, {view} view"
    negative: str = ""
    negative_views: dict[str, str] | None = None
    perp_neg: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_options(self)
        if unknown := set(self.negative_views or ()) - set(VIEWS):
            raise ValueError(f"negative_views has {', '.join(sorted(unknown))}; views are {', '.join(VIEWS)}")
        if self.subject is not None and not self.subject.strip():
            raise ValueError("model.prompt.subject is empty; leave it out, or name the object")
        if fault := fault_of(self.template, ["subject"] if self.subject else [], ["subject", "view"]):
            raise ValueError(f"model.prompt.template: {fault}")
        if self.perp_neg and "{view}" not in self.template:
            found = f"model.prompt.perp_neg needs the prompts of other views, and {self.template!r} has no {{view}}"
            raise ValueError(f"{found}: put that in, or set perp_neg to 0")

    def about(self, text: str) -> "Prompt":
        """The prompt with the data's text as its subject. Raises UserError where another one is given."""
        if self.subject not in (None, text):
            raise UserError(f"model.prompt.subject is {self.subject!r}, data.prompt {text!r}: leave the first out")
        return replace(self, subject=text)

    def with_learned(self, phrase: str) -> "Prompt":
        """The prompt with what was learned as its subject. Raises UserError where ``phrase``, the name that was
        learned, would not reach the prior.
        """
        if self.subject is not None and phrase not in self.subject:
            raise UserError(
                f"model.prompt.subject is {self.subject!r}, without the learned {phrase!r}: leave it out, or put"
                " that in"
            )
        if "{subject}" not in self.template and phrase not in self.template:
            raise UserError(
                f"model.prompt.template {self.template!r} has no {{subject}}: the learned {phrase!r} would not reach"
                " the prior"
            )
        return replace(self, subject=self.subject or (phrase if "{subject}" in self.template else None))

    def check(self, prior: TextPrior, learned: str | None) -> None:
        """Raise UserError where the subject, the name that was learned, or the words for a view would not reach the
        network.
        """
        if "{view}" not in self.template:
            warnings.warn(
                f"model.prompt.template {self.template!r} has no {{view}}: the prior is told the same of all sides",
                stacklevel=2,
            )
        for view in VIEWS:
            prior.require(self.of(view), self.subject or "", learned or "", view if "{view}" in self.template else "")

    def of(self, view: str) -> str:
        """The prompt of one of VIEWS."""
        return self.template.format(subject=self.subject or "object", view=view)

    def against(self, view: str) -> str:
        """The negative prompt of one of VIEWS."""
        return (self.negative_views or {}).get(view, self.negative)


@dataclass(frozen=True)
class TextTo3DOptions:
    """How the scene is fitted. Fractions are of the run; pairs are (at its start, at its end), linear in between.

    Args:
        render_size: Side in pixels of random views.
        views: Random views per step.
        guidance_scale: Of classifier-free guidance, at start and end; 1 is the conditional prediction.
        noise_end: The guidance's highest noise level falls linearly to this fraction of the schedule; or points
            (fraction of the run, level), linear in between, two of one fraction a step; null keeps it.
        noise_low: The guidance's lowest noise level; a number or points, as ``noise_end``; null is its ``end``.
        decoded: Compare views with the targets' images, that the prior decodes, in place of their latents: no gradient
            passes the encoder.
        around: Fraction of the circle, about the front, on which random cameras stand; a number or points, as
            ``noise_end``.
        coarse: Fraction of the run with only half of the grid's levels.
        albedo_only: Fraction of the run without light.
        shading: Probabilities of albedo, lambertian and textureless random views after that.
        ambient: Lowest and highest fraction of light without direction, drawn for each lit view.
        background: Behind random views: a small "network" of the direction (of latents a texture), a "random" color per
            view, or "white", as priors trained on cut-out objects know it.
        random_background: Probability of a random color in its place.
        grid_lr: Adam's learning rate of the scene's entries, constant.
        network_lr: Adam's learning rate of the networks, constant.
        refresh_every: Steps between refreshes of the occupancy grid.
    """

    render_size: Side = 64
    views: AtLeastOne = 1
    guidance_scale: tuple[NotNegative, NotNegative] = (100.0, 100.0)
    noise_end: Unit | list[tuple[Unit, Unit]] | None = 0.5
    noise_low: Unit | list[tuple[Unit, Unit]] | None = None
    decoded: bool = False
    around: Course = 1.0
    coarse: Unit = 0.5
    albedo_only: Unit = 0.2
    shading: tuple[Unit, Unit, Unit] = (0.2, 0.4, 0.4)
    ambient: tuple[Unit, Unit] = (0.1, 0.1)
    background: Literal["network", "random", "white"] = "network"
    random_background: Unit = 0.0
    grid_lr: Positive = 1e-2
    network_lr: Positive = 1e-2
    refresh_every: AtLeastOne = 16

    def __post_init__(self) -> None:
        check_options(self)
        check_course(self.around, "around")
        check_course(self.noise_end or 0.0, "noise_end")
        check_course(self.noise_low or 0.0, "noise_low")
        if abs(sum(self.shading) - 1) > 1e-6:
            raise ValueError(
                f"the probabilities of albedo, lambertian and textureless must add up to 1, not {self.shading}"
            )


def refuse_guidance(
    guidance: Guidance,
    prior: str | None,
    latent: bool,
    learned: Any = None,
    perp_neg: float = 0.0,
    decoded: bool = False,
) -> None:
    """Raise ValueError for a guidance that must see the same views in every round, that lacks the prior, or that cannot
    read a scene of latents; without a prior for what one has ``learned``, and for ``perp_neg``; and for ``decoded``
    targets where there are none, or where scenes are latents themselves.
    """
    if prior is None and guidance.shown != "views":
        raise ValueError(f"{type(guidance).__name__} needs a text prior: name its folder by model.prior")
    if prior is None and learned is not None:
        raise ValueError("model.learned changes a text prior, and model.prior is null: leave it out")
    if perp_neg and guidance.shown == "views":
        found = f"{type(guidance).__name__} asks no diffusion prior, whose predictions Perp-Neg changes"
        raise ValueError(f"{found}: set model.prompt.perp_neg to 0")
    if latent and guidance.shown == "views":
        raise ValueError(f"{type(guidance).__name__} scores colors: set model.scene.colors to sigmoid")
    if decoded and (latent or guidance.shown != "prior"):
        found = "a scene of latents is" if latent else f"{type(guidance).__name__} makes no targets that are"
        raise ValueError(f"{found} compared with latents: set model.options.decoded to false")
    if guidance.fixed_views:
        found = f"{type(guidance).__name__} walks with the same views from round to round"
        raise ValueError(f"model.guidance: {found}, and new ones are drawn at every step here; use SDS or SJC")
