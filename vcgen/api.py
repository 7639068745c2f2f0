"""A trained model in Python: an image, or several with their cameras, in; a field, renderings and samples out."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.checkpoints import model_folder
from vcgen.data.familiar import Familiar
from vcgen.data.images.framing import Source
from vcgen.data.images.photo import prepare
from vcgen.data.input_camera import InputCamera
from vcgen.data.posed_images import posed_views
from vcgen.types import FieldModel, Rendering, Scene, Views

if TYPE_CHECKING:
    from vcgen.diffusion.solvers import Sampler


def open_pipeline(
    folder: Path | str,
    device: torch.device | str = "cpu",
    elevation: float | None = None,
    distance: float | None = None,
    fov: float | None = None,
    plugins: Sequence[str] = (),
) -> "Pipeline":
    """The model of a folder on ``device``; elevation, distance and fov of images as in :meth:`InputCamera.of`, which
    with ``folder.load`` is where the UserErrors come from. plugins: as there."""
    system = model_folder.load(folder, device, plugins)
    return Pipeline(system, InputCamera.of(system.config, elevation, distance, fov))


class Pipeline:
    """A system and the camera its images are taken by, on an orbit around the object, z up, with the input camera at
    azimuth 0.

    system: takes and gives whole batches with cameras of any kind; its ``config`` is the parsed config.json.
    input_camera: the camera that the model expects. image_size: (height, width) of the model's images. background: the
    gray level behind its objects. Images are given as a file's path, a PIL image, or an array (height, width, 3 or 4),
    uint8 or floats in [0, 1], of any size; they are framed as ``vcgen render`` does it. fill: fraction of the frame
    that the object is scaled to fill. as_is: keep the framing, for images framed like the training data. Several images
    of one object, with their cameras, are ``Views`` (1, n), as :meth:`views` reads them; they go wherever an image
    goes. Everything stays on the model's device. Warns of an image that is unlike the training data, where the folder
    knows that. Raises UserError for images without an object, and for more views than the model looks at."""

    def __init__(self, system: FieldModel, input_camera: InputCamera):
        self.system, self.input_camera = system, input_camera
        height, width = system.config["image_size"]
        self.image_size, self.background = (int(height), int(width)), float(system.config["background"])
        self._familiar = Familiar.of(system.config)

    def views(self, images: Sequence[Path | str], cameras: Path | str) -> Views:
        """Images of one object that keep their framing, and their cameras: files (1, n), and a JSON file with a camera
        for the name of each, in the world of the model's training data; see :func:`posed_views`."""
        paths = [Path(image) for image in images]
        views = posed_views(paths, Path(cameras), self.image_size, self.input_camera)
        for i, path in enumerate(paths):
            self._warn_of_far(str(path), views[:, i : i + 1])
        return views.to(self.system.device)

    def context(self, image: Source | Views, fill: float = 0.78, as_is: bool = False) -> Views:
        """What the model is shown of an image, batch shape (1, 1): its object cut out and framed, and the camera that
        took it. Views (1, n) stay as they are.
        """
        if isinstance(image, Views):
            return image.to(self.system.device)
        context = self.input_camera.context(prepare(image, self.image_size, fill, as_is))
        self._warn_of_far("the image", context)
        return context.to(self.system.device)

    def _warn_of_far(self, name: str, view: Views) -> None:
        if self._familiar and (text := self._familiar.warning(view)):
            warnings.warn(f"{name} is {text}", stacklevel=3)

    def cameras(self, azimuths: Sequence[float], elevation: float | None = None) -> Cameras:
        """Cameras (n,) around the object, degrees: azimuth 0 is the image's side, 90 a quarter turn counter-clockwise
        seen from above; elevation between -90 and 90, the image's unless given."""
        elevation = self.input_camera.elevation if elevation is None else elevation
        return self.input_camera.cameras(azimuths, elevation, self.image_size).to(self.system.device)

    @torch.no_grad()
    def reconstruct(self, image: Source | Views, fill: float = 0.78, as_is: bool = False) -> Scene:
        """The field (batch of 1) behind an image, or behind several views."""
        return self.system.field(self.context(image, fill, as_is))

    def distill(
        self,
        image: Source | Views,
        steps: int | None = None,
        config: Path | str = "default",
        seed: int = 0,
        fill: float = 0.78,
        as_is: bool = False,
    ) -> Scene:
        """The field (batch of 1) behind an image, or one view, finetuned by the diffusion prior; under a minute on one
        CPU core at 64 px.

        steps: rounds of the guidance, each of which denoises the virtual views once; the configuration's own unless
        given. config: a YAML file such as configs/distill.yaml, or "default", its settings. seed: of the noise. Raises
        UserError for a model without a prior."""
        from vcgen.systems.distillation.distilled import distilled

        return distilled(self.system, str(config), seed, rounds=steps).field(self.context(image, fill, as_is))

    @torch.no_grad()
    def render(self, field: Scene, cameras: Cameras, size: int | tuple[int, int] | None = None) -> Rendering:
        """Images of a field (batch of 1) over the model's background: cameras (n,) -> a Rendering of shapes (n,
        channels, height, width).

        size: (height, width), or the width alone, in pixels; the model's own unless given.
        """
        height, width = self.image_size
        if isinstance(size, int):
            size = (round(size * height / width), size)
        cameras = cameras.to(self.system.device)
        # One at a time: memory does not grow with their number.
        views = [
            self.system.render(
                field, cameras[index : index + 1].reshape(1, 1), size or (height, width), background=self.background
            )
            for index in range(len(cameras.near))
        ]
        return Rendering(*(torch.cat(parts, 1)[0] for parts in zip(*views, strict=True)))

    @torch.no_grad()
    def sample(
        self,
        image: Source | Views,
        cameras: Cameras,
        steps: int = 10,
        seed: int = 0,
        guidance_scale: float | None = None,
        strength: float = 1.0,
        fill: float = 0.78,
        as_is: bool = False,
        sampler: "Sampler" = "ddim",
        along: bool = False,
    ) -> Tensor:
        """Images (n, 3, height, width) in [0, 1] at cameras (n,), drawn together from the diffusion prior: sharp, each
        by itself. along: drawn one after another instead, each given earlier ones, so that neighbors agree (a GeNVS).

        steps: of the sampler. seed: of the noise; the same gives the same images. guidance_scale: of the
        classifier-free kind, 1 for none; None: 1.5, or 1 where the prior was trained without condition dropout.
        strength: below 1, sampling starts from the field's rendering, noised to this fraction of the schedule: closer
        to it, less sharp.
        sampler: "ddim", or "dpm++" for DPM-Solver++ (arXiv 2211.01095), both of diffusers. Raises UserError for a model
        without a prior, for an unknown sampler, and with ``along`` for a model that is no GeNVS."""
        noise = torch.Generator(self.system.device).manual_seed(seed)
        views = cameras.to(self.system.device).reshape(1, len(cameras.near))
        context = self.context(image, fill, as_is)
        draw = self.system.sample_along if along else self.system.sample
        return draw(
            context, views, noise, steps=steps, guidance_scale=guidance_scale, strength=strength, sampler=sampler
        )[0]
