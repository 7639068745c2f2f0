"""Distillation of one or more images: a guidance's images of virtual views are written into the field (NerfDiff,
algorithm 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from vcgen.cameras import Cameras, look_at
from vcgen.diffusion.base import Condition, ImagePrior, to_signed
from vcgen.errors import UserError
from vcgen.guidance.base import ConditionedPrior, Guidance, Round
from vcgen.random import seeded
from vcgen.rendering.ray_batches import ray_losses
from vcgen.schema import AtLeastOne, Elevation, NotNegative, Positive, check_options
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Finetunable, Scene, Views

#: The golden angle in radians: azimuths that never repeat.
GOLDEN = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True)
class DistillOptions:
    """How targets become a field. All values are ours, those of configs/distill.yaml: the paper states none.

    Args:
        views: Virtual views per object.
        elevations: Lowest and highest elevation of the virtual views, in degrees, at the input camera's distance;
            evenly spread between.
        rays: Per update and object, over all virtual views.
        input_rays: Of the input view, per update and object.
        samples: Per ray; null: as the model renders images. Fewer, as in its training, are faster, and the field is
            blurred when it is rendered with more.
        input_weight: Weight of the input view's error.
        scene_lr: Adam's learning rate of planes or hash grid; it falls linearly to a tenth. null keeps them as they
            are.
        decoder_lr: Adam's learning rate of the decoder, which objects share; null keeps it as it is. One of the two
            must be given.
        condition: What the prior is conditioned on: "current", the field's renderings as it is, or "first", the
            amortized one's, as in its training.
        guidance_scale: Of classifier-free guidance; 1 is the conditional prediction, all that a prior trained without
            condition dropout can give.
    """

    views: AtLeastOne = 16
    elevations: tuple[Elevation, Elevation] = (-5.0, 70.0)
    rays: AtLeastOne = 2048
    input_rays: AtLeastOne = 256
    samples: AtLeastOne | None = None
    input_weight: NotNegative = 1.0
    scene_lr: Positive | None = 1e-2
    decoder_lr: Positive | None = None
    condition: Literal["first", "current"] = "current"
    guidance_scale: NotNegative = 1.05

    def __post_init__(self) -> None:
        check_options(self)
        low, high = self.elevations
        if self.rays < self.views:
            raise ValueError(f"options.rays is {self.rays}, options.views {self.views}: give at least one ray per view")
        if not -90 < low <= high < 90:
            raise ValueError(f"elevations must satisfy -90 < lowest <= highest < 90 degrees, not {self.elevations}")
        if self.scene_lr is None and self.decoder_lr is None:
            raise ValueError("scene_lr and decoder_lr are both null: nothing is left to finetune, give one of them")


class Distillation(nn.Module):
    """The state of a distillation: the fields being finetuned, and where the guidance stands.

    system: the trained model with its prior, left as it is. context: (batch, 1) input views over any background. A
    checkpoint of this module (and of the optimizer) is all that is needed to go on. Raises UserError for a model
    without prior, for fields that cannot be finetuned, and for input views of another size than the prior's.
    """

    system: NerfDiff
    prior: ImagePrior
    targets: Tensor
    noise: Tensor

    def __init__(self, system: NerfDiff, context: Views, guidance: Guidance, options: DistillOptions):
        super().__init__()
        object.__setattr__(self, "system", system)  # not a submodule: its weights are neither trained nor stored here
        if system.prior is None:
            raise UserError("this model has no diffusion prior to distill: train one with model.prior")
        object.__setattr__(self, "prior", system.prior)
        if context.size != (system.prior.size,) * 2:
            found, side = "{} x {}".format(*context.size), system.prior.size
            raise UserError(
                f"the input view has {found} pixels, the prior knows {side} x {side}: pack the data with --size {side}"
            )
        self.context, self.guidance, self.options = context, guidance, options
        with torch.no_grad():
            first = system.field(context)
        if not isinstance(first, Finetunable):
            raise UserError(
                f"fields of the class {type(first).__name__} cannot be finetuned: distill one input view, and a"
                " model with planes or a hash grid"
            )
        if options.decoder_lr is not None and len(context.images) > 1:
            raise UserError("objects share the decoder: distill one at a time, or set decoder_lr to null")
        self.first = first
        self.weights = first.weights()
        self.weights.scene.requires_grad_(options.scene_lr is not None)
        self.weights.decoder.requires_grad_(options.decoder_lr is not None)
        self.cameras = virtual_cameras(
            context.only("distillation").cameras, first.center, options.views, options.elevations
        )
        with torch.no_grad():
            self.condition = self.condition_on(first)
        blank = context.images.new_zeros(self.cameras.near.numel(), 3, *context.size)
        self.register_buffer("targets", blank)
        self.register_buffer("noise", blank.clone())
        #: The latest round; of the one before the first, only that there was none is known.
        self.last = Round(self.targets, self.noise, -1, 0.0, 0.0)

    @property
    def field(self) -> Finetunable:
        """The fields as they are now; differentiable with respect to what is finetuned."""
        return self.first.with_weights(self.weights)

    @property
    def result(self) -> Finetunable:
        """The fields as they are now, to keep: it holds nothing that training needs."""
        return self.first.with_weights(self.field.weights().requires_grad_(False))

    @property
    def backdrop(self) -> Tensor | None:
        """The color (3,) that the model has learned to stand behind opaque images, as the prior's then are; None for
        white.
        """
        behind = self.system.behind(self.context)
        return behind.detach().flatten() if isinstance(behind, Tensor) else None

    @property
    def updates(self) -> int:
        """Field updates of the whole distillation."""
        return self.guidance.rounds * self.guidance.updates

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, for scene and decoder at their own rates, without a part that is kept."""
        parts = (self.weights.scene, self.options.scene_lr), (self.weights.decoder, self.options.decoder_lr)
        groups = [{"params": list(part.parameters()), "lr": rate} for part, rate in parts if rate is not None]
        return torch.optim.Adam([*groups, *self.guidance.parameter_groups()], betas=(0.9, 0.99))

    def rate(self, update: int) -> float:
        """Multiplier of the learning rates at an update."""
        return 1 - 0.9 * min(1.0, update / self.updates)

    def losses(self, update: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of field update ``update`` (0 ... updates - 1); a new round of the guidance begins every
        ``guidance.updates``.

        "virtual": mean squared error on rays of the virtual views against the guidance's targets; "input": on rays of
        the input view, already weighted; and those of the guidance's own parameters, where it has any.
        """
        if update % self.guidance.updates == 0:
            self.advance(update // self.guidance.updates, generator)
        field, options = self.field, self.options
        images = (self.targets / 2 + 0.5).unflatten(0, self.cameras.shape)
        render = self.system.render_eval
        if options.samples is not None:
            render = replace(render, samples=options.samples)
        shown, count = Views(images, self.cameras), options.rays // options.views
        virtual = ray_losses(field, shown, count, render, generator, learned=self.backdrop)
        known = ray_losses(
            field, self.context, options.input_rays, render, generator, self.system.background, self.backdrop
        )
        losses = {"virtual": virtual["rgb"], "input": options.input_weight * known["rgb"]}
        return losses | self.guidance.losses(generator)

    @torch.no_grad()
    def advance(self, number: int, generator: torch.Generator) -> None:
        """Round ``number`` of the guidance: new targets. The guidance begins with the first."""
        condition = self.condition if self.options.condition == "first" else self.condition_on(self.field)
        prior, scale = self.prior, self.options.guidance_scale
        renderings = self.renderings()
        if number == 0:
            last = self.guidance.begin(renderings, generator)
        else:  # a resumed run has but the buffers
            last = self.last._replace(targets=self.targets, noise=self.noise)
        self.last = self.guidance.step(
            number,
            last,
            renderings,
            ConditionedPrior(
                lambda noisy, times: prior.denoise(noisy, times, condition, scale),
                prior.schedule,
                condition,
                self.cameras.reshape(-1),
            ),
            generator,
        )
        self.targets.copy_(self.last.targets)
        self.noise.copy_(self.last.noise)

    def renderings(self) -> Tensor:
        """The virtual views as the field shows them now: (batch * views, 3, H, W) in [-1, 1]."""
        behind = self.system.behind(self.context)
        return to_signed(self.system.render(self.field, self.cameras, self.context.size, behind).rgb.flatten(0, 1))

    def condition_on(self, field: Scene) -> Condition:
        """What the prior is told about the virtual views."""
        rendering = self.system.render_condition(field, self.cameras, self.context.size)
        return self.prior.condition(rendering, self.context, self.cameras.near, self.cameras.far)


def virtual_cameras(camera: Cameras, center: Tensor, count: int, elevations: tuple[float, float]) -> Cameras:
    """(batch, count) cameras like ``camera`` (batch,), around ``center`` (batch, 3) at its distance, looking there,
    world z up.

    On a golden-angle spiral over the zone between the elevations (degrees), equal areas to each; the first azimuth is
    the camera's.
    """
    offset = camera.centers - center
    low, high = (math.sin(math.radians(e)) for e in elevations)
    steps = torch.arange(count, device=center.device)
    height = low + (high - low) * (steps + 0.5) / count
    azimuth = torch.atan2(offset[:, 1], offset[:, 0])[:, None] + steps * GOLDEN
    ring = (1 - height.square()).sqrt()
    around = torch.stack([ring * azimuth.cos(), ring * azimuth.sin(), height.expand_as(azimuth)], -1)
    eyes = center[:, None] + offset.norm(dim=-1)[:, None, None] * around
    up = torch.eye(3, device=center.device)[2].expand_as(eyes)
    c2w = look_at(eyes, center[:, None].expand_as(eyes), up)
    K, near, far = (x[:, None].expand(-1, count, *x.shape[1:]) for x in (camera.K, camera.near, camera.far))
    return Cameras(c2w, K, near, far)


def distill(
    system: NerfDiff,
    context: Views,
    guidance: Guidance,
    options: DistillOptions = DistillOptions(),
    seed: int = 0,
    watch: Callable[[int, Distillation], None] = lambda update, state: None,
) -> Distillation:
    """Run a whole distillation of ``context`` (batch, 1) views; the result's ``field`` renders without the prior.

    It is bit for bit that of `vcgen fit -c configs/distill.yaml` with the same image, model, seed and options.

    watch: called after every update with its number and the state. Uses bfloat16 where training does. Raises UserError
        when it diverges.
    """
    device = context.images.device

    def reduced() -> torch.autocast:
        # Anew at each update: as long as it lasts, autocast keeps its bfloat16 copies of the decoder's weights, however
        # these change.
        return torch.autocast(device.type, torch.bfloat16)

    with torch.enable_grad():
        with reduced():
            state = Distillation(system, context, guidance, options)
        optimizer = state.optimizer()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, state.rate)
        for update in range(state.updates):
            with reduced():
                loss = torch.stack(list(state.losses(update, seeded(seed, update, device=device)).values())).sum()
            if not torch.isfinite(loss):
                advice = "lower scene_lr and decoder_lr, or the guidance's max_weight"
                raise UserError(f"the distillation diverged at update {update}: {advice}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            watch(update, state)
    return state
