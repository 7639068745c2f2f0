"""The data of a stage that has a text alone: the camera that it assumes."""

import torch

from vcgen.cameras import focal_from_fov
from vcgen.data.datamodules.single import OneScene
from vcgen.data.input_camera import InputCamera
from vcgen.errors import UserError
from vcgen.schema import Positive, Side
from vcgen.types import Example, Views


class PromptData(OneScene):
    """A text that is to become a scene, and the camera from which its front is seen; an empty view stands for it.

    Args:
        prompt: What the object is, as "a red car".
        size: Side in pixels of the images that are drawn of it, at least 8.
        elevation: Of the reference camera above the horizon, in degrees. Its azimuth is 0, the object's front.
        fov: Horizontal field of view of the reference camera, in degrees.
        distance: Of the reference camera from the origin of a z-up world, in world units; random views have about its
            framing.
    """

    def __init__(
        self, prompt: str, size: Side = 64, elevation: float = 15.0, fov: float = 40.0, distance: Positive = 1.8
    ):
        super().__init__()
        if not prompt.strip():
            raise UserError("data.prompt is empty: say what the object is, as --data.prompt 'a red car'")
        if not -90 < elevation < 90:
            raise UserError(f"data.elevation must lie between -90 and 90 degrees, not {elevation:g}")
        if not (1 <= fov <= 150 and size >= 8):
            raise UserError(
                f"data.fov must lie between 1 and 150 degrees, data.size be at least 8; not {fov:g}, {size}"
            )
        self.prompt, self.size, self.elevation, self.distance = " ".join(prompt.split()), size, elevation, distance
        self.focal = focal_from_fov(fov)
        self.train_folder = self.prompt

    def setup(self, stage: str) -> None:
        """``example`` is one scene of (1, 1) views, without anything in them."""
        camera = self.input_camera().cameras([0.0], self.elevation)
        blank = torch.ones(1, 3, self.size, self.size)
        views = Views(blank, camera, torch.zeros_like(blank[:, :1]))[None]
        self.example = Example(views, views, (self.prompt,))

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.size, self.size

    def input_camera(self) -> InputCamera:
        """The reference camera. Near and far hold the sphere about the origin that reaches the corners of the frame."""
        return InputCamera.framing(self.focal, self.distance, self.elevation)
