"""A text becomes a scene, by score distillation of random views (DreamFusion, arXiv 2209.14988)."""

from pathlib import Path
from typing import cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.data.datamodules.prompt import PromptData
from vcgen.data.viewpoints import VIEWS, ViewpointOptions, random_cameras
from vcgen.diffusion.base import Denoised, to_signed
from vcgen.diffusion.text_prior import TextPrior
from vcgen.encoders.base import OptimizedScene
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.errors import UserError
from vcgen.fields.background import Background, BackgroundTexture
from vcgen.fields.occupancy import OccupancyGrid, OccupiedField
from vcgen.guidance.base import ConditionedPrior, Guidance
from vcgen.guidance.sds import SDS
from vcgen.losses.course import value_at
from vcgen.losses.scene import SceneWeights, distance_to_targets
from vcgen.memory import peak_memory
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.rendering.shading import ShadedRendering, Shading, render_shaded, shaded_image
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.schema import AtLeastOne, Positive
from vcgen.systems.base import FieldSystem
from vcgen.systems.text_to_3d import guided
from vcgen.systems.text_to_3d.draws import draw_color, draw_shading
from vcgen.systems.text_to_3d.latents import colored_scene, in_colors, latent_views, refuse_light, require_size
from vcgen.systems.text_to_3d.monitor import SceneMonitor
from vcgen.systems.text_to_3d.options import Prompt, TextTo3DOptions, refuse_guidance
from vcgen.systems.text_to_3d.outcome import OutcomeOptions, Sides, circle, four_sides, log_sheet, write_outcome
from vcgen.systems.text_to_3d.regularizers import regularizers
from vcgen.systems.text_to_3d.words import load_prior
from vcgen.types import Behind, Example, Field, Rendering, Scene, Views


class TextTo3D(FieldSystem):
    """A text becomes a scene (DreamFusion, arXiv 2209.14988): random views must look to a text prior like its images.

    The run ends by writing turntable, normals, depth and meshes. The text comes with the data module, with the
    reference camera, which sets the scale and where the front is.

    Args:
        prior: Folder of a text prior (or hub name, fetched only with ``download``); neither trained nor stored in
            checkpoints. null with ClipGuidance, which needs none.
        scene: What is fitted; its sphere must hold the object.
        guidance: SDS, SJC or VSD, on latents, or ClipGuidance; null is SDS. Not NGD, which needs fixed views.
        prompt: The words that the prior is conditioned on; its subject is the data's text.
        weights: Weights of the losses.
        viewpoints: Where random cameras stand.
        options: How the scene is fitted.
        render: How rays are sampled in training.
        render_eval: How rays of images are sampled.
        occupancy: Cells per side of the grid that skips empty space.
        outcome: Which images and meshes are written at the end.
        half_prior: Keep the prior's weights in bfloat16: half the memory, for mixed precision.
        checkpoint_encoder: Recompute the encoder's activations in the backward pass: less memory, more time.
        download: Fetch the prior where it is not on this computer.
        learned: Folder of a run of Personalize on that prior, whose name for the object the text must hold.
        empty_below: Density per world unit below which a cell counts as empty.
    """

    reference: Views  # from setup on, as the prior
    text_prior: TextPrior
    takes = ("PromptData",)
    advice_when_not_finite = "lower model.options.grid_lr and model.options.network_lr, or model.options.guidance_scale"

    def __init__(
        self,
        prior: str | None,
        scene: SceneHashGrid | OptimizedScene,
        guidance: Guidance | None = None,
        prompt: Prompt = Prompt(template="a photo of {subject}, {view} view"),
        weights: SceneWeights = SceneWeights(),
        viewpoints: ViewpointOptions = ViewpointOptions(),
        options: TextTo3DOptions = TextTo3DOptions(),
        render: RenderOptions = RenderOptions(48),
        render_eval: RenderOptions = RenderOptions(96),
        occupancy: AtLeastOne = 48,
        outcome: OutcomeOptions = OutcomeOptions(),
        half_prior: bool = False,
        checkpoint_encoder: bool = False,
        download: bool = False,
        learned: Path | None = None,
        empty_below: Positive = 0.05,
    ):
        super().__init__(OptimizerOptions(), {})
        self.prior_name, self.download, self.learned = prior, download, learned
        self.scene, self.background = scene, BackgroundTexture() if scene.latent else Background()
        self.occupancy = OccupancyGrid(occupancy, threshold=empty_below)
        self.guidance, self.prompt, self.weights, self.viewpoints = guidance or SDS(), prompt, weights, viewpoints
        self.options, self.render_options, self.render_eval, self.outcome = options, render, render_eval, outcome
        if render.importance:
            raise ValueError(
                "model.render.importance: random views are rendered in one pass; set it to 0, and raise samples"
            )
        refuse_guidance(self.guidance, prior, scene.latent, learned, prompt.perp_neg, options.decoded)
        if scene.latent:
            refuse_light(options)
        guided.refuse_levels(self.guidance, options)
        self.half_prior, self.checkpoint_encoder, self.monitor = half_prior, checkpoint_encoder, SceneMonitor()

    def setup(self, stage: str) -> None:
        """Lightning's hook: prior, prompt and reference. Raises UserError where one cannot be used."""
        if (count := self.trainer.world_size) > 1:
            raise UserError(f"one scene is the work of one process, here are {count}: set trainer.devices to 1")
        if self.half_prior and "mixed" not in str(self.trainer.precision):
            raise UserError(f"model.half_prior needs trainer.precision bf16-mixed, here it is {self.trainer.precision}")
        self.to(self.trainer.strategy.root_device)  # Lightning itself moves the module after this hook
        data = self.trainer.datamodule
        self.use_reference(data.example.context)
        if isinstance(data, PromptData):
            self.prompt = self.prompt.about(data.prompt)
        if self.prior_name is None:
            self.guidance.attach(None)
            return
        prior, self.prompt = load_prior(self.prior_name, self.download, self.learned, self.prompt)
        self.use_prior(prior)

    def use_reference(self, view: Views) -> None:
        """The view (1, 1) whose camera sets the scale and the front."""
        self.reference = guided.holding(view.to(self.device), self.scene.center, self.scene.radius)

    def use_prior(self, prior: TextPrior) -> None:
        """A prior, and the text of all views as it reads it."""
        prior = prior.requires_grad_(False).eval().to(self.device, torch.bfloat16 if self.half_prior else None)
        if self.checkpoint_encoder:
            prior.vae.enable_gradient_checkpointing()
        if self.scene.latent:
            require_size(self.options, prior)
        self.guidance.attach(prior)
        object.__setattr__(self, "text_prior", prior)  # not a submodule: it is neither trained nor stored here
        with torch.no_grad():
            self.text, self.negative = (
                dict(zip(VIEWS, prior.embed([words(view) for view in VIEWS]).float().split(1), strict=True))
                for words in (self.prompt.of, self.prompt.against)
            )

    @property
    def whole_field(self) -> Field:
        """The scene as it is now, without skipping."""
        return self.scene.scene()

    def field(self, context: Views) -> OccupiedField:
        """The scene as it is now; ``context`` is not looked at."""
        return OccupiedField(self.whole_field, self.occupancy)

    def render(self, field: Scene, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """See :meth:`FieldSystem.render`: over a gray level, whatever the background of training is."""
        with torch.autocast(self.device.type, enabled=False):
            rendering = render_image(field, cameras, size, self.render_eval, background)
            return self.decoded(cast(Field, field), cameras, rendering, background) if self.scene.latent else rendering

    def decoded(self, field: Field, cameras: Cameras, rendering: Rendering, background: Behind = 1.0) -> Rendering:
        """A rendering of latents, by cameras (1, views), as images. Raises UserError without the prior, as of a model
        folder.
        """
        if "text_prior" not in vars(self):
            raise UserError("latents are shown by their prior, which is not here: use field/ in the run's folder")
        return in_colors(rendering, self.latents(field, cameras), self.text_prior, background)

    def latents(self, field: Field, cameras: Cameras) -> Rendering:
        """What cameras (1, views) see of a scene of latents, at the prior's size."""
        return latent_views(field, cameras, self.options.render_size, self.render_eval, self.background)

    def colored_scene(self) -> OptimizedScene:
        """The scene as it can be shown without the prior."""
        if not self.scene.latent:
            return self.scene
        cameras = circle(self, self.reference, self.outcome.views)[None]
        with torch.no_grad():
            return colored_scene(self.scene, self.latents(self.whole_field, cameras), self.text_prior)

    def shaded(self, field: Field, camera: Cameras, size: tuple[int, int]) -> tuple[Rendering, Tensor]:
        """Image and normals from a camera (1,), see :func:`vcgen.rendering.shading.shaded_image`."""
        with torch.autocast(self.device.type, enabled=False):
            rendering, normals = shaded_image(field, camera, size, self.render_eval)
            return (self.decoded(field, camera[None], rendering) if self.scene.latent else rendering), normals

    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of the weights, see :mod:`vcgen.losses.scene`, which states their reductions."""
        progress = min(1.0, self.progress(self.global_step))
        self.loss_weights = self.weights.at(progress)
        self.scene.show(coarse=progress < self.options.coarse)
        # Differences of a density in bfloat16 would be noise: the field is computed in float32 whatever
        # trainer.precision is.
        with torch.autocast(self.device.type, enabled=False):
            if self.global_step % self.options.refresh_every == 0:
                self.occupancy.refresh(self.whole_field, generator)
            losses = self.reference_losses(example, generator)
            cameras, views, images = self.random_views(self.field(example.context), progress, generator)
            losses |= self.regularizers(views)
        if self.weights.sds:
            if self.guidance.shown == "views":
                words = guided.words_of(cameras, self.reference.cameras[0], self.scene.center)
                texts = list(map(self.prompt.of, words))
                losses |= guided.losses_of_views(self.guidance, views, texts, progress, generator)
            else:
                losses["sds"] = self.distill(images, cameras, progress, generator)
            losses |= self.guidance.losses(generator)
        return losses

    def reference_losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """What is known of the reference view; of a text alone nothing is."""
        return {}

    def random_views(
        self, field: Field, progress: float, generator: torch.Generator
    ) -> tuple[Cameras, list[ShadedRendering], Tensor]:
        """Cameras (views,), what they see lit, and images (views, 3, size, size) in [0, 1], or latents of the prior."""
        cameras, views, images = [], [], []
        sphere, around = (self.scene.center, self.scene.radius), value_at(self.options.around, progress)
        for _ in range(self.options.views):
            camera = random_cameras(self.reference.cameras[0], *sphere, self.viewpoints, generator, around)
            shading = draw_shading(self.options, camera.centers[0] - self.scene.center, progress, generator)
            rendering, image = self.view(field, camera, shading, generator)
            cameras.append(camera)
            views.append(rendering)
            images.append(image)
        return Cameras.cat(cameras), views, torch.cat(images)

    def view(
        self, field: Field, camera: Cameras, shading: Shading, generator: torch.Generator
    ) -> tuple[ShadedRendering, Tensor]:
        """What a camera (1,) sees, and its image (1, 3, size, size) over the background."""
        size = self.options.render_size
        rays = camera.rays(size, size)
        normals = shading.kind != "albedo" or bool(self.weights.smoothness or self.weights.orientation)
        rendering = render_shaded(field, rays, self.render_options, shading, generator, normals)
        color = draw_color(self.options, self.device, generator)
        behind = self.background(rays.directions) if color is None else color
        return rendering, rendering.rays.over(behind).mT.unflatten(-1, (size, size))

    def regularizers(self, views: list[ShadedRendering]) -> dict[str, Tensor]:
        """Losses on random views that need no prior."""
        losses = regularizers(views, self.weights, self.options.render_size)
        alpha = torch.cat([view.rays.alpha for view in views])
        self.monitored |= {"scene/opacity": alpha.detach().mean(), "scene/occupied": self.occupancy.fraction()}
        mean, bits = torch.stack([self.monitored["scene/opacity"], losses["entropy"].detach()]).tolist()
        self.monitor.watch(mean, bits, self.progress(self.global_step))
        return losses

    def distill(self, images: Tensor, cameras: Cameras, progress: float, generator: torch.Generator) -> Tensor:
        """Half the squared distance of what the guidance is shown, latents or images, to its targets."""
        prior, latents = self.text_prior, images if self.scene.latent else to_signed(images)
        if self.scene.latent and self.guidance.shown == "images":
            latents = prior.decode(latents)
        elif self.guidance.shown == "prior" and not self.scene.latent:
            latents = prior.encode(latents.detach() if self.options.decoded else latents, generator)
        tables, front = (self.text, self.negative), self.reference.cameras[0]
        condition, words = guided.condition_of(tables, self.prompt.perp_neg, cameras, front, self.scene.center)
        first, last = self.options.guidance_scale
        guidance, shown = self.annealed(progress), latents.detach()

        def denoise(noisy: Tensor, timesteps: Tensor) -> Denoised:
            return prior.denoise(noisy, timesteps, condition, first + progress * (last - first))

        with torch.no_grad():
            state, number = guidance.begin(shown, generator), min(int(progress * guidance.rounds), guidance.rounds - 1)
            teacher = ConditionedPrior(denoise, prior.schedule, condition, cameras, tuple(map(self.prompt.of, words)))
            result = guidance.step(number, state, shown, teacher, generator)
        self.monitored["guidance/disagreement"] = torch.as_tensor(result.disagreement)
        if self.options.decoded:
            return guided.decoded_distance(prior, images, result.targets, self.weights.sds_reduction)
        return distance_to_targets(latents, result.targets, self.weights.sds_reduction)

    def annealed(self, progress: float) -> Guidance:
        """The guidance with its noise levels for this fraction of the run, see :func:`guided.at_levels`."""
        return guided.at_levels(self.guidance, self.options, progress)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """See :func:`scene_optimizer`."""
        return guided.scene_optimizer(self.scene, self.background, self.guidance, self.options)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lightning's hook: gradients are watched, too."""
        super().on_before_optimizer_step(optimizer)
        self.monitor.watch_gradients(float(self.gradient_norm))

    def validation_step(self, example: Example, batch_index: int) -> None:
        """Logs ``val/janus`` (:mod:`vcgen.metrics.janus`; NaN for an empty scene) and a sheet of four sides."""
        sides = four_sides(self, self.reference, self.field(example.context))
        self.log("val/janus", self.monitor.faces(sides, self.progress(self.global_step)), batch_size=1)
        self.log_sides(sides)

    def log_sides(self, sides: Sides) -> None:
        """Log four sides to TensorBoard, if there is one."""
        log_sheet(self, "val/four_sides", sides)

    def on_train_end(self) -> None:
        """Write what the scene has become into the run's folder; say how much memory it took."""
        if not self.writes:
            return
        write_outcome(self, self.reference, Path(self.trainer.default_root_dir), self.outcome)
        rank_zero_info(f"peak memory: {peak_memory(self.device) / 1e9:.2f} GB")
