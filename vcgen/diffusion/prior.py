"""The view-conditioned diffusion prior of NerfDiff (arXiv 2302.10109, section 3.2): denoises a view, given what the
field shows of it.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vcgen.diffusion.base import Condition, to_signed
from vcgen.diffusion.schedule import Prediction, noise_schedule
from vcgen.diffusion.unet_prior import UNetPrior, view_unet
from vcgen.schema import AtLeastOne, NotNegative, PlaneSide, Positive, Unit, check_levels
from vcgen.types import Rendering, Views


class ViewPrior(UNetPrior):
    """p(view | rendering of the field at that camera, input view): NerfDiff's prior (arXiv 2302.10109, section 3.2).

    Images are over white, in [-1, 1] inside, in [0, 1] outside. The defaults have about 5 million parameters; 100
    million: channels (128, 224, 320, 416), layers 2; 400 million, the proportions of ADM at 128 px: channels (208, 208,
    416, 624, 832), layers 2, with attention on all but the finest one or two levels.

    Args:
        channels: U-Net widths, finest level first.
        layers: Residual blocks per level.
        attention: Whether each level has self-attention, finest first; as many as ``channels``.
        input_attention: The attending levels also look at the input view's features (cross-attention).
        depth: The condition has the rendering's distances, too.
        patch: Pixels per U-Net cell along each side (as in patch diffusion and DiT); 2 makes a network of the same cost
            wider.
        prediction: What the network predicts: the noise, or v = alpha e - sigma x (arXiv 2202.00512, appendix D).
        sigma_data: Standard deviation, in [-1, 1] units, with which images are taken to scatter about the rendering.
            The network then learns what the best guess for such Gaussians leaves over, at unit variance: the
            preconditioning of EDM (arXiv 2206.00364, table 1), about the rendering instead of 0 (ours). null: the
            network's output is the prediction.
        size: Image side in pixels, which sets the schedule's shift.
        condition_dropout: Fraction of training images without condition, for classifier-free guidance (arXiv
            2207.12598), in [0, 1].
        condition_blur: In training each rendering is blurred by a Gaussian whose standard deviation in pixels is drawn
            uniformly between 0 and this, so that the prior also mends renderings of objects that the field was not
            trained on, which are worse (condition augmentation, arXiv 2106.15282).
        condition_noise: Likewise it gets Gaussian noise, whose standard deviation in [-1, 1] units is drawn uniformly
            between 0 and this.
        middle_norm: The attention of the U-Net's middle block normalizes its input (GroupNorm), as all others do. false
            is for models trained without: their attention in that block has become a choice of single cells.
        min_snr: Gamma of the min-SNR loss weights (arXiv 2303.09556); null weighs all noise levels alike. With
            ``sigma_data`` the loss is the network's own error at all noise levels, as in EDM.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
    """

    def __init__(
        self,
        channels: Sequence[AtLeastOne] = (32, 64, 128),
        layers: AtLeastOne = 1,
        attention: Sequence[bool] = (False, True, True),
        input_attention: bool = True,
        depth: bool = False,
        patch: AtLeastOne = 1,
        prediction: Prediction = "v_prediction",
        sigma_data: Positive | None = None,
        size: PlaneSide = 64,
        condition_dropout: Unit = 0.1,
        condition_blur: NotNegative = 0.0,
        condition_noise: NotNegative = 0.0,
        middle_norm: bool = True,
        min_snr: Positive | None = 5.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        if sigma_data is not None and sigma_data <= 0:
            raise ValueError(f"sigma_data must be positive, or null, not {sigma_data}")
        check_levels("size", size, patch, channels, attention, heads=not input_attention)
        self.depth, self.patch, self.sigma_data, self.condition_dropout, self.min_snr = (
            depth,
            patch,
            sigma_data,
            condition_dropout,
            min_snr,
        )
        self.condition_blur, self.condition_noise = condition_blur, condition_noise
        self.size, self.schedule = size, noise_schedule(prediction, size)
        self.tokens = ImageTokens(width=4 * channels[0]) if input_attention else None
        self.most_views = 1 if input_attention else None
        width = self.tokens.width if self.tokens else None
        self.unet = view_unet(channels, layers, attention, 5 if depth else 4, width, size, patch, middle_norm)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def condition(self, rendering: Rendering, context: Views, near: Tensor, far: Tensor) -> Condition:
        """Renderings over white (batch, views, ...) of scenes whose input views are ``context`` (batch, 1) -> batch *
        views conditions.

        near, far: (batch, views) in world units; they scale the distances.
        """
        maps = [to_signed(rendering.rgb), to_signed(rendering.alpha)]
        if self.depth:
            near, far = near[..., None, None, None], far[..., None, None, None]
            maps.append(to_signed((rendering.depth - near) / (far - near)))
        views = rendering.rgb.shape[1]
        tokens = None
        if self.tokens is not None:
            tokens = self.tokens(to_signed(context.only("the diffusion prior").on(1.0))).repeat_interleave(views, 0)
        joined = torch.cat(maps, 2).flatten(0, 1)
        return Condition(joined, tokens, joined.new_ones(len(joined)))

    def mean(self, condition: Condition) -> Tensor:
        """The rendering's colors."""
        return condition.maps[:, :3]

    def deviation(self, condition: Condition) -> Tensor:
        """``sigma_data`` about the rendering, 1 about nothing where there is none."""
        assert self.sigma_data is not None, "forward asks"
        given = condition.given[:, None, None, None]
        return self.sigma_data * given + (1 - given)


class ImageTokens(nn.Module):
    """An image (n, 3, H, W) in [-1, 1] -> (n, H/8 * W/8, width) features with their place, for cross-attention."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        widths = [3, width // 4, width // 2, width]
        self.layers = nn.Sequential(
            *(
                layer
                for i, o in itertools.pairwise(widths)
                for layer in (
                    nn.Conv2d(i, o, 3, stride=2, padding=1),
                    nn.SiLU(),
                    nn.Conv2d(o, o, 3, padding=1),
                    nn.SiLU(),
                )
            )
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        features = self.layers(image)
        place = sinusoids(features.shape[-2], features.shape[-1], self.width, features.device)
        return self.norm(features.flatten(2).mT + place)


def sinusoids(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Fixed position features (height * width, channels): sines and cosines of x and y at frequencies from 1 to the
    resolution's limit.
    """
    count = channels // 4
    frequencies = math.pi * torch.logspace(0, math.log2(max(height, width)), count, base=2, device=device)
    y, x = torch.meshgrid(
        (torch.arange(height, device=device) + 0.5) / height,
        (torch.arange(width, device=device) + 0.5) / width,
        indexing="ij",
    )
    angles = torch.cat([x.flatten()[:, None] * frequencies, y.flatten()[:, None] * frequencies], 1)
    return torch.cat([angles.sin(), angles.cos()], 1)
