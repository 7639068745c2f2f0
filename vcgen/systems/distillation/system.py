"""The per-image stage of NerfDiff (arXiv 2302.10109, section 3.3): the amortized field of one image is finetuned by its
prior.
"""

from pathlib import Path
from typing import cast

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.checkpoints import model_folder
from vcgen.data.datamodules.single import OneScene
from vcgen.encoders.base import Recipe
from vcgen.errors import UserError
from vcgen.guidance.base import Guidance, refuse_views
from vcgen.guidance.ngd import NGD
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.schema import Count
from vcgen.systems.base import FieldSystem
from vcgen.systems.distillation.loop import Distillation, DistillOptions
from vcgen.systems.nerfdiff import NerfDiff, save_scene
from vcgen.types import Behind, Example, Rendering, Scene, Views
from vcgen.visualization.images import contact_sheet, to_uint8
from vcgen.visualization.logging import show_image


class Distill(FieldSystem):
    """Distills a trained model's field of the data's input views by a guidance, as a training run.

    Args:
        model: Model folder with a prior.
        guidance: NGD, SDS or SJC; null is NGD as configs/distill.yaml has it.
        options: How targets become a field.
        images_every: Rounds between sheets of virtual views in TensorBoard, the field's renderings above their targets;
            0 for none.
    """

    takes = ("SceneData", "ImageData")
    state: Distillation  # from setup on
    advice_when_not_finite = (
        "lower model.options.scene_lr and model.options.decoder_lr, or model.options.guidance_scale"
    )

    def __init__(
        self,
        model: Path,
        guidance: Guidance | None = None,
        options: DistillOptions = DistillOptions(),
        images_every: Count = 4,
    ):
        super().__init__(OptimizerOptions(), {})
        self.guidance, self.options, self.images_every = guidance or NGD(), options, images_every
        self.model = model
        refuse_views(self.guidance)

    def setup(self, stage: str) -> None:
        """Lightning's hook: the amortized field, from where the distillation starts."""
        if self.trainer.world_size > 1:
            advice = "set trainer.devices to 1; `vcgen evaluate --distill` shares many scenes among processes"
            raise UserError(f"a distillation is the work of one process, here are {self.trainer.world_size}: {advice}")
        if self.trainer.accumulate_grad_batches != 1:
            raise UserError("a distillation accumulates no gradients: set trainer.accumulate_grad_batches to 1")
        if not isinstance(self.trainer.datamodule, OneScene):
            found = type(self.trainer.datamodule).__name__
            raise UserError(f"a distillation takes one scene: set data to SceneData or ImageData, not {found}")
        if not hasattr(self, "state"):  # else it has been distilled, and is validated now
            self.begin(self.trainer.datamodule)
        recipe_of(self.state)  # refuses now what could not be kept
        # The guidance ends the run; a smaller trainer.max_steps may end it before.
        loop = self.trainer.fit_loop.epoch_loop
        loop.max_steps = self.state.updates if loop.max_steps < 0 else min(loop.max_steps, self.state.updates)

    def begin(self, data: OneScene) -> None:
        """The amortized field of the data's input views, with what the guidance needs."""
        self.to(self.trainer.strategy.root_device)  # Lightning itself moves the module after this hook
        system = cast(NerfDiff, model_folder.load(self.model, self.device))  # Distillation refuses what has no prior
        context = data.example.context.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            self.state = Distillation(system.requires_grad_(False), context, self.guidance, self.options)
        self.guidance.attach(system.prior)

    @property
    def starts_trained(self) -> bool:
        """It starts from a model folder, always."""
        return True

    def field(self, context: Views) -> Scene:
        """The field as it is now; ``context`` has been given before."""
        return self.state.field

    def render(self, field: Scene, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """See :meth:`FieldSystem.render`."""
        return self.state.system.render(field, cameras, size, background)

    def behind(self, truth: Views, background: float = 1.0) -> Behind:
        """See :meth:`vcgen.types.FieldModel.behind`."""
        return self.state.system.behind(truth, background)

    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of :meth:`Distillation.losses`."""
        update, last = self.global_step, self.state.last
        losses = self.state.losses(update, generator)
        self.work = {"rays": len(example.context.images) * (self.options.rays + self.options.input_rays)}
        if self.state.last is not last:
            now = self.state.last
            self.monitored |= {
                "guidance/weight": torch.tensor(now.weight),
                "guidance/disagreement": torch.as_tensor(now.disagreement),
            }
            if self.images_every and (update // self.guidance.updates) % self.images_every == 0:
                self.log_images()
        return losses

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam on the scene's weights and, where asked for, the decoder's."""
        optimizer = self.state.optimizer()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.state.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def validation_step(self, example: Example, batch_index: int) -> None:
        """Logs ``val/psnr``: dB per image over white, of the views that the data module knows besides the input."""
        target = example.target
        self.log_psnr(example, self.render(self.state.field, target.cameras, target.size, self.behind(target)).rgb)

    def on_train_end(self) -> None:
        """Write ``field/`` into the run's folder: a model folder that holds the field alone and renders without encoder
        and prior.
        """
        if self.writes:
            folder, system = Path(self.trainer.default_root_dir) / "field", self.state.system
            save_scene(folder, recipe_of(self.state), system.render_options, system.render_eval, system.config)

    def log_images(self) -> None:
        """The first virtual views: renderings above the targets they are pulled towards."""
        with torch.no_grad():
            pairs = [x[:8] / 2 + 0.5 for x in (self.state.renderings(), self.state.targets)]
        sheet = contact_sheet(to_uint8(torch.cat(pairs)), len(pairs[0]))
        show_image(self.trainer, "virtual/renderings_above_targets", sheet)


def recipe_of(state: Distillation) -> Recipe:
    """The recipe of the distilled field. Raises UserError where the model's encoder has none."""
    return state.system.encoder.recipe(state.result, state.system.config["init_args"]["encoder"]["init_args"])
