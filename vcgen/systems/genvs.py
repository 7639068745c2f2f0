"""GeNVS (arXiv 2304.02602): a field of features, and a diffusion model that makes images of what is rendered of it."""

import torch
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.diffusion.feature_prior import FeaturePrior
from vcgen.diffusion.solvers import Sampler
from vcgen.errors import UserError
from vcgen.fields.feature_volume import FeatureColors
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Rendering, Scene, Views


class GeNVS(NerfDiff):
    """GeNVS (arXiv 2304.02602): a prior makes images of rendered features.

    NerfDiff whose prior is shown features instead of colors. The field is also seen in color, by itself: so it is
    rendered, evaluated and turned into meshes, if "rgb" is weighted. Published: "rgb" 0, and the prior's gradient
    reaches the field from the first step (``prior_options.field_gradient_from`` 0).
    """

    condition_background = 0.0

    def field(self, context: Views) -> Scene:
        """See :meth:`NerfDiff.field` and :meth:`fitting`."""
        return self.fitting(super().field(context))

    def color_losses(self, field: Scene, target: Views, generator: torch.Generator) -> dict[str, Tensor]:
        """See :meth:`NerfDiff.color_losses` and :meth:`fitting`."""
        return super().color_losses(self.fitting(field), target, generator)

    def fitting(self, scene: Scene) -> FeatureColors:
        """The scene. Raises UserError for an encoder whose scenes have no features, and for a prior that is not shown
        any.
        """
        if not isinstance(scene, FeatureColors):
            found = type(self.encoder).__name__
            raise UserError(f"GeNVS renders features, model.encoder ({found}) gives none: choose FeatureVolume")
        if not isinstance(self.prior, FeaturePrior | None):
            found = type(self.prior).__name__
            raise UserError(f"GeNVS shows features, model.prior ({found}) wants colors: choose FeaturePrior, or null")
        return scene

    def render_condition(self, field: Scene, cameras: Cameras, size: tuple[int, int]) -> Rendering:
        """See :meth:`NerfDiff.render_condition`; of the field's features, over 0."""
        return super().render_condition(self.fitting(field).features, cameras, size)

    def starting_image(self, field: Scene, cameras: Cameras, rendering: Rendering) -> Tensor:
        """See :meth:`NerfDiff.starting_image`; the field in color."""
        return self.render(field, cameras, (rendering.rgb.shape[-2], rendering.rgb.shape[-1])).rgb

    @torch.no_grad()
    def sample_along(
        self,
        context: Views,
        cameras: Cameras,
        generator: torch.Generator,
        steps: int = 10,
        guidance_scale: float | None = None,
        strength: float = 1.0,
        sampler: Sampler = "ddim",
        earlier: int = 5,
    ) -> Tensor:
        """Images (batch, views, 3, height, width) in [0, 1], drawn one after another along ``cameras`` (batch, views),
        of the context's size.

        Each is given the input views, the last image, and up to ``earlier`` random ones before it, so that neighbors
        agree (section 4.3). The other options are those of :meth:`sample`, of which the first image is one.
        """
        known, inputs = Views(context.on(1.0), context.cameras), context.cameras.shape[1]
        for number in range(cameras.shape[1]):
            shown, camera = known[:, self.chosen(inputs, number, earlier, generator)], cameras[:, number : number + 1]
            drawn = self.sample(shown, camera, generator, None, steps, guidance_scale, strength, sampler)
            known = Views(torch.cat([known.images, drawn], 1), Cameras.cat([known.cameras, camera], 1))
        return known.images[:, inputs:]

    def chosen(self, inputs: int, drawn: int, earlier: int, generator: torch.Generator) -> Tensor | slice:
        """Which of so many input views and images drawn after them the next image is given."""
        if drawn == 0:
            return slice(inputs)
        others = torch.randperm(drawn - 1, generator=generator, device=generator.device)[:earlier] + inputs
        newest = torch.arange(inputs + drawn - 1, inputs + drawn, device=generator.device)
        return torch.cat([torch.arange(inputs, device=generator.device), newest, others])
