"""Whether the data suits the parts of a system, told before anything is trained."""

from typing import TYPE_CHECKING

from torch import nn

from vcgen.data.input_camera import SAME_DISTANCE
from vcgen.diffusion.base import ImagePrior
from vcgen.encoders.base import Encoder
from vcgen.errors import UserError

if TYPE_CHECKING:
    from vcgen.data.datamodules.base import SceneDataModule


def check_views(data: "SceneDataModule", **parts: nn.Module | None) -> None:
    """Raise UserError where the data gives more input views than one of the parts looks at."""
    for name, part in parts.items():
        most = getattr(part, "most_views", None)
        if most is not None and data.most_contexts > most:
            raise UserError(
                f"data.contexts or data.context gives {data.most_contexts} input views, model.{name}"
                f" ({type(part).__name__}) looks at {most}: lower them, or choose another {name}"
            )


def check_size(data: "SceneDataModule", prior: ImagePrior) -> None:
    """Raise UserError where images are not of the prior's size."""
    side, (height, width) = prior.size, data.image_size
    if (height, width) != (side, side):
        found = f"the images have {height} x {width} pixels, model.prior.size is {side}"
        raise UserError(f"{found}: set it, or pack the data with --size {side}")


def odd_distance(data: "SceneDataModule", encoder: Encoder) -> str:
    """What is odd where the encoder takes objects to be at another distance than the data has them, in words, else
    "". A field that lies beside the object learns, badly, and no loss says why."""
    if (assumed := encoder.object_distance) is None:
        return ""
    found = data.input_camera().distance
    if abs(found / assumed - 1) <= SAME_DISTANCE:
        return ""
    place = f"the cameras of the data are {found:.3g} from the origin, where objects should be"
    return f"model.encoder.distance is {assumed:.3g}, and {place}: set it to that, and radius to the objects' size"
