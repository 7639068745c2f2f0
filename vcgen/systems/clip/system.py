"""Training a small CLIP model (arXiv 2103.00020) on captioned renders: to guide scenes with, or to judge them."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from vcgen.data.captions import Caption, Shown, draw_captions, read_things, refuse_mirrored, sentence, shown
from vcgen.data.color_names import COLORS
from vcgen.data.recoloring import recolored
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.folders import replacing_folder
from vcgen.losses.contrastive import contrastive
from vcgen.metrics.retrieval import ranks
from vcgen.optim.ema import averaged_weights
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.random import of_scenes
from vcgen.schema import Unit
from vcgen.systems.base import Mean, System
from vcgen.systems.clip.augment import augmented
from vcgen.systems.clip.networks import ClipOptions, new_clip
from vcgen.systems.text2image import all_views
from vcgen.types import Example

#: Beyond this, logits of a batch are as sharp as CLIP lets them become.
MOST_SCALE = 100.0
SCORES = ("category", "color", "recall_1", "recall_5")


class ClipTraining(System):
    """CLIP (arXiv 2103.00020) of renders over random backgrounds and of captions made of names and cameras.

    Leaves ``clip/`` in the run's folder, which transformers' CLIPModel and CLIPProcessor open. Of a batch spread over
    several processes each compares its own images and captions alone.

    Args:
        captions: JSON file, see :func:`read_things`.
        optimizer: Optimizer and learning rates.
        text: Text prior, a folder or hub name, whose tokenizer and text encoder the model starts from.
        download: Let the text prior be fetched from the hub.
        sizes: Of the image encoder.
        categories: The names, among those of the captions, that validation asks for, alone and with each color.
        recolor: Fraction of the objects that are shown, and called, in another color, in [0, 1].
        half: Store the model in half precision.
    """

    takes = ("ShardData",)

    def __init__(
        self,
        captions: Path,
        optimizer: OptimizerOptions,
        text: str = "data/pretrained/toys64",
        download: bool = False,
        sizes: ClipOptions = ClipOptions(),
        categories: tuple[str, ...] = ("car",),
        recolor: Unit = 0.0,
        half: bool = False,
    ):
        super().__init__(optimizer, {})
        self.things, self.categories, self.half_precision = read_things(captions), tuple(categories), half
        self.recolor = recolor
        names = {name for thing in self.things.values() for name in thing.names}
        if missing := [name for name in self.categories if name not in names]:
            raise UserError(f"model.categories has {missing[0]!r}, which names nothing in {captions}; choose others")
        self.clip = new_clip(TextPrior.load(text, download), sizes).train()
        with torch.no_grad():  # refuses what is too long, before anything is trained
            self.clip.embed_texts([sentence(name, "orange", "overhead") for name in sorted(names)])
        kinds = [f"{of}{score}" for of in ("", "object_") for score in SCORES]
        self.scores = torch.nn.ModuleDict({kind: Mean() for kind in kinds})
        self.val_contrast = Mean()

    def setup(self, stage: str) -> None:
        """Lightning's hook: refuse images of another size, and mirror images that captions do not fit."""
        size, found = self.clip.size, self.trainer.datamodule.image_size
        if found != (size, size):
            raise UserError(
                f"the images have {found[0]} x {found[1]} pixels, model.sizes.size is {size}: pack the data with --size"
                f" {size}"
            )
        if self.trainer.datamodule.mirrors:
            refuse_mirrored(self.things)

    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss "contrast": InfoNCE of images and captions, one caption per image; mean over both."""
        views = all_views(example)
        if self.recolor:
            views = recolored(views, self.recolor, generator)
        labels = shown(self.things, example.keys, views)
        self.work = {"images": len(labels)}
        return {"contrast": self.contrast(augmented(views.reshape(-1), generator), labels, generator)}

    def contrast(self, images: Tensor, labels: Sequence[Shown], generator: torch.Generator) -> Tensor:
        """The loss of images (n, 3, H, W) and a caption drawn for each."""
        captions = draw_captions(labels, generator)
        positives = caption_matrix(labels, captions).to(images.device, non_blocking=True)
        texts = self.clip.embed_texts([caption.text for caption in captions])
        embeddings = self.clip.embed_images(images.movedim(1, -1))
        return contrastive(products(self.clip.logit_scale.clamp(max=MOST_SCALE) * embeddings, texts), positives)

    def on_validation_epoch_start(self) -> None:
        """Lightning's hook: the sentences to choose among, once."""
        with torch.no_grad():
            self.plain = self.clip.embed_texts([sentence(name) for name in self.categories])
            colored = [sentence(name, color) for name in self.categories for color in COLORS]
            self.colored = self.clip.embed_texts(colored)

    def validation_step(self, example: Example, batch_index: int) -> None:
        """Logs, over white, per image and per object (its views averaged, ``val/object_...``): ``val/category``, the
        fraction whose category is found; ``val/color``, whose color is found when the category is told; and
        ``val/recall_1`` and ``_5``, where the right one of all categories in all colors is among the first. Things of
        no category are left out. And ``val/contrast``, the loss.
        """
        views = all_views(example)
        labels, images = shown(self.things, example.keys, views), views.on(1.0).flatten(0, 1)
        generator = of_scenes(example.keys, self.device)
        self.val_contrast.update(self.contrast(images, labels, generator), example.weight)
        embeddings = self.clip.embed_images(images.movedim(1, -1)).unflatten(0, (len(example.keys), -1))
        for place, key in enumerate(example.keys):
            color = labels[place * embeddings.shape[1]].color
            category = next((name for name in self.categories if name in self.things[key].names), None)
            if category is not None and color:
                truth = self.categories.index(category), list(COLORS).index(color)
                whole = F.normalize(embeddings[place].mean(0, keepdim=True))
                for of, one in (("", embeddings[place]), ("object_", whole)):
                    for name, right in self.found(one, *truth).items():
                        cast(Mean, self.scores[of + name]).update(right.float(), example.weight)
        self.log("val/contrast", self.val_contrast, prog_bar=True)
        for name, score in self.scores.items():
            self.log(f"val/{name}", cast(Mean, score), prog_bar=name in ("object_category", "object_recall_1"))

    def found(self, embeddings: Tensor, category: int, color: int) -> dict[str, Tensor]:
        """Whether the sentences of a category and a color are found for embeddings (n, d): (n,) bool by score."""
        count, own = len(COLORS), category * len(COLORS)

        def rank(texts: Tensor, truth: int) -> Tensor:
            return ranks(products(embeddings, texts), torch.full((len(embeddings),), truth, device=embeddings.device))

        place = rank(self.colored, own + color)
        of_color = rank(self.colored[own : own + count], color)
        outcomes = rank(self.plain, category) < 1, of_color < 1, place < 1, place < 5
        return dict(zip(SCORES, outcomes, strict=True))

    def on_train_end(self) -> None:
        """Write ``clip/`` into the run's folder, with averaged weights where there are any."""
        if not self.writes:
            return
        place = Path(self.trainer.default_root_dir) / "clip"
        with averaged_weights(self.trainer, self), replacing_folder(place) as folder:
            self.clip.save(folder, self.half_precision)


def products(images: Tensor, texts: Tensor) -> Tensor:
    """The products (n, m) of embeddings (n, d) and (m, d), float32 in mixed precision, too. In bfloat16 logits would be
    rounded by a quarter where they are largest, and different texts of validation would fit equally well.
    """
    with torch.autocast(images.device.type, enabled=False):
        return images.float() @ texts.float().T


def caption_matrix(images: Sequence[Shown], texts: Sequence[Caption]) -> Tensor:
    """Which captions hold for which images: (images, texts) bool. Plain InfoNCE would punish another car's "a car"."""
    return torch.tensor([[image.fits(text) for text in texts] for image in images])
