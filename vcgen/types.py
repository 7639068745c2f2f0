"""The data that flows through vcgen: Views in, a Scene between, a Rendering out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vcgen.cameras import Cameras
from vcgen.errors import UserError
from vcgen.rays import Rays


@dataclass(frozen=True)
class Views:
    """Images with the cameras that took them; ``...`` are any equal batch dimensions, usually (batch, views).

    images: (..., 3, height, width) float in [0, 1]; *straight* (not premultiplied) color where ``alpha`` is given,
        final color otherwise.
    cameras: batch shape (...).
    alpha: (..., 1, height, width) coverage in [0, 1], or None for images that are opaque throughout.
    """

    images: Float[Tensor, "*batch 3 height width"]
    cameras: Cameras
    alpha: Float[Tensor, "*batch 1 height width"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def coverage(self) -> Float[Tensor, "*batch 1 height width"]:
        """``alpha``, 1 where there is none."""
        return torch.ones_like(self.images[..., :1, :, :]) if self.alpha is None else self.alpha

    def on(self, background: Tensor | float) -> Float[Tensor, "*batch 3 height width"]:
        """Composite over a color: a number, or a tensor that broadcasts to (..., 3, height, width). Opaque views stay
        as they are.
        """
        if self.alpha is None:
            return self.images
        return self.images * self.alpha + (1 - self.alpha) * background

    def only(self, who: str) -> "Views":
        """(batch, 1) views -> (batch,). Raises UserError where there are more, of which ``who`` would pass over all but
        one.
        """
        if (count := self.cameras.shape[1]) != 1:
            raise UserError(
                f"{who} looks at one input view, here are {count}: give one, or use TriplaneEncoder or"
                " PixelNerf, which look at several"
            )
        return self[:, 0]

    def reshape(self, *shape: int) -> "Views":
        """The same views in another batch shape."""
        alpha = None if self.alpha is None else self.alpha.reshape(*shape, *self.alpha.shape[-3:])
        return Views(self.images.reshape(*shape, *self.images.shape[-3:]), self.cameras.reshape(*shape), alpha)

    def __getitem__(self, index: Any) -> "Views":
        return Views(self.images[index], self.cameras[index], None if self.alpha is None else self.alpha[index])

    def to(self, *args: Any, **kwargs: Any) -> "Views":
        """Move every tensor, as ``Tensor.to`` does."""
        alpha = None if self.alpha is None else self.alpha.to(*args, **kwargs)
        return Views(self.images.to(*args, **kwargs), self.cameras.to(*args, **kwargs), alpha)


class Position(NamedTuple):
    """A place in the training data: all ranks together have taken ``scenes`` scenes of epoch ``epoch`` (see
    :mod:`vcgen.data.datamodules.sampler`).
    """

    epoch: int = 0
    scenes: int = 0


@dataclass(frozen=True)
class Example:
    """A batch of scenes: what the model sees (``context``, (batch, n) views) and must predict (``target``, (batch, m)
    views).

    keys: the scene names, one per batch entry. cursor: where the training data goes on after this batch.
    weight: 0 marks a repetition that only keeps the ranks in step: it counts in no mean.
    skipped: the scenes that could not be read and were replaced by others, by key, with the reason.
    """

    context: Views
    target: Views
    keys: tuple[str, ...] = ()
    cursor: Position = Position()
    weight: float = 1.0
    skipped: Mapping[str, str] = field(default_factory=dict)

    def to(self, *args: Any, **kwargs: Any) -> "Example":
        """Move every tensor, as ``Tensor.to`` does."""
        return replace(self, context=self.context.to(*args, **kwargs), target=self.target.to(*args, **kwargs))


class Rendering(NamedTuple):
    """What a camera sees. rgb: (..., 3, height, width) in [0, 1], over the background; alpha: (..., 1, height, width)
    opacity in [0, 1]; depth: (..., 1, height, width) expected Euclidean distance along the ray in world units, ``far``
    where nothing is hit."""

    rgb: Float[Tensor, "*batch channels height width"]
    alpha: Float[Tensor, "*batch 1 height width"]
    depth: Float[Tensor, "*batch 1 height width"]


class RayRendering(NamedTuple):
    """What rays see.

    rgb: (batch, rays, channels), premultiplied color, in [0, 1], or features. alpha: (batch, rays) opacity. depth:
    (batch, rays) expected distance in world units, premultiplied by opacity, too. coarse: the first pass's rendering
    when it was differentiated, for supervision; None otherwise. penalties: further losses of the scene by name, means
    over rays, or None.
    """

    rgb: Float[Tensor, "*batch rays channels"]
    alpha: Float[Tensor, "*batch rays"]
    depth: Float[Tensor, "*batch rays"]
    coarse: "RayRendering | None" = None
    penalties: Mapping[str, Tensor] | None = None

    def over(self, background: Tensor | float) -> Float[Tensor, "*batch rays channels"]:
        """(batch, rays, channels) composited over a color that broadcasts to that shape."""
        return self.rgb + (1 - self.alpha[..., None]) * background


class Bounded(Protocol):
    """A batch of scenes inside spheres; a ray that misses the sphere sees the background. Attributes are only read."""

    @property
    def center(self) -> Float[Tensor, "batch 3"]:
        """(batch, 3) in the world, of the sphere."""
        ...

    @property
    def radius(self) -> Float[Tensor, " batch"]:
        """(batch,) of the sphere, in world units; may be infinite."""
        ...


@runtime_checkable
class Field(Bounded, Protocol):
    """Where radiance lives: density and color, or features, at world points; the density outside the sphere is zero."""

    @property
    def proposal(self) -> "Field | None":
        """The field that the coarse pass of the renderer samples to place the fine samples; None: this field itself."""
        ...

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n channels"]]:
        """Density (batch, n) >= 0 per world unit, and color (batch, n, 3) in [0, 1] or features (batch, n, channels).

        points, directions (unit): (batch, n, 3) in the world.
        """
        ...

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """(batch, n, 3) world points -> density (batch, n); cheaper than the full call where the field allows it."""
        ...


@runtime_checkable
class RayScene(Bounded, Protocol):
    """A color per ray without density, as of light fields, of image-based renderers, of networks that march rays."""

    @property
    def queries(self) -> int:
        """Network evaluations per ray, which bound how many rays are shot at once."""
        ...

    def shoot(self, rays: Rays, generator: torch.Generator | None = None) -> RayRendering:
        """What rays (batch, rays), clipped to the sphere, see; with a generator sampling may be jittered (training).

        ``near`` equals ``far`` where a ray misses the sphere; what is answered there does not count.
        """
        ...


#: A background: a gray level, or what broadcasts to (..., channels, height, width).
Behind = float | Tensor
#: What renderers take and encoders give.
Scene = Field | RayScene


class FieldWeights(nn.Module):
    """What of a field can be finetuned. scene: what its scenes have of their own; decoder: what all scenes of the model
    share.
    """

    def __init__(self, scene: nn.Module, decoder: nn.Module):
        super().__init__()
        self.scene, self.decoder = scene, decoder


@runtime_checkable
class Finetunable(Field, Protocol):
    """A field that distillation can write into."""

    def weights(self) -> FieldWeights:
        """A copy of what can be finetuned, without gradient history."""
        ...

    def with_weights(self, weights: FieldWeights) -> "Finetunable":
        """The same scenes with other weights, to which gradients flow."""
        ...

    def __getitem__(self, scenes: slice) -> "Finetunable":
        """Some scenes of the batch."""
        ...


class FieldModel(nn.Module, ABC):
    """What a model folder holds: makes scenes of views, and renders them. Those who open one call nothing else of it.

    Systems with a scene are, see :class:`vcgen.systems.base.FieldSystem`.
    """

    #: The config.json of the model folder that it was loaded from.
    config: dict[str, Any]
    #: Input views of a scene that ``field`` can take; None: any number.
    most_views: int | None = None
    #: The diffusion prior that ``sample`` draws from; None: there is none.
    prior: Any

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """That of its weights."""

    @abstractmethod
    def field(self, context: Views) -> Scene:
        """The scenes behind ``context``: (batch, n) views -> ``batch`` scenes."""

    @abstractmethod
    def render(self, field: Scene, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """Images of scenes: cameras (batch, views), size (height, width) in pixels."""

    def behind(self, truth: Views, background: float = 1.0) -> Behind:
        """The ``background`` of a rendering that is compared with ``truth``; of opaque images it may be one that was
        learned, (3, 1, 1).
        """
        return background

    def sample(
        self,
        context: Views,
        cameras: Cameras,
        generator: torch.Generator,
        size: tuple[int, int] | None = None,
        steps: int = 10,
        guidance_scale: float | None = None,
        strength: float = 1.0,
        sampler: Literal["ddim", "dpm++"] = "ddim",
    ) -> Tensor:
        """Images (batch, views, 3, height, width) in [0, 1], drawn from the prior for ``cameras`` (batch, views); see
        :meth:`vcgen.systems.nerfdiff.NerfDiff.sample`. Raises UserError without a prior."""
        raise UserError(
            "this model has no diffusion prior to sample from: use reconstruct and render, or a model trained with"
            " model.prior"
        )

    def sample_along(
        self,
        context: Views,
        cameras: Cameras,
        generator: torch.Generator,
        steps: int = 10,
        guidance_scale: float | None = None,
        strength: float = 1.0,
        sampler: Literal["ddim", "dpm++"] = "ddim",
    ) -> Tensor:
        """Images (batch, views, 3, height, width) in [0, 1], drawn one after another along ``cameras`` (batch, views),
        each given earlier ones; see :meth:`vcgen.systems.genvs.GeNVS.sample_along`. Raises UserError where images are
        drawn each by itself, as here."""
        raise UserError("this model draws images each by itself: sample without `along`, or from a GeNVS")
