"""The data of a stage that has a text alone: the camera that it assumes."""

import torch

from vcgen.data.datamodules.single import AssumedCamera
from vcgen.errors import UserError
from vcgen.schema import Positive, Side
from vcgen.types import Example, Views


class PromptData(AssumedCamera):
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
        super().__init__(size, elevation, fov, distance)
        if not prompt.strip():
            raise UserError("data.prompt is empty: say what the object is, as --data.prompt 'a red car'")
        if size < 8:
            raise UserError(f"data.size must be at least 8, not {size}")
        self.prompt = self.train_folder = " ".join(prompt.split())

    def setup(self, stage: str) -> None:
        """``example`` is one scene of (1, 1) views, without anything in them."""
        camera = self.input_camera().cameras([0.0], self.elevation)
        blank = torch.ones(1, 3, self.size, self.size)
        views = Views(blank, camera, torch.zeros_like(blank[:, :1]))[None]
        self.example = Example(views, views, (self.prompt,))
