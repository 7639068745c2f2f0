"""RealFusion (arXiv 2302.10663): one photo and a text prior become a scene, by score distillation of random views."""

from pathlib import Path

import torch
from torch import Tensor

from vcgen.data.viewpoints import ViewpointOptions
from vcgen.encoders.base import OptimizedScene
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.guidance.base import Guidance
from vcgen.losses.scene import LossWeights
from vcgen.rendering.ray_batches import draw_rays, gather_pixels, squared_error
from vcgen.rendering.shading import Shading, render_shaded
from vcgen.rendering.volume import RenderOptions
from vcgen.schema import AtLeastOne, Positive
from vcgen.systems.realfusion.options import RealFusionOptions
from vcgen.systems.realfusion.photo import require_cut_out, warn_of_outside
from vcgen.systems.text_to_3d.guided import holding
from vcgen.systems.text_to_3d.monitor import SceneMonitor
from vcgen.systems.text_to_3d.options import Prompt
from vcgen.systems.text_to_3d.outcome import OutcomeOptions, Sides, log_sheet
from vcgen.systems.text_to_3d.system import TextTo3D
from vcgen.types import Example, Field, Views


class RealFusion(TextTo3D):
    """RealFusion (arXiv 2302.10663): one photo becomes a hash-grid scene.

    The run ends by writing turntable, normals, depth and meshes. The photo comes as the one context view, with alpha
    and the reference camera, of the data module's example. With weights 0 of the photo it is text to 3D.

    Args:
        prior: Folder of a text prior (or hub name, fetched only with ``download``); neither trained nor stored in
            checkpoints.
        scene: The field; its sphere must hold the object and what the photo's camera sees of it.
        guidance: SDS, SJC or VSD, on latents; null is SDS. Not NGD, whose walk needs the same views in every round.
        prompt: The words that the prior is conditioned on.
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
        learned: Folder of a run of Personalize on that prior, whose name for the object is then the prompt's subject.
        empty_below: Density per world unit below which a cell counts as empty.
    """

    weights: LossWeights
    options: RealFusionOptions
    takes = ("PhotoData",)
    advice_when_not_finite = f"{TextTo3D.advice_when_not_finite}, and look at photo.png in the run's folder"

    def __init__(
        self,
        prior: str,
        scene: SceneHashGrid | OptimizedScene,
        guidance: Guidance | None = None,
        prompt: Prompt = Prompt(),
        weights: LossWeights = LossWeights(),
        viewpoints: ViewpointOptions = ViewpointOptions(),
        options: RealFusionOptions = RealFusionOptions(),
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
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(**arguments)
        self.monitor = SceneMonitor("weights.mask or the blob", "raise weights.mask")

    def use_reference(self, view: Views) -> None:
        """The photo (1, 1), with alpha."""
        require_cut_out(view)
        super().use_reference(view)
        warn_of_outside(self.reference, self.scene.center, self.scene.radius)

    def reference_losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of the photo, whose few rays look everywhere, so that matter can begin where nothing is yet."""
        if not (self.loss_weights["rgb"] or self.loss_weights["mask"]):
            return {}
        photo = holding(example.context, self.scene.center, self.scene.radius)
        return self.photo_losses(self.whole_field, photo, generator)

    def photo_losses(self, field: Field, photo: Views, generator: torch.Generator) -> dict[str, Tensor]:
        """Errors on random rays of the photo: "rgb", both sides over the same background, and "mask"."""
        options = self.options
        rays, pixels = draw_rays(field, photo, options.reference_rays, generator)
        rays = rays[0]
        rendering = render_shaded(field, rays, self.render_options, Shading(), generator, with_normals=False).rays
        truth = gather_pixels(photo, pixels)
        # The network must not learn the photo's error away.
        behind = self.background(rays.directions).detach() if options.background == "network" else None
        return {
            "rgb": squared_error(rendering, truth, options.background == "random", behind),
            "mask": (rendering.alpha - truth.alpha).square().mean(),
        }

    def validation_step(self, example: Example, batch_index: int) -> None:
        """Logs ``val/psnr`` of target views over white, and what :class:`TextTo3D` does."""
        field = self.field(example.context)
        self.log_psnr(example, self.render(field, example.target.cameras, example.target.size).rgb)
        super().validation_step(example, batch_index)

    def log_sides(self, sides: Sides) -> None:
        """The photo, then four sides."""
        log_sheet(self, "val/photo_and_four_sides", sides, self.reference.on(1.0)[0, 0])
