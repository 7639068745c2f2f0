"""Training a text-conditioned latent diffusion model from nothing (arXiv 2112.10752): autoencoder first, then U-Net and
text encoder.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from vcgen.cameras import Cameras
from vcgen.data.captions import all_sentences, captions, read_things, refuse_mirrored
from vcgen.data.recoloring import recolored
from vcgen.diffusion.base import to_signed
from vcgen.diffusion.text_networks import TextPriorOptions, known_text_prior, new_text_prior
from vcgen.diffusion.text_prior import latents_of
from vcgen.errors import UserError
from vcgen.folders import replacing_folder
from vcgen.optim.ema import averaged_weights
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.random import of_scenes
from vcgen.schema import AtLeastOne, Count, NotNegative, Positive, Unit
from vcgen.systems.base import Mean, System
from vcgen.types import Example, Views
from vcgen.visualization.images import contact_sheet, to_uint8
from vcgen.visualization.logging import show_image

#: The strategy of several processes under which some networks may have no gradient.
ONE_BY_ONE = "ddp_find_unused_parameters_true"


class TextToImage(System):
    """Latent diffusion (arXiv 2112.10752) of images over white, from captions made of names and cameras.

    Leaves ``pipeline/`` in the run's folder, which diffusers' StableDiffusionPipeline opens.

    Args:
        captions: JSON file, see :func:`read_things`; the tokenizer learns from it, too.
        optimizer: Optimizer and learning rates.
        sizes: Of the networks.
        pretrained: Folder of a text prior to go on from, such as another run's ``pipeline/``: its tokenizer, networks
            and their sizes in place of new ones of ``sizes``. Give it ``autoencoder_steps`` 0 to keep its autoencoder,
            to which the latents belong that its U-Net knows.
        autoencoder_steps: The first so many steps train the autoencoder, the others U-Net and text encoder on its
            latents.
        autoencoder_images: How many images of a batch the autoencoder trains on; it costs more per image than the
            U-Net.
        kl_weight: Of the mean divergence per latent number from a standard normal, beside the mean absolute error of
            images in [-1, 1].
        caption_dropout: Fraction of captions replaced by none, for classifier-free guidance, in [0, 1].
        recolor: Fraction of the objects that are shown, and called, in another color, in [0, 1].
        min_snr: Gamma of the min-SNR loss weights (arXiv 2303.09556); null weighs all noise levels alike.
        prompts: Drawn into TensorBoard at each validation.
        half: Store the pipeline in half precision.
    """

    takes = ("ShardData",)

    def __init__(
        self,
        captions: Path,
        optimizer: OptimizerOptions,
        sizes: TextPriorOptions = TextPriorOptions(),
        pretrained: Path | None = None,
        autoencoder_steps: Count = 1000,
        autoencoder_images: AtLeastOne = 16,
        kl_weight: NotNegative = 1e-4,
        caption_dropout: Unit = 0.1,
        recolor: Unit = 0.0,
        min_snr: Positive | None = None,
        prompts: tuple[str, ...] = (),
        half: bool = False,
    ):
        super().__init__(optimizer, {"divergence": kl_weight})
        self.things = read_things(captions)
        sentences = all_sentences(self.things)
        self.prior = known_text_prior(pretrained, sentences) if pretrained else new_text_prior(sentences, sizes)
        self.autoencoder_steps, self.autoencoder_images = autoencoder_steps, autoencoder_images
        self.caption_dropout, self.recolor, self.min_snr = caption_dropout, recolor, min_snr
        self.prompts, self.half_precision = tuple(prompts), half
        #: Standard deviation of the autoencoder's code, a moving average while it trains; latents are divided by it.
        self.spread: Tensor
        self.register_buffer("spread", torch.tensor(1 / self.prior.vae.config.scaling_factor))
        self.val_denoising, self.val_reconstruction = Mean(), Mean()

    def setup(self, stage: str) -> None:
        """Lightning's hook: refuse images of another size, a strategy under which no pipeline could be written, and
        mirror images that captions do not fit.
        """
        if self.device_mesh is not None:
            raise UserError(
                f"trainer.strategy sharded: a text prior is not split among processes; set it to {ONE_BY_ONE}"
            )
        size, (height, width) = self.prior.size, self.trainer.datamodule.image_size
        if (height, width) != (size, size):
            raise UserError(
                f"the images have {height} x {width} pixels, the text prior's (model.sizes.size) {size}: pack the data"
                f" with --size {size}"
            )
        if self.trainer.datamodule.mirrors:
            refuse_mirrored(self.things)

    def on_train_start(self) -> None:
        """Lightning's hook: the scale of the latents as the checkpoint has it. Raises UserError where processes would
        wait for gradients of the networks whose turn it is not.
        """
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel) and not model.find_unused_parameters:
            found = "autoencoder and U-Net are trained one after the other, in several processes as well"
            raise UserError(f"trainer.strategy: {found}; set it to {ONE_BY_ONE}")
        self.set_scale()

    def progress(self, step: int) -> float:
        """Fraction of the phase that is over: the learning rate falls twice, so that the U-Net learns a settled code.
        With ``trainer.max_time`` instead of ``max_steps`` the second fall is that of the whole run."""
        if step < self.autoencoder_steps:
            return step / self.autoencoder_steps
        if self.trainer.max_steps <= 0:
            return super().progress(step)
        return (step - self.autoencoder_steps) / max(1, self.trainer.max_steps - self.autoencoder_steps)

    def set_scale(self) -> None:
        """Latents have unit variance."""
        self.prior.vae.register_to_config(scaling_factor=1 / float(self.spread))

    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses "reconstruction": mean absolute error over images in [-1, 1], and "divergence", mean over the code;
        later "denoising": mean over latents, weighted by ``min_snr``."""
        views = all_views(example)
        if self.recolor:
            views = recolored(views, self.recolor, generator)
        images = over_white(views)
        self.work = {"images": len(images)}
        if self.global_step < self.autoencoder_steps:
            return self.autoencoder_losses(
                images[torch.randperm(len(images), generator=generator, device=images.device)], generator
            )
        if self.global_step == self.autoencoder_steps:
            self.set_scale()
        return {"denoising": self.denoising(example.keys, views, generator)}

    def autoencoder_losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of the first ``autoencoder_images`` of images (n, 3, H, W) in [0, 1]."""
        images = to_signed(images[: self.autoencoder_images])
        posterior = self.prior.vae.encode(images).latent_dist
        code = posterior.sample(generator)
        decoded = self.prior.vae.decode(code).sample.float()
        self.spread.lerp_(code.detach().float().std(), 0.05)
        return {"reconstruction": F.l1_loss(decoded, images), "divergence": posterior.kl().mean() / code[0].numel()}

    def denoising(self, keys: Sequence[str], views: Views, generator: torch.Generator) -> Tensor:
        """The mean denoising loss of views (scenes, n), some captions dropped."""
        texts = captions(self.things, keys, views, generator)
        keep = torch.rand(len(texts), generator=generator, device=generator.device) >= self.caption_dropout
        text = self.prior.embed([text if kept else "" for text, kept in zip(texts, keep.tolist(), strict=True)])
        return self.prior.loss(latents_of(self.prior, over_white(views), generator), text, generator, self.min_snr)[
            0
        ].mean()

    def validation_step(self, example: Example, batch_index: int) -> None:
        """Logs ``val/denoising`` (infinite while the autoencoder trains) and ``val/reconstruction`` (dB per image
        through the code).
        """
        views, generator = all_views(example), of_scenes(example.keys, self.device)
        images = over_white(views)
        decoded = self.prior.decode(self.prior.encode(to_signed(images))).clamp(-1, 1) / 2 + 0.5
        error = (decoded - images).square().mean((1, 2, 3))
        self.val_reconstruction.update(-10 * error.log10(), example.weight)
        early = self.global_step <= self.autoencoder_steps
        loss = torch.full((), torch.inf) if early else self.denoising(example.keys, views, generator)
        self.val_denoising.update(loss, example.weight)
        self.log("val/denoising", self.val_denoising, prog_bar=True)
        self.log("val/reconstruction", self.val_reconstruction, prog_bar=True)
        if batch_index == 0 and self.trainer.is_global_zero and not self.trainer.sanity_checking:
            self.log_images(images, decoded)

    def log_images(self, images: Tensor, decoded: Tensor) -> None:
        """A sheet of images above their reconstructions, and one of samples."""
        sheets = {"reconstructions": torch.stack([images[:8], decoded[:8]]).flatten(0, 1)}
        if self.prompts and self.global_step > self.autoencoder_steps:
            sheets["samples"] = self.prior.sample(
                self.prompts, torch.Generator(self.device).manual_seed(0), guidance_scale=4.0
            )
        for name, shown in sheets.items():
            columns = min(8, len(images)) if name == "reconstructions" else min(6, len(shown))
            sheet = contact_sheet(to_uint8(shown), columns)
            show_image(self.trainer, f"val/{name}", sheet)

    def on_train_end(self) -> None:
        """Write ``pipeline/`` into the run's folder, with averaged weights where there are any."""
        if not self.writes:
            return
        if self.global_step <= self.autoencoder_steps:
            found = f"the run ended at step {self.global_step}, in the autoencoder's {self.autoencoder_steps} steps"
            rank_zero_info(
                f"{found}: no pipeline/ is written; go on with --ckpt_path last, and trainer.max_steps above that"
            )
            return
        self.set_scale()
        place = Path(self.trainer.default_root_dir) / "pipeline"
        with averaged_weights(self.trainer, self), replacing_folder(place) as folder:
            self.prior.save(folder, self.half_precision)


def all_views(example: Example) -> Views:
    """Context and target together: (scenes, n)."""
    parts = example.context, example.target
    alphas = [part.alpha for part in parts if part.alpha is not None]
    alpha = torch.cat(alphas, 1) if len(alphas) == len(parts) else None
    return Views(torch.cat([part.images for part in parts], 1), Cameras.cat([part.cameras for part in parts], 1), alpha)


def over_white(views: Views) -> Tensor:
    """The images of views (scenes, n) over white, scene by scene: (scenes * n, 3, H, W)."""
    return views.on(1.0).flatten(0, 1)
