"""CLIP guidance as in Dream Fields: images over random backgrounds must fit their text, and opacity has a price."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from vcgen.diffusion.base import Prior
from vcgen.diffusion.clip import Clip
from vcgen.errors import UserError
from vcgen.guidance.base import ConditionedPrior, Guidance, Round
from vcgen.losses.course import Course, check_course, value_at
from vcgen.schema import AtLeastOne, NotNegative, Unit

Kind = Literal["white", "flat", "noise", "checkerboard", "smooth"]
#: Cells per side of a smooth background, most of a checkerboard.
SMOOTH, CHECKS = 4, 8


class ClipGuidance(Guidance):
    """CLIP's scores of composed views (Dream Fields, arXiv 2112.01455, eq. 4).

    The loss is -mean <clip(crop), clip(text)> - weight min(tau, mean T): the mean over random crops, each over a
    background of its own, which matter cannot paint by being thin, and the rays' mean transmittance T, worth something
    up to tau. No other prior is needed. It sees color and opacity, so it fits scenes of colors alone.

    Args:
        clip: Folder of a CLIP model of transformers (or hub name, fetched only with ``download``).
        crops: Crops of each view.
        crop: Side of a crop, as a fraction of the view's; at least a pixel.
        backgrounds: Kinds that crops take in turn: "white", a "flat" color, "noise", "checkerboard", "smooth" textures.
        transmittance: tau, the mean transmittance that is aimed at; a number, or points (fraction of the run, tau),
            linear in between.
        weight: Of the transmittance, relative to the score.
        download: Fetch the CLIP model where it is not on this computer.
    """

    rounds, updates = 1, 1
    shown = "views"

    def __init__(
        self,
        clip: str,
        crops: AtLeastOne = 8,
        crop: Unit = 0.9,
        backgrounds: Sequence[Kind] = ("checkerboard", "noise", "smooth"),
        transmittance: Course = 0.8,
        weight: NotNegative = 0.5,
        download: bool = False,
    ):
        check_course(transmittance, "transmittance")
        if not crop or not backgrounds:
            raise ValueError(f"need crop > 0 and a kind of background; got {crop} and {list(backgrounds)}")
        self.clip, self.crops, self.crop, self.backgrounds = clip, crops, crop, tuple(backgrounds)
        self.transmittance, self.weight, self.download = transmittance, weight, download
        self.scorer: Any = None  # a Clip, or what embeds as it does

    def attach(self, prior: Prior[Any] | None) -> None:
        """Load the CLIP model; the prior is not looked at. Raises UserError where there is none."""
        self.scorer = self.scorer or Clip.from_folder(self.clip, self.download)

    def step(
        self, number: int, last: Round, renderings: Tensor, prior: ConditionedPrior, generator: torch.Generator
    ) -> Round:
        """There are no targets: raises UserError, as in systems that show no opacity."""
        raise UserError("ClipGuidance needs the opacity of its views: use it with TextTo3D or RealFusion, or take SDS")

    def view_losses(
        self, color: Tensor, alpha: Tensor, texts: Sequence[str], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See :meth:`Guidance.view_losses`: "clip", mean over crops, and "transmittance", mean over views."""
        scorer = self.scorer
        if isinstance(scorer, Clip) and scorer.mean.device != color.device:
            scorer.to(color.device)
        color, alpha = (x.repeat_interleave(self.crops, 0) for x in (color, alpha))
        behind = draw_backgrounds(self.backgrounds, color, generator)
        images = draw_crops(color + (1 - alpha) * behind, max(1, round(self.crop * color.shape[-1])), generator)
        with torch.no_grad():
            wanted = scorer.embed_texts(list(texts)).repeat_interleave(self.crops, 0)
        score = (scorer.embed_images(images.movedim(1, -1)) * wanted).sum(-1).mean()
        clear = (1 - alpha[:: self.crops]).mean((1, 2, 3))
        worth = clear.clamp(max=value_at(self.transmittance, progress)).mean()
        return {"clip": -score, "transmittance": -self.weight * worth}

    def settings(self) -> dict[str, Any]:
        """See :meth:`Guidance.settings`."""
        names = ("clip", "crops", "crop", "backgrounds", "transmittance", "weight")
        return {"class": type(self).__name__, **{name: getattr(self, name) for name in names}}

    def with_rounds(self, rounds: int) -> Self:
        """Itself: it has no rounds."""
        return self


def draw_backgrounds(kinds: Sequence[Kind], like: Tensor, generator: torch.Generator) -> Tensor:
    """One for each of ``like`` (n, 3, s, s), of its shape, in [0, 1]; the kinds in turn."""
    side = like.shape[-1]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, device=like.device, generator=generator)

    def draw(kind: Kind) -> Tensor:
        if kind == "white":
            return like.new_ones(3, side, side)
        if kind == "flat":
            return uniform(3, 1, 1).expand(3, side, side)
        if kind == "noise":
            return uniform(3, side, side)
        if kind == "smooth":
            return F.interpolate(uniform(1, 3, SMOOTH, SMOOTH), (side, side), mode="bilinear")[0]
        cells = 2 + (CHECKS - 2) * uniform(1)
        number = (torch.arange(side, device=like.device) * cells / side + uniform(1)).floor()
        odd = (number[:, None] + number) % 2
        return odd * uniform(3, 1, 1) + (1 - odd) * uniform(3, 1, 1)

    return torch.stack([draw(kinds[number % len(kinds)]) for number in range(len(like))])


def draw_crops(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A square of ``side`` pixels out of each image (n, 3, s, s), anywhere: (n, 3, side, side)."""
    count, room = len(images), images.shape[-1] - side
    start = torch.randint(0, room + 1, (2, count, 1), device=images.device, generator=generator)
    rows, columns = start + torch.arange(side, device=images.device)
    number = torch.arange(count, device=images.device)[:, None, None]
    return images.movedim(1, -1)[number, rows[:, :, None], columns[:, None]].movedim(-1, 1)
