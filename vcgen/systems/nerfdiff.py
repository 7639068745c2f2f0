"""NerfDiff (arXiv 2302.10109): an amortized NeRF learned from posed views, jointly with a diffusion prior conditioned
on its renderings.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.cameras import Cameras
from vcgen.checkpoints import model_folder
from vcgen.diffusion.base import ImagePrior
from vcgen.diffusion.solvers import Sampler
from vcgen.encoders.base import Encoder, Recipe
from vcgen.errors import UserError
from vcgen.losses.patches import NAMES as PATCH_LOSSES, weighted
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.random import of_scenes
from vcgen.rendering.patches import PatchOptions, patch_losses
from vcgen.rendering.ray_batches import Background, ray_losses
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.schema import AtLeastOne, Count, NotNegative, Side, check_options
from vcgen.systems.base import FieldSystem, Mean
from vcgen.systems.suitability import check_size, check_views, odd_distance
from vcgen.terminal import complain
from vcgen.types import Behind, Example, Rendering, Scene, Views

#: See :meth:`NerfDiff.losses`.
LOSSES = ("rgb", "coarse", "denoising")


@dataclass(frozen=True)
class PriorOptions:
    """How prior and field are trained together.

    Args:
        views: Target views per scene that the prior denoises at every step.
        condition_size: Side in pixels at which the field is rendered for the prior, enlarged to the image's; null: the
            image's own.
        field_gradient_from: Step from which the prior's loss also trains the field; null: never (its blurred first
            renderings would be gamed).
    """

    views: AtLeastOne = 1
    condition_size: Side | None = None
    field_gradient_from: Count | None = None

    def __post_init__(self) -> None:
        check_options(self)


class NerfDiff(FieldSystem):
    """NerfDiff (arXiv 2302.10109): an image becomes a field, trained on the rays of other views of its scene.

    Args:
        encoder: Turns context views (batch, n) into a field: TriplaneEncoder (NerfDiff) or PixelNerf (the baseline).
        render: How training rays are sampled.
        render_eval: How rays of images are sampled; null: as in training.
        rays_per_view: Training rays per target view, drawn uniformly from the pixels whose ray meets the field's
            sphere.
        background: What rendering and target are composited over in the loss. "white": as in the SRN data sets.
            "random": the mean over all colors in [0, 1]^3; needs targets with alpha. "learned": one trainable color,
            for opaque images of unknown background.
        optimizer: Optimizer and learning rates.
        loss_weights: Per loss. "rgb" and "coarse" (only fields with their own proposal) are means over rays and
            channels of the squared error, "denoising" is the prior's weighted mean over images and pixels. Of
            ``patches``, computed where they have a weight: "absolute", the mean absolute error of colors; "structure",
            1 - SSIM; "gradients", the mean absolute error of neighboring pixels' differences at three scales;
            "perceptual", LPIPS.
        patches: Training rays form one square patch in each target view, in the place of ``rays_per_view`` scattered
            ones, so that losses can see more than single pixels; null: scattered.
        prior: The diffusion prior; null trains the field alone.
        prior_options: How prior and field are trained together.
        pretrained: Model folder whose field, and prior where it has one, this one starts from.
        train_field: false freezes the field: only the prior is trained.
    """

    takes = ("ShardData", "SceneData")
    #: The gray level behind what the prior is shown.
    condition_background = 1.0

    def __init__(
        self,
        encoder: Encoder,
        render: RenderOptions = RenderOptions(),
        render_eval: RenderOptions | None = None,
        rays_per_view: AtLeastOne = 128,
        background: Background = "random",
        optimizer: OptimizerOptions = OptimizerOptions(),
        loss_weights: dict[str, NotNegative] = {"rgb": 1.0, "coarse": 1.0, "denoising": 1.0},
        patches: PatchOptions | None = None,
        prior: ImagePrior | None = None,
        prior_options: PriorOptions = PriorOptions(),
        pretrained: Path | None = None,
        train_field: bool = True,
    ):
        super().__init__(optimizer, loss_weights)
        known = (*LOSSES, *encoder.penalties, *(PATCH_LOSSES if patches else ()))
        if unknown := loss_weights.keys() - set(known):
            there = ", ".join(known) + ("" if patches else f"; with model.patches also {', '.join(PATCH_LOSSES)}")
            raise UserError(f"model.loss_weights has {', '.join(sorted(unknown))}; the losses are {there}")
        self.prior, self.prior_options = prior, prior_options
        self.val_denoising = Mean()
        self.encoder = encoder
        self.most_views = encoder.most_views
        self.render_options, self.render_eval = render, render_eval or render
        self.rays_per_view, self.background = rays_per_view, background
        self.patches, self.patch_losses = patches, weighted(loss_weights, patches.network) if patches else {}
        self.background_logit = nn.Parameter(torch.zeros(3), train_field) if background == "learned" else None
        self.pretrained, self.train_field = pretrained, train_field
        if pretrained is not None:
            model_folder.start_from(self, pretrained)
        self.encoder.requires_grad_(train_field)

    def train(self, mode: bool = True) -> "NerfDiff":
        """A frozen field stays as it is: its batch normalization, too."""
        super().train(mode)
        self.encoder.train(mode and self.train_field)
        return self

    def setup(self, stage: str) -> None:
        """Lightning's hook. Raises UserError where there is nothing sensible to train, or the data does not fit the
        prior.
        """
        data = self.trainer.datamodule
        check_views(data, encoder=self.encoder, prior=self.prior)
        if self.prior is not None:
            check_size(data, self.prior)
        if stage == "fit" and (text := odd_distance(data, self.encoder)) and self.trainer.is_global_zero:
            complain(text, "warning")
        views = self.prior_options.views
        if self.prior is not None and stage == "fit" and views > (data.targets or views):
            found = f"model.prior_options.views is {views}, data.targets {data.targets}"
            raise UserError(f"{found}: the prior denoises target views; lower the first or raise the second")
        if stage == "fit" and self.patches is not None:
            self.patches.check(data.image_size)
            if perceptual := cast(Any, self.patch_losses.get("perceptual")):
                perceptual.load()  # now, not at the first step: a missing file is told before data is read
        if stage == "fit" and self.encoder.knows_keys:
            if data.augments:
                found = "data.mirror and data.permute_colors make other scenes under the same keys"
                raise UserError(f"{found}, and one code is learned for each key; set both to false")
            if self.background == "learned":
                raise UserError(
                    "model.background is learned, codes of new scenes are found over white: set it to white"
                )
            self.encoder.begin(data.keys)
        if stage == "fit" and not self.train_field:
            if self.prior is None:
                raise UserError("model.train_field is false and there is no model.prior: nothing is left to train")
            if self.pretrained is None and self.resumes_from is None:
                advice = "give the trained field, --model.pretrained FOLDER (from `vcgen export`)"
                raise UserError(f"model.train_field is false: {advice}")

    def field(self, context: Views) -> Scene:
        """See :meth:`FieldSystem.field`."""
        return self.encoder(context)

    def render(self, field: Scene, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """See :meth:`FieldSystem.render`."""
        return render_image(field, cameras, size, self.render_eval, background)

    def behind(self, truth: Views, background: float = 1.0) -> Behind:
        """See :meth:`FieldModel.behind`."""
        if truth.alpha is not None or self.background_logit is None:
            return background
        return self.background_logit.sigmoid()[:, None, None]

    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses "rgb": mean squared error over rays and channels, both sides over the same background; "coarse":
        likewise for the proposal; those of patches that have a weight; the scene's penalties, where it has some;
        "denoising": the prior's.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.train_field):
            field = self.encoder.known(example)
        losses, self.work = {}, {}
        if self.train_field:
            losses = self.color_losses(field, example.target, generator)
        if self.prior is not None:
            each, fraction = self.denoising_losses(field, example, generator)
            losses["denoising"] = each.mean()
            self.monitor(each.detach(), fraction)
        return losses

    def color_losses(self, field: Scene, target: Views, generator: torch.Generator) -> dict[str, Tensor]:
        """The field's losses on rays of the target views (batch, views), scattered or in patches."""
        learned = None if self.background_logit is None else self.background_logit.sigmoid()
        how = (self.render_options, generator, self.background, learned)
        self.work["rays"] = target.cameras.near.numel() * (self.patches.side**2 if self.patches else self.rays_per_view)
        if self.patches is not None:
            return patch_losses(field, target, self.patches, *how, self.patch_losses)
        return ray_losses(field, target, self.rays_per_view, *how)

    def denoising_losses(self, field: Scene, example: Example, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The prior's loss on the first target views of every scene, over white, given the field's renderings at their
        cameras: of each image (n,), with the fraction of the noise schedule (n,), in [0, 1), at which it was taken.
        """
        assert self.prior is not None, "losses asks"
        target = example.target[:, : self.prior_options.views]
        self.work["images"] = target.cameras.near.numel()
        flows = self.prior_options.field_gradient_from
        with torch.set_grad_enabled(torch.is_grad_enabled() and flows is not None and self.global_step >= flows):
            rendering = self.render_condition(field, target.cameras, target.size)
        condition = self.prior.condition(rendering, example.context, target.cameras.near, target.cameras.far)
        losses, times = self.prior.loss(target.on(1.0).flatten(0, 1), condition, generator)
        return losses, times / self.prior.schedule.config.num_train_timesteps

    def monitor(self, losses: Tensor, fraction: Tensor) -> None:
        """Notes the mean of the losses (n,) by quarters of the noise schedule, each of the last step that had images
        there, NaN before. All on the device: looking at the numbers here would make the CPU wait for the GPU at every
        step.
        """
        for low in (0.0, 0.25, 0.5, 0.75):
            name, inside = f"denoising/t_{low:g}_to_{low + 0.25:g}", (fraction >= low) & (fraction < low + 0.25)
            before = self.monitored.get(name, torch.full_like(losses[0], torch.nan))
            self.monitored[name] = torch.where(
                inside.any(), torch.where(inside, losses, 0).sum() / inside.sum(), before
            )

    def render_condition(self, field: Scene, cameras: Cameras, size: tuple[int, int]) -> Rendering:
        """What the prior is shown: images over white, rendered at ``prior_options.condition_size`` and enlarged to
        ``size``.
        """
        small = self.prior_options.condition_size
        # A training step on a GPU does not wait for the number of rays that meet the scene.
        skip_misses = not self.training or self.device.type == "cpu"
        side = size if small is None else (small, small)
        rendering = render_image(field, cameras, side, self.render_eval, self.condition_background, skip_misses)
        if small is None:
            return rendering
        enlarged = (
            F.interpolate(x.flatten(0, 1), size, mode="bilinear").unflatten(0, cameras.shape) for x in rendering
        )
        return Rendering(*enlarged)

    @torch.no_grad()
    def sample(
        self,
        context: Views,
        cameras: Cameras,
        generator: torch.Generator,
        size: tuple[int, int] | None = None,
        steps: int = 10,
        guidance_scale: float | None = None,
        strength: float = 1.0,
        sampler: Sampler = "ddim",
    ) -> Tensor:
        """Images (batch, views, 3, height, width) in [0, 1], drawn from the prior for ``cameras`` (batch, views):
        sharp, each by itself.

        guidance_scale: of classifier-free guidance, see :meth:`ImagePrior.sample`. strength: fraction of the noise
        schedule at which sampling starts, from the field's noised rendering: 1 starts from pure noise, 0 returns the
        rendering. sampler: "ddim" or "dpm++" (DPM-Solver++). Raises UserError without a prior, for a strength outside
        [0, 1] and for an unknown sampler.
        """
        if self.prior is None:
            return super().sample(context, cameras, generator)  # which says so
        field = self.field(context)
        rendering = self.render_condition(field, cameras, size or context.size)
        condition = self.prior.condition(rendering, context, cameras.near, cameras.far)
        start = None if strength == 1 else self.starting_image(field, cameras, rendering).flatten(0, 1)
        return self.prior.sample(condition, generator, steps, guidance_scale, sampler, start, strength).unflatten(
            0, cameras.shape
        )

    def starting_image(self, field: Scene, cameras: Cameras, rendering: Rendering) -> Tensor:
        """Images over white, from which sampling with ``strength`` below 1 starts; rendering: what the prior sees."""
        return rendering.rgb

    def validation_step(self, example: Example, batch_index: int) -> None:
        """Logs ``val/psnr``, and with a prior ``val/denoising``: its loss, mean over images. A scene has the same noise
        each time.
        """
        field = self.field(example.context)
        if self.prior is not None:
            noise = of_scenes(example.keys, self.device)
            self.val_denoising.update(self.denoising_losses(field, example, noise)[0], example.weight)
            self.log("val/denoising", self.val_denoising, prog_bar=True)
        target = example.target
        self.log_psnr(example, self.render(field, target.cameras, target.size, self.behind(target)).rgb)


def save_scene(
    folder: Path, recipe: Recipe, render: RenderOptions, render_eval: RenderOptions, config: Mapping[str, Any]
) -> Path:
    """Write the model folder of one scene, without a prior; what image it is given does not matter. config: image size,
    background, camera and whatever else config.json holds."""
    encoder = {"class_path": f"{recipe.kind.__module__}.{recipe.kind.__qualname__}", "init_args": recipe.init_args}
    arguments = {"encoder": encoder, "render": asdict(render), "render_eval": asdict(render_eval)}
    built = {"class_path": f"{NerfDiff.__module__}.{NerfDiff.__qualname__}", "init_args": arguments}
    weights = {f"encoder.{name}": value for name, value in recipe.weights.items()}
    return model_folder.save(folder, weights, {**config, **built})
