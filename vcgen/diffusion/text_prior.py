"""A text-conditioned latent diffusion model as a prior: any folder or hub name that diffusers' StableDiffusionPipeline
opens.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.diffusion.attention import keep_attention
from vcgen.diffusion.base import Prior, to_signed, to_unit
from vcgen.diffusion.library_folder import TEXT_PRIOR, checked_folder
from vcgen.diffusion.perp_neg import OtherViews, guided
from vcgen.diffusion.schedule import Prediction, draw_timesteps, of_each, signal_and_noise, snr_weight, training_target
from vcgen.diffusion.solvers import solver_of
from vcgen.errors import UserError
from vcgen.io import check, read_json
from vcgen.schema import PlaneSide, Positive
from vcgen.tensors import all_finite, no_more_parameters_than
from vcgen.terminal import one_line

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

#: The folder is complete when the libraries open it.
LOCAL = {"local_files_only": True}
WEIGHTS = {**LOCAL, "use_safetensors": True}
DOWNLOAD = "to fetch a hub name, allow it with download: true"
#: Of one network; those of Stable Diffusion have below a thousand tensors.
MOST_PARAMETERS = 20_000
NEEDS_TEXT = "text priors need the packages of an extra: pip install 'vcgen[text]'"


class Read(Struct):
    """What is read of a text prior's configuration: all that its networks do not check themselves."""

    sample_size: PlaneSide
    scaling_factor: Positive
    model_max_length: Annotated[int, Meta(ge=2, le=10_000)]
    prediction_type: Prediction


class TextCondition(NamedTuple):
    """Outputs of :meth:`TextPrior.embed`. text: (n, length, width) of what is wanted; unconditional: (1 or n, length,
    width) of what classifier-free guidance leads away from; others: what Perp-Neg does, None without it.
    """

    text: Tensor
    unconditional: Tensor
    others: OtherViews | None = None


class TextPrior(Prior[TextCondition]):
    """p(latent | text). Latents (n, C, h, w) are the autoencoder's, times its scaling factor, so of about unit
    variance.

    tokenizer, text_encoder: CLIP's classes in transformers; vae, unet: diffusers'; schedule: the training schedule,
    from which samplers are made. name: where it came from, for messages. Latent diffusion (arXiv 2112.10752); tested
    with the layout of Stable Diffusion 1.x and 2.x. Weights are trainable or not as their owner sets them."""

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        schedule: DDPMScheduler,
        name: str,
    ):
        super().__init__()
        self.tokenizer, self.schedule, self.name = tokenizer, schedule, name
        self.text_encoder, self.vae, self.unet = text_encoder, vae, unet
        keep_attention(unet)

    @staticmethod
    def load(name: str | Path, download: bool = False) -> "TextPrior":
        """Load from a folder, else from the hub's cache on this computer; from the hub itself only with ``download``.

        Only JSON and safetensors are read, see :mod:`vcgen.diffusion.library_folder`; weights stored in half precision
        become float32. Raises UserError where nothing is found, parts are missing, the model is of Stable Diffusion
        XL's kind, or the extra is missing."""
        try:
            from transformers import CLIPTextModel, CLIPTokenizer
        except ImportError as error:
            raise UserError(NEEDS_TEXT) from error
        if Path(name).is_dir() and not (Path(name) / "model_index.json").is_file():
            raise UserError(f"{name}: no model_index.json here; a text prior is a folder of StableDiffusionPipeline")
        try:
            folder = checked_folder(name, TEXT_PRIOR, download)
            # the U-Net asks for more than one text encoder's output
            if read_json(folder / "unet" / "config.json", dict[str, Any]).get("addition_embed_type"):
                known = "text priors are StableDiffusionPipeline folders, as Stable Diffusion 1.x and 2.x"
                raise UserError(f"text prior {name} is of Stable Diffusion XL's kind; {known}")
            with no_more_parameters_than(MOST_PARAMETERS):
                networks = [
                    kind.from_pretrained(folder, subfolder=part, output_loading_info=True, **WEIGHTS)
                    for part, kind in (
                        ("text_encoder", CLIPTextModel),
                        ("vae", AutoencoderKL),
                        ("unet", UNet2DConditionModel),
                    )
                ]
            for network, notes in networks:
                require_whole(network, notes)
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", **LOCAL)
            # latents have no bounds; where a file does not say so, the scheduler would clip them to [-1, 1]
            schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler", clip_sample=False, **LOCAL)
            text_encoder, vae, unet = (network for network, _ in networks)
            prior = TextPrior(tokenizer, text_encoder, vae, unet, schedule, str(name)).float().eval()
            sizes = {"sample_size": prior.unet.config.sample_size, "scaling_factor": prior.vae.config.scaling_factor}
            kinds = {"prediction_type": schedule.config.prediction_type, "model_max_length": tokenizer.model_max_length}
            check({**sizes, **kinds}, Read, f"text prior {name}")
            with torch.no_grad():
                prior.embed(["a"])  # tokenizer and text encoder belong together
            return prior
        except UserError:
            raise
        except Exception as error:  # files that others' code reads, which can fail in any way
            found = "cannot be read" if Path(name).exists() else "is neither a folder here nor in the hub's cache"
            raise UserError(one_line(f"text prior {name} {found} ({one_line(str(error))[:200]})", DOWNLOAD)) from error

    def save(self, folder: Path, half: bool = False) -> None:
        """Write the folder that diffusers' StableDiffusionPipeline opens by itself; safetensors only, in half precision
        if so wished."""
        prior = copy.deepcopy(self).half() if half else self
        prior.pipeline().save_pretrained(folder, safe_serialization=True)
        for path in Path(folder).rglob("*.safetensors"):  # safetensors keeps files from other users, whatever the umask
            path.chmod((Path(folder) / "model_index.json").stat().st_mode)

    def pipeline(self) -> "StableDiffusionPipeline":
        """diffusers' pipeline of these very networks: what it loads into them is loaded here."""
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.schedule,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    @property
    def size(self) -> int:  # type: ignore[override]  # nobody sets it
        """Side in pixels of the images that the model was trained on."""
        return self.unet.config.sample_size * self.reduction

    @property
    def reduction(self) -> int:
        """Pixels per latent cell along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        return self.unet.config.in_channels, self.unet.config.sample_size, self.unet.config.sample_size

    @property
    def length(self) -> int:
        """Tokens of a prompt that the text encoder reads, the marks of beginning and end included: 77 for Stable
        Diffusion.
        """
        return min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)

    def encoded(self, text: str) -> list[int]:
        """Token numbers of a text of any length, without marks of its beginning and end."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Token numbers (n, length), padded. What is longer is cut, and a warning says what is lost; :meth:`require`
        what may not be.
        """
        read = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        for prompt, full in zip(prompts, read.attention_mask.all(1).tolist(), strict=True):
            if full and (lost := self.overlong(prompt)):
                warnings.warn(lost, stacklevel=2)
        # the first parameter's device: `.device` of diffusers' networks walks through all their parts, at every step
        return read.input_ids.to(next(self.unet.parameters()).device, non_blocking=True)

    def overlong(self, prompt: str) -> str:
        """What is lost of a prompt that is longer than the text encoder reads, in words; "" where nothing is."""
        numbers = self.encoded(prompt)
        lost = self.tokenizer.decode(numbers[self.length - 2 :])
        found = f"the prompt {_short(prompt)} has {len(numbers) + 2} tokens with its marks of beginning and end"
        return (
            f"{found}, of which the text prior {self.name} reads {self.length}: {_short(lost)} is lost" if lost else ""
        )

    def require(self, prompt: str, *parts: str) -> None:
        """Raise UserError unless all of each of ``parts`` of a prompt reaches the network: the words that all depends
        on.
        """
        read = self.encoded(prompt)[: self.length - 2]
        for part in parts:
            wanted = self.encoded(part)
            if wanted and wanted not in (read[i : i + len(wanted)] for i in range(len(read))):
                if lost := self.overlong(prompt):
                    raise UserError(f"{lost}, and {_short(part)} does not reach the network; use fewer words")
                raise UserError(
                    f"the prompt {_short(prompt)} does not hold {_short(part)} as words of its own; write it there"
                )

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """What the U-Net attends to: (n, length, width). Differentiable with respect to the text encoder."""
        return self.text_encoder(self.tokens(prompts))[0]

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (n, 3, H, W) in [-1, 1], resized to the model's size -> latents; a draw of the posterior, or its mode
        without a generator. Differentiable with respect to the images."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        return latents.float() * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> images (n, 3, size, size) in about [-1, 1]."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample.float()

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The network's output, noise or v by the schedule, float32: noisy latents, timesteps (n,), text from
        :meth:`embed`.
        """
        return self.unet(noisy, timesteps, encoder_hidden_states=text).sample.float()

    def guided(self, noisy: Tensor, timesteps: Tensor, condition: TextCondition, guidance_scale: float = 1.0) -> Tensor:
        """See :meth:`Prior.guided`. This is Stable Diffusion's convention; DreamFusion's guidance weight is
        guidance_scale - 1. All texts pass the network as one batch."""
        text, others = condition.text, condition.others
        if others is not None:
            return guided(self, noisy, timesteps, text, condition.unconditional, others, guidance_scale)
        if guidance_scale == 1.0:
            return self(noisy, timesteps, text)
        unconditional = condition.unconditional.expand_as(text)
        outputs = self(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), torch.cat([unconditional, text]))
        without, given = outputs.chunk(2)
        return without + guidance_scale * (given - without)

    def loss(
        self, latents: Tensor, text: Tensor, generator: torch.Generator, min_snr: float | None = 5.0
    ) -> tuple[Tensor, Tensor]:
        """Denoising loss of clean latents: per-latent means (n,), weighted by min-SNR with gamma ``min_snr`` (arXiv
        2303.09556; None: all noise levels alike), and their timesteps (n,)."""
        timesteps = draw_timesteps(self.schedule, len(latents), generator)
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        alpha, sigma = signal_and_noise(self.schedule, timesteps, latents)
        output = self(alpha * latents + sigma * noise, timesteps, text)
        target = training_target(self.schedule, latents, noise, timesteps)
        error = (output - target).square().mean((1, 2, 3))
        return error * snr_weight(self.schedule, timesteps, min_snr), timesteps

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        generator: torch.Generator,
        steps: int = 25,
        guidance_scale: float = 7.5,
        negative: str = "",
        sampler: str = "ddim",
    ) -> Tensor:
        """Draw images (n, 3, size, size) in [0, 1]. sampler: "ddim" or "dpm++" (diffusers)."""
        solver = solver_of(self.schedule, sampler, steps)
        condition = TextCondition(self.embed(prompts), self.embed([negative]))
        state = torch.randn((len(condition.text), *self.latent_shape), generator=generator, device=generator.device)
        for time in solver.timesteps:
            output = self.guided(state, of_each(state, time), condition, guidance_scale)
            state = solver.step(output, time, state).prev_sample
        return to_unit(self.decode(state))


def require_whole(network: nn.Module, notes: Mapping[str, Any]) -> None:
    """Raise ValueError where weights are missing, which the libraries would draw at random, or are not finite.

    notes: what ``from_pretrained`` says of the loading."""
    if lost := [*notes["missing_keys"], *notes.get("mismatched_keys", ())]:
        raise ValueError(f"its {type(network).__name__} lacks {lost[0]}")
    if odd := [key for key, tensor in network.state_dict().items() if not all_finite(tensor)]:
        raise ValueError(f"its {type(network).__name__} has NaN or infinity in {odd[0]}")


def latents_of(prior: TextPrior, images: Tensor, generator: torch.Generator) -> Tensor:
    """Latents of images (n, 3, H, W) in [0, 1], for training: no gradient to the autoencoder."""
    with torch.no_grad():
        return prior.encode(to_signed(images), generator)


def _short(text: str, longest: int = 80) -> str:
    return repr(text if len(text) <= longest else f"{text[: longest - 3]}...")
