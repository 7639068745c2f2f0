"""The data of a per-image stage on a user's image."""

from pathlib import Path

from vcgen.checkpoints.model_folder import read_config
from vcgen.data.datamodules.single import OneScene
from vcgen.data.images.photo import prepare
from vcgen.data.images.reading import image_in
from vcgen.data.input_camera import InputCamera
from vcgen.schema import Elevation, Fill, Positive
from vcgen.types import Example


class ImageData(OneScene):
    """One image without pose, framed as ``vcgen render`` frames it, and validated on itself.

    Args:
        image: PNG or JPEG file, cut out or on a plain background.
        model: Model folder whose camera is assumed.
        elevation: Of the camera in degrees, where it is known; null: the model's.
        distance: Of the camera from the object's center in world units, where it is known; null: the model's.
        fov: Horizontal field of view in degrees, where it is known; null: the model's.
        fill: Fraction of the frame that the object is scaled to fill, in [0.1, 1].
        as_is: Keep the framing, for images framed like the training data.
    """

    def __init__(
        self,
        image: Path,
        model: Path,
        elevation: Elevation | None = None,
        distance: Positive | None = None,
        fov: Positive | None = None,
        fill: Fill = 0.78,
        as_is: bool = False,
    ):
        super().__init__()
        self.image, self.model, self.fill, self.as_is = image_in(image), model, fill, as_is
        self.known = elevation, distance, fov
        self.train_folder = self.image

    def setup(self, stage: str) -> None:
        """Read the image. Raises UserError when it is missing, damaged or shows no object."""
        config = read_config(self.model)
        self.camera = InputCamera.of(config, *self.known)
        view = self.camera.context(prepare(self.image, tuple(config["image_size"]), self.fill, self.as_is))
        self.example = Example(view, view, (self.image.stem,))

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image as the model sees it."""
        return self.example.context.size

    def input_camera(self) -> InputCamera:
        """See :meth:`SceneDataModule.input_camera`: the model's, with what is known of the image."""
        return self.camera
