"""Random changes of a photo with coverage, from which a personalized prior learns the object and not the image."""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

#: Side in pixels of the images for which blur is given.
BLUR_SIZE = 512


@dataclass(frozen=True)
class PhotoAugmentation:
    """RealFusion's augmentations of a photo (arXiv 2302.10663, values of its code), applied to the object alone.

    Coverage is kept until the object is put on a background of one color at the end. Each probability is drawn
    independently.

    Args:
        rotation: Probability of a rotation, in [0, 1].
        degrees: Largest angle of that rotation, either way, in degrees.
        crop: Probability of a zoom and a shift, in [0, 1].
        zoom: Lowest and highest factor of the zoom; above 1 the object grows, and is cut by the frame where it leaves
            it.
        shift: Largest shift either way, as a fraction of the frame.
        jitter: Probability of a change of brightness, contrast, saturation and hue, in [0, 1].
        strength: Largest such change, as a fraction.
        grayscale: Probability of a grayscale image, in [0, 1].
        blur: Probability of a Gaussian blur, in [0, 1].
        sigma: Lowest and highest standard deviation of the blur, in pixels of an image of 512.
        mirror: Probability of a left-right flip, in [0, 1]; RealFusion's 0.5 would teach both sides of what is not
            symmetric.
        background: "white", or a "random" color for each image.
    """

    rotation: float = 0.75
    degrees: float = 10.0
    crop: float = 1.0
    zoom: tuple[float, float] = (0.85, 1.15)
    shift: float = 0.05
    jitter: float = 0.75
    strength: float = 0.04
    grayscale: float = 0.1
    blur: float = 0.1
    sigma: tuple[float, float] = (0.1, 2.0)
    mirror: float = 0.0
    background: Literal["white", "random"] = "white"

    def __post_init__(self) -> None:
        for name in ("rotation", "crop", "jitter", "grayscale", "blur", "mirror"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augmentation.{name} is a probability, in [0, 1]; got {getattr(self, name)}")
        for name in ("zoom", "sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"augmentation.{name} must satisfy 0 < lowest <= highest; got {low} and {high}")
        if not 0 <= self.strength <= 0.5 or not 0 <= self.shift < 1 or not 0 <= self.degrees <= 180:
            found = {f.name: getattr(self, f.name) for f in fields(self) if f.name in ("strength", "shift", "degrees")}
            raise ValueError(
                f"augmentation: strength must lie in [0, 0.5], shift in [0, 1), degrees in [0, 180]; got {found}"
            )

    def __call__(self, color: Tensor, alpha: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Straight color (3, H, W) and coverage (1, H, W), both in [0, 1] -> an image (3, size, size) in [0, 1]. Each
        call draws equally many numbers, from ``generator`` alone. Mixed precision does not change it."""
        # torchvision places pixels by a product of matrices; where that is bfloat16 it rounds the colors to 0 and 1
        with torch.autocast(color.device.type, enabled=False):
            return self._changed(color, alpha, size, generator)

    def _changed(self, color: Tensor, alpha: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """See :meth:`__call__`."""
        from torchvision.transforms.v2 import functional as F

        coins = torch.rand(6, generator=generator, device=generator.device).tolist()
        x, y, zoom, angle, sigma, *shades = torch.rand(9, generator=generator, device=generator.device).tolist()
        background = (
            torch.rand(3, 1, 1, generator=generator, device=generator.device) if self.background == "random" else 1.0
        )
        if coins[0] < self.jitter:
            color = self._jittered(color, shades)
        if coins[1] < self.grayscale:
            color = F.rgb_to_grayscale(color, num_output_channels=3)
        # Premultiplied from here on: what is transparent has no color that could bleed.
        layers = torch.cat([color * alpha, alpha])
        turned, cropped = coins[2] < self.rotation, coins[3] < self.crop
        shifts = [
            (2 * fraction - 1) * self.shift * side * cropped
            for fraction, side in ((x, layers.shape[-1]), (y, layers.shape[-2]))
        ]
        layers = F.affine(
            layers,
            angle=(2 * angle - 1) * self.degrees * turned,
            translate=shifts,
            scale=between(zoom, self.zoom) if cropped else 1.0,
            shear=[0.0, 0.0],
            interpolation=F.InterpolationMode.BILINEAR,
        )
        layers = F.resize(layers, [size, size], antialias=True)
        if coins[4] < self.blur:
            width = between(sigma, self.sigma) * size / BLUR_SIZE
            layers = F.gaussian_blur(layers, 2 * max(1, round(3 * width)) + 1, width)
        if coins[5] < self.mirror:
            layers = layers.flip(-1)
        return (layers[:3] + (1 - layers[3:]) * background).clamp(0, 1)

    def _jittered(self, color: Tensor, shades: list[float]) -> Tensor:
        """shades: four fractions in [0, 1], of brightness, contrast, saturation, hue."""
        from torchvision.transforms.v2 import functional as F

        brightness, contrast, saturation, hue = ((2 * shade - 1) * self.strength for shade in shades)
        color = F.adjust_contrast(F.adjust_brightness(color, 1 + brightness), 1 + contrast)
        return F.adjust_hue(F.adjust_saturation(color, 1 + saturation), hue)


#: No change but the size.
PLAIN = PhotoAugmentation(rotation=0, crop=0, jitter=0, grayscale=0, blur=0)


def between(fraction: float, limits: tuple[float, float]) -> float:
    """The value at a fraction of the way from the lower to the upper limit."""
    return limits[0] + fraction * (limits[1] - limits[0])
