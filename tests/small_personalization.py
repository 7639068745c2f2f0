"""A personalization of moments: photos of a shape, and a system that holds a prior."""

import torch

from learned_prior import COLORS, shape
from vcgen.cameras import orbit, pinhole
from vcgen.diffusion.text_prior import TextPrior
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.systems.personalize import Personalize
from vcgen.types import Example, Views

OPTIMIZER = {"lr": 1e-2, "weight_decay": 1e-2, "warmup_steps": 1, "schedule": "constant"}


def example(color: str = "red", thing: str = "car", count: int = 1) -> Example:
    """A photo of a shape, 16 pixels, ``count`` times."""
    straight, alpha = shape(COLORS[color], thing)
    cameras = orbit(torch.zeros(count), torch.full((count,), 15.0), 1.8, pinhole(1.4), 1.0, 2.6)
    views = Views(straight.expand(1, count, 3, 16, 16), cameras.reshape(1, count), alpha.expand(1, count, 1, 16, 16))
    return Example(views, views, ("photo",))


def system(prior: TextPrior, method, attach: bool = True, **options) -> Personalize:
    """A system that holds a prior, without a trainer."""
    made = Personalize("given", method, OptimizerOptions(**OPTIMIZER), **options)
    if attach:
        method.attach(prior.requires_grad_(False), example().context.on(1.0)[0])
    made.hold(prior)
    return made
