"""The data of a stage that has photos alone: one image of an object, or some of the same one, seen from an assumed
camera.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from vcgen.data.datamodules.single import AssumedCamera
from vcgen.data.drawing import PANEL, frusta_panels, side_by_side
from vcgen.data.images.photo import load_photo
from vcgen.data.images.reading import image_in
from vcgen.errors import UserError
from vcgen.folders import create_folder
from vcgen.io import write_bytes
from vcgen.schema import Fill, Positive, Side
from vcgen.types import Example
from vcgen.visualization.images import png_bytes

#: Ways of looking at the reference camera: world axes to the right and upwards.
SIDES = ((0, 1, "from above"), (1, 2, "from the side"))


class PhotoData(AssumedCamera):
    """Photos without pose, as square views with coverage; nothing is known of other sides. See :func:`load_photo`.

    Writes ``photo.png`` into the run's folder: the image, and what the camera sees of the plane through the origin.

    Args:
        image: PNG or JPEG file, or several of the same object.
        mask: Image of the photo's size, white where the object is; as many as there are photos.
        size: Side in pixels of the views made of them, at least 8.
        fill: Fraction of the frame that the object's longer side fills, in [0.1, 1].
        elevation: Of the camera above the horizon, in degrees, assumed for every photo. Its azimuth is 0, the object's
            front.
        fov: Horizontal field of view of the camera, in degrees.
        distance: Of the camera from the object's center, which is the origin of a z-up world, in world units.
    """

    def __init__(
        self,
        image: list[Path] | Path,
        mask: list[Path] | Path | None = None,
        size: Side = 512,
        fill: Fill = 0.78,
        elevation: float = 15.0,
        fov: float = 40.0,
        distance: Positive = 1.8,
    ):
        super().__init__(size, elevation, fov, distance)
        self.images, masks = (
            [image_in(path) for path in (names if isinstance(names, list) else [names])]
            for names in (image, mask or [])
        )
        self.masks = masks if mask is not None else [None] * len(self.images)
        if not self.images or len(self.masks) != len(self.images):
            counts = f"data.image names {len(self.images)} photos, data.mask {len(self.masks)}"
            raise UserError(f"{counts}: give one photo, or one mask for each")
        self.fill, self.train_folder = fill, self.images[0]

    def setup(self, stage: str) -> None:
        """Read the photos: ``example`` is one scene of (1, photos) views. Raises UserError where :func:`load_photo`
        does.
        """
        photos = [
            load_photo(image, mask, self.size, self.fill) for image, mask in zip(self.images, self.masks, strict=True)
        ]
        views = self.input_camera().context(*photos)
        self.example = Example(views, views, (self.images[0].stem,))
        if (
            stage == "fit"
            and self.trainer is not None
            and self.trainer.is_global_zero
            and not self.trainer.fast_dev_run
        ):
            folder = Path(self.trainer.default_root_dir)
            create_folder(folder)
            write_bytes(folder / "photo.png", self.preview())

    @property
    def object_radius(self) -> float:
        """Half of the object's longer side as it appears on the plane through the origin, world units."""
        return self.fill * self.distance * 0.5 / self.focal

    def preview(self) -> bytes:
        """A PNG: the first photo over light gray; the camera from above and from the side, down to the plane through
        the origin, and the object's size as a circle."""
        view = self.example.context[0, 0]
        pixels = (view.on(0.9).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        photo = Image.fromarray(pixels).resize((PANEL, PANEL), Image.Resampling.BILINEAR)
        c2w, K = view.cameras.c2w[None].double().numpy(), view.cameras.K[None].double().numpy()
        return png_bytes(
            side_by_side([photo, *frusta_panels("reference camera", c2w, K, self.distance, self.object_radius, SIDES)])
        )
