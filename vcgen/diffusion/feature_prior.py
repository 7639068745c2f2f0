"""The diffusion prior of GeNVS (arXiv 2304.02602, section 4.2): denoises a view, given an image of features that was
rendered at its camera.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vcgen.diffusion.base import Condition, to_signed
from vcgen.diffusion.schedule import edm_schedule, signal_and_noise
from vcgen.diffusion.unet_prior import UNetPrior, view_unet
from vcgen.errors import UserError
from vcgen.schema import AtLeastOne, Finite, NotNegative, PlaneSide, Positive, Unit, check_levels
from vcgen.types import Rendering, Views


class FeaturePrior(UNetPrior):
    """p(view | features of the scene rendered at that camera): the denoiser of GeNVS (arXiv 2304.02602, section 4.2).

    EDM's (arXiv 2206.00364, table 1): at noise level s the clean image is c_skip(s) y + c_out(s) F(c_in(s) y,
    condition; c_noise(s)), y = x + s e, with its noise levels from 0.002 to 80, its weights and its distribution of
    training noise. The defaults are GeNVS's.

    Args:
        features: Channels of the rendered features, those of the field's volumes.
        channels: U-Net widths, finest level first (published: of DDPM++).
        layers: Residual blocks per level.
        attention: Whether each level has self-attention, finest first; as many as ``channels``.
        patch: Pixels per U-Net cell along each side; 2 makes a network of the same cost wider (ours).
        sigma_data: Standard deviation of images, in [-1, 1] units, about 0.
        noise: Mean and standard deviation of the natural logarithm of s at which images are noised in training.
        size: Image side in pixels.
        condition_dropout: Fraction of training images without condition, which is then zero (published: noise), in [0,
            1].
        condition_blur: In training each image of features is blurred by a Gaussian whose standard deviation in pixels
            is drawn uniformly between 0 and this, as ViewPrior's rendering is.
        condition_noise: Likewise it gets Gaussian noise, whose standard deviation is drawn uniformly between 0 and
            this.
        middle_norm: The attention of the U-Net's middle block normalizes its input (GroupNorm), as all others do. false
            is for models trained without: their attention in that block has become a choice of single cells.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
    """

    sigma_data: float
    min_snr = None

    def __init__(
        self,
        features: AtLeastOne = 16,
        channels: Sequence[AtLeastOne] = (128, 128, 256, 256, 256),
        layers: AtLeastOne = 4,
        attention: Sequence[bool] = (False, False, False, True, False),
        patch: AtLeastOne = 1,
        sigma_data: Positive = 0.5,
        noise: tuple[Finite, Positive] = (-1.0, 1.4),
        size: PlaneSide = 128,
        condition_dropout: Unit = 0.1,
        condition_blur: NotNegative = 0.0,
        condition_noise: NotNegative = 0.0,
        middle_norm: bool = True,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        check_levels("size", size, patch, channels, attention)
        self.features, self.patch, self.sigma_data, self.noise = features, patch, sigma_data, noise
        self.size, self.condition_dropout = size, condition_dropout
        self.condition_blur, self.condition_noise = condition_blur, condition_noise
        self.schedule = edm_schedule()
        self.unet = view_unet(channels, layers, attention, features + 1, None, size, patch, middle_norm)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def condition(self, rendering: Rendering, context: Views, near: Tensor, far: Tensor) -> Condition:
        """Features over 0 and opacity (ours), as they were rendered (batch, views, ...): batch * views conditions.

        The opacity lies in [-1, 1], so that empty space is not taken for a missing condition. Raises UserError for
        another number of features.
        """
        if (found := rendering.rgb.shape[2]) != self.features:
            raise UserError(
                f"model.prior.features is {self.features}, the scene has {found} channels: set it to {found}"
            )
        maps = torch.cat([rendering.rgb, to_signed(rendering.alpha)], 2).flatten(0, 1)
        return Condition(maps, None, maps.new_ones(len(maps)))

    def mean(self, condition: Condition) -> Tensor:
        """Zeros."""
        return torch.zeros_like(condition.maps[:, :3])

    def deviation(self, condition: Condition) -> Tensor:
        """``sigma_data``, with a condition and without."""
        return torch.full_like(condition.given, self.sigma_data)[:, None, None, None]

    def level(self, timesteps: Tensor) -> Tensor:
        """c_noise(s) = ln(s) / 4."""
        return self.log_noise(timesteps) / 4

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """The timesteps whose :meth:`log_noise` is nearest to numbers drawn from a Gaussian, see ``noise``."""
        mean, deviation = self.noise
        drawn = mean + deviation * torch.randn(count, generator=generator, device=generator.device)
        table = self.log_noise(torch.arange(self.schedule.config.num_train_timesteps, device=generator.device))
        return torch.bucketize(drawn, (table[1:] + table[:-1]) / 2)

    def log_noise(self, timesteps: Tensor) -> Tensor:
        """ln(s) of timesteps (n,), s = sigma_t / alpha_t."""
        alpha, sigma = signal_and_noise(self.schedule, timesteps, timesteps)
        return (sigma / alpha).log()
