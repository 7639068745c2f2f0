"""Image priors whose network is a U-Net of diffusers, preconditioned as in EDM (arXiv 2206.00364, table 1)."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor
from torch.nn import functional as F

from vcgen.diffusion.attention import KeptAttention, keep_attention
from vcgen.diffusion.base import Condition, ImagePrior
from vcgen.diffusion.schedule import predicts_noise, signal_and_noise, snr_weight
from vcgen.schema import GROUPS, HEAD


class UNetPrior(ImagePrior):
    """A U-Net that sees the noisy image and the condition's maps, side by side.

    With ``sigma_data`` it learns what the best guess leaves over for Gaussian images, at unit variance; the image that
    it is given is then scaled, the condition is not. patch: pixels per cell of the U-Net along both sides. min_snr:
    gamma of the loss weights without ``sigma_data``. condition_blur, condition_noise: see
    :class:`vcgen.diffusion.prior.ViewPrior`.
    """

    unet: UNet2DModel | UNet2DConditionModel
    patch: int
    sigma_data: float | None
    min_snr: float | None
    condition_blur: float
    condition_noise: float

    @abstractmethod
    def mean(self, condition: Condition) -> Tensor:
        """With ``sigma_data``: the mean (n, 3, H, W) of images under a condition."""

    @abstractmethod
    def deviation(self, condition: Condition) -> Tensor:
        """With ``sigma_data``: the standard deviation (n, 1, 1, 1) of images about their mean."""

    def level(self, timesteps: Tensor) -> Tensor:
        """What the U-Net is told of the noise, (n,)."""
        return timesteps

    def augmented(self, condition: Condition, generator: torch.Generator) -> Condition:
        """The condition as training shows it: see ``condition_blur`` and ``condition_noise``."""
        if not self.condition_blur and not self.condition_noise:
            return condition
        from vcgen.diffusion.condition_augmentation import spoiled  # which training alone needs

        maps = spoiled(condition.maps, self.condition_blur, self.condition_noise, generator)
        return condition._replace(maps=maps * condition.given[:, None, None, None])

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The prediction (n, 3, H, W), float32, for noisy images (n, 3, H, W) at ``timesteps`` (n,)."""
        if self.sigma_data is None:
            return self.network(noisy, timesteps, condition)
        alpha, sigma = signal_and_noise(self.schedule, timesteps, noisy)
        deviation, total = self.scales(alpha, sigma, condition)
        mean = self.mean(condition)
        offset = noisy - alpha * mean
        output = self.network(offset / total, timesteps, condition)
        # With x = mean + k offset + (sigma sigma_data / total) output, k = alpha sigma_data^2 / total^2, in z = alpha x
        # + sigma e:
        if predicts_noise(self.schedule):
            return sigma / total.square() * offset - alpha * deviation / total * output
        return (
            alpha * sigma * (1 - deviation.square()) / total.square() * offset
            - deviation / total * output
            - sigma * mean
        )

    def scales(self, alpha: Tensor, sigma: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """The deviation of images and that of z - alpha mean; (n, 1, 1, 1) each."""
        deviation = self.deviation(condition)
        return deviation, (alpha.square() * deviation.square() + sigma.square()).sqrt()

    def network(self, images: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The U-Net's output (n, 3, H, W), float32."""
        cells = F.pixel_unshuffle(torch.cat([images, condition.maps], 1), self.patch)
        extra = {} if condition.tokens is None else {"encoder_hidden_states": condition.tokens}
        return F.pixel_shuffle(self.unet(cells, self.level(timesteps), **extra).sample.float(), self.patch)

    def loss_weight(self, timesteps: Tensor, condition: Condition) -> Tensor:
        """Weight (n,) of the predicted quantity's squared error: by min-SNR, or with ``sigma_data`` 1 on the network's
        output.
        """
        if self.sigma_data is None:
            return snr_weight(self.schedule, timesteps, self.min_snr)
        alpha, sigma = signal_and_noise(self.schedule, timesteps, condition.maps)
        deviation, total = self.scales(alpha, sigma, condition)
        scale = alpha if predicts_noise(self.schedule) else torch.ones_like(alpha)
        return (total / (scale * deviation)).square().flatten()


def view_unet(
    channels: Sequence[int],
    layers: int,
    attention: Sequence[bool],
    conditions: int,
    token_width: int | None,
    size: int,
    patch: int = 1,
    middle_norm: bool = True,
) -> UNet2DModel | UNet2DConditionModel:
    """A U-Net (ADM's shape, arXiv 2105.05233) from 3 noisy channels and ``conditions`` others to 3, on cells of
    ``patch`` x ``patch`` pixels. With ``token_width`` the levels that attend also attend to tokens of that width.

    middle_norm: see :class:`vcgen.diffusion.prior.ViewPrior`; tokens bring a normalization of their own.
    """
    kind = "Attn" if token_width is None else "CrossAttn"
    common = dict(
        sample_size=size // patch,
        in_channels=(3 + conditions) * patch**2,
        out_channels=3 * patch**2,
        layers_per_block=layers,
        block_out_channels=tuple(channels),
        down_block_types=tuple(f"{kind}DownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple(f"{kind}UpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        norm_num_groups=GROUPS,
        resnet_time_scale_shift="scale_shift",
    )
    if token_width is None:
        # unless told, diffusers leaves it out beside "scale_shift"
        groups = GROUPS if middle_norm else None
        unet = UNet2DModel(**common, attention_head_dim=HEAD, attn_norm_num_groups=groups)
        if not middle_norm:
            unet.mid_block.attentions[0].set_processor(KeptAttention(always=True))
    else:
        # diffusers calls the number of heads attention_head_dim here (its issue 2011); equal counts keep heads 32 wide
        # at the widest level.
        unet = UNet2DConditionModel(
            **common, cross_attention_dim=token_width, attention_head_dim=max(1, max(channels) // HEAD)
        )
    keep_attention(unet)
    return unet
