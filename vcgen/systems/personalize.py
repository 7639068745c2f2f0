"""Personalization: a text prior learns the object of a photo (RealFusion, arXiv 2302.10663, section 3.2; DreamBooth,
arXiv 2208.12242).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcgen.data.datamodules.photo import PhotoData
from vcgen.data.images.photo_augment import PLAIN, PhotoAugmentation
from vcgen.diffusion.prompts import fault_of
from vcgen.diffusion.text_prior import TextPrior, latents_of
from vcgen.errors import UserError
from vcgen.folders import adding_to
from vcgen.optim.ema import averaged_weights
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.personalization.base import Personalization
from vcgen.personalization.class_images import Preservation, draw_class_images, read_class_images
from vcgen.random import run_seed
from vcgen.schema import AtLeastOne, Count, NotNegative, Positive, check_options
from vcgen.systems.base import Mean, System
from vcgen.types import Example, Views
from vcgen.visualization.images import contact_sheet, to_uint8, write_png
from vcgen.visualization.logging import show_image

#: The 27 "small" templates of textual inversion (arXiv 2208.01618, appendix), from CLIP's for ImageNet.
TEMPLATES = tuple(
    f"{words} {{}}"
    for words in (
        "a photo of a, a rendering of a, a cropped photo of the, the photo of a, a photo of a clean, "
        "a photo of a dirty, a dark photo of the, a photo of my, a photo of the cool, a close-up photo of a, "
        "a bright photo of the, a cropped photo of a, a photo of the, a good photo of the, a photo of one, "
        "a close-up photo of the, a rendition of the, a photo of the clean, a rendition of a, a photo of a nice, "
        "a good photo of a, a photo of the nice, a photo of the small, a photo of the weird, a photo of the large, "
        "a photo of a cool, a photo of a small"
    ).split(", ")
)
#: Noise levels of the validation loss, per photo.
LEVELS = 16


@dataclass(frozen=True)
class ViewImages:
    """Images drawn at each validation, and at the end into ``views.png``: a column for each view.

    Args:
        prompt: Prompt of all of them, {} for the object.
        views: View words, added to ``prompt``.
        rows: Draws of each; 0 draws nothing.
        steps: Denoising steps of each.
        guidance_scale: Of classifier-free guidance.
    """

    prompt: str = "a photo of a {}"
    views: tuple[str, ...] = ("front view", "side view", "back view", "overhead view")
    rows: Count = 2
    steps: AtLeastOne = 25
    guidance_scale: NotNegative = 7.5

    def __post_init__(self) -> None:
        if fault := fault_of(self.prompt, [""]):
            raise ValueError(f"model.images.prompt: {fault}: the object's name stands there")
        check_options(self)
        if self.rows and not self.views:
            raise ValueError("model.images.views is empty: give some, or set model.images.rows to 0")

    def prompts_of(self, phrase: str) -> list[str]:
        """A row of prompts."""
        return [with_view(self.prompt.format(phrase), view) for view in self.views]


class Personalize(System):
    """Teaches a text prior the object of one or more photos.

    Writes into the run's folder what was learned, in diffusers' own formats: see :func:`load_personal`. Checkpoints
    hold what is trained and nothing of the frozen networks.

    Args:
        prior: Folder or hub name of the text prior, see :meth:`TextPrior.load`.
        method: TextualInversion, LoRA or DreamBooth.
        optimizer: Optimizer and learning rates.
        download: Fetch the prior, and what the method needs, where it is not on this computer.
        augmentation: Of the photo, drawn anew for each image.
        batch_size: Images of the object per step.
        templates: Prompts, {} for the object.
        view: View words added to them, such as "front view"; "" for none.
        min_snr: Gamma of the min-SNR loss weights (arXiv 2303.09556); null weighs all noise levels alike.
        preservation: Of the class, for LoRA and DreamBooth; null for none.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, more time.
        images: Which images are drawn at validations.
    """

    prior: TextPrior  # from setup on
    takes = ("PhotoData",)
    advice_when_not_finite = (
        "lower model.optimizer.lr, set trainer.gradient_clip_val to 1, and look at photo.png in the run's folder"
    )

    def __init__(
        self,
        prior: str,
        method: Personalization,
        optimizer: OptimizerOptions,
        download: bool = False,
        augmentation: PhotoAugmentation = PhotoAugmentation(),
        batch_size: AtLeastOne = 1,
        templates: tuple[str, ...] = TEMPLATES,
        view: str = "",
        min_snr: Positive | None = None,
        preservation: Preservation | None = None,
        gradient_checkpointing: bool = False,
        images: ViewImages = ViewImages(),
    ):
        super().__init__(optimizer, {} if preservation is None else {"class": preservation.weight})
        if batch_size < 1 or not templates:
            raise UserError("model: needs a batch_size of 1 or more, and templates")
        if faults := [fault for words in templates if (fault := fault_of(words, [""]))]:
            raise UserError(
                f'model.templates: {faults[0]}: give templates with {{}} for the object, as "a photo of a {{}}"'
            )
        if preservation is not None and method.noun is None:
            raise UserError(
                f"model.preservation: {type(method).__name__} changes no network and has no class to preserve; set it"
                " to null"
            )
        self.method, self.batch_size, self.min_snr, self.preservation = method, batch_size, min_snr, preservation
        self.source, self.download, self.augmentation, self.images = prior, download, augmentation, images
        self.templates, self.view_words = [with_view(words, view) for words in templates], view
        self.gradient_checkpointing = gradient_checkpointing
        self.val_denoising = Mean()
        self.class_images: Tensor | None = None
        self.known_texts: dict[str, Tensor] = {}

    def hold(self, prior: TextPrior) -> None:
        """Keep the prior outside of the module: its weights are in no checkpoint, nor counted as the system's."""
        object.__setattr__(self, "prior", prior)
        self.known_texts = {}

    def setup(self, stage: str) -> None:
        """Lightning's hook: load the prior, draw the images of its class, build in what is trained."""
        if hasattr(self, "prior"):
            return
        data = self.trainer.datamodule
        if not isinstance(data, PhotoData):
            raise UserError(f"a personalization learns from photos: set data to PhotoData, not {type(data).__name__}")
        if self.device_mesh is not None:
            raise UserError(
                "trainer.strategy sharded: a personalization is not split among processes; set it to auto or ddp"
            )
        device = self.trainer.strategy.root_device
        prior = TextPrior.load(self.source, self.download).requires_grad_(False).to(device)
        names_known = self.method.noun is not None
        if names_known:  # before the class's images are drawn, which takes long
            self.check_prompts(prior)
        if self.preservation is not None and stage == "fit":
            self.class_images = self.preserved(prior, device)
        views = data.example.context
        images = photos(views, PLAIN, range(views.images.shape[1]), prior.size, torch.Generator()).to(device)
        self.method.attach(prior, images, self.download)
        if self.gradient_checkpointing:
            prior.unet.enable_gradient_checkpointing()
        self.hold(prior)
        if not names_known:
            self.check_prompts(prior)

    def check_prompts(self, prior: TextPrior) -> None:
        """Raise UserError where the object's name, its class or the view would not reach the network."""
        for words in self.templates:
            prior.require(words.format(self.method.phrase), self.method.phrase, self.view_words)
        for prompt, view in zip(
            self.images.prompts_of(self.method.phrase) if self.images.rows else [], self.images.views, strict=False
        ):
            prior.require(prompt, self.method.phrase, view)
        if self.preservation is not None and self.method.noun is not None:
            for words in self.preservation.prompts:
                prior.require(words.format(self.method.noun), self.method.noun)

    def preserved(self, prior: TextPrior, device: torch.device) -> Tensor:
        """The class's images, drawn by all processes together."""
        folder, seed = Path(self.trainer.default_root_dir) / "class_images", run_seed()
        place = self.trainer.global_rank, self.trainer.world_size
        assert self.method.noun is not None and self.preservation is not None, "the constructor refuses others"
        with self.trainer.precision_plugin.forward_context():
            draw_class_images(prior, self.method.noun, self.preservation, folder, seed, device, *place)
        self.trainer.strategy.barrier("class images")
        return read_class_images(folder, self.preservation.count).to(device)

    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses "denoising": the mean over the object's latents, weighted by min-SNR where asked for; with
        preservation "class": that of as many images of the class, in one batch with them.
        """
        views, count = example.context, self.batch_size
        chosen = draw(views.images.shape[1], count, generator)
        images = photos(views, self.augmentation, chosen, self.prior.size, generator)
        phrase = self.method.phrase
        prompts = [self.templates[number].format(phrase) for number in draw(len(self.templates), count, generator)]
        if self.class_images is not None and self.preservation is not None and self.method.noun is not None:
            numbers = draw(len(self.class_images), count, generator)
            images = torch.cat([images, self.class_images[numbers].float() / 255])
            prompts += self.preservation.prompts_of(self.method.noun, numbers)
        self.work = {"images": len(images)}
        latents = latents_of(self.prior, images, generator)
        errors = self.prior.loss(latents, self.embed(prompts), generator, self.min_snr)[0].split(count)
        return dict(zip(("denoising", "class"), (error.mean() for error in errors), strict=False))

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """See :meth:`TextPrior.embed`. Prompts that are alike are read once, and by a text encoder that does not learn
        once for all.
        """
        different = list(dict.fromkeys(prompts))
        if any(weights.requires_grad for weights in self.prior.text_encoder.parameters()):
            read = dict(zip(different, self.prior.embed(different), strict=True))
        else:  # each by itself: what is known already must not change the last bits of the others
            self.known_texts |= {
                text: self.prior.embed([text])[0] for text in different if text not in self.known_texts
            }
            read = self.known_texts
        return torch.stack([read[text] for text in prompts])

    def validation_step(self, example: Example, batch_index: int) -> None:
        """Logs ``val/denoising``: the unweighted loss of the unchanged photos under the first template, with the same
        noise every time.
        """
        generator = torch.Generator(self.device).manual_seed(0)
        views = example.context
        images = photos(views, PLAIN, range(views.images.shape[1]), self.prior.size, generator)
        latents = latents_of(self.prior, images, generator).repeat(LEVELS, 1, 1, 1)  # each photo at all levels
        text = self.embed([self.templates[0].format(self.method.phrase)]).expand(len(latents), -1, -1)
        self.val_denoising.update(self.prior.loss(latents, text, generator, min_snr=None)[0], example.weight)
        self.log("val/denoising", self.val_denoising, prog_bar=True)
        if batch_index == 0 and self.trainer.is_global_zero and not self.trainer.sanity_checking and self.images.rows:
            show_image(self.trainer, "val/views", self.view_sheet())

    def view_sheet(self) -> np.ndarray:
        """(height, width, 3) uint8: images under each view's prompt, always from the same noise."""
        wanted = self.images
        prompts = wanted.prompts_of(self.method.phrase) * wanted.rows
        with self.trainer.precision_plugin.forward_context():
            drawn = self.prior.sample(
                prompts, torch.Generator(self.device).manual_seed(0), wanted.steps, wanted.guidance_scale
            )
        return contact_sheet(to_uint8(drawn), len(wanted.views))

    def on_train_end(self) -> None:
        """Write what was learned, with averaged weights where there are any, and ``views.png``."""
        if not self.writes:
            return
        root = Path(self.trainer.default_root_dir)
        with averaged_weights(self.trainer, self), torch.no_grad():
            with adding_to(root) as temporary:
                self.method.save(self.prior, temporary)
            if self.images.rows:
                write_png(root / "views.png", self.view_sheet())


def with_view(prompt: str, view: str) -> str:
    """A prompt, or a template, with words for the view added; "" adds none."""
    return f"{prompt}, {view}" if view else prompt


def photos(
    views: Views, augmentation: PhotoAugmentation, chosen: Sequence[int], size: int, generator: torch.Generator
) -> Tensor:
    """The ``chosen`` of one scene's views (1, n), each changed anew: (count, 3, size, size) in [0, 1]."""
    images, alpha = views.images[0], views.coverage[0]
    return torch.stack([augmentation(images[number], alpha[number], size, generator) for number in chosen])


def draw(choices: int, count: int, generator: torch.Generator) -> list[int]:
    """``count`` numbers below ``choices``."""
    return torch.randint(choices, (count,), generator=generator, device=generator.device).tolist()
