"""Which pixels of two images are compared: a protocol's rules for alpha, mask and crop."""

from dataclasses import replace

from torch import Tensor

from vcgen.errors import UserError
from vcgen.evaluation.protocol import Protocol
from vcgen.types import Views


def by_alpha_rule(views: Views, protocol: Protocol) -> Views:
    """Views with their coverage as the protocol wants it: as stored, above one half or not, or none."""
    if views.alpha is None or protocol.alpha == "blend":
        return views
    return replace(views, alpha=None if protocol.alpha == "ignore" else (views.alpha > 0.5).to(views.alpha))


def compared(rgb: Tensor, truth: Views, protocol: Protocol, where: str) -> tuple[Tensor, Tensor]:
    """What of a rendering (n, 3, height, width) and of true views (n,) is compared, both over the background.

    Raises UserError, which begins with ``where``, where an object is to be cut out of images without alpha."""
    true = truth.on(protocol.background)
    if protocol.mask == "object":
        if truth.alpha is None:
            raise UserError(
                f"{where}: its images have no alpha, by which protocol {protocol.name} tells the object; pack images"
                " with alpha"
            )
        rgb = rgb.where(truth.alpha > 0, protocol.background)
    top, left, height, width = protocol.crop or (0, 0, *protocol.size)
    part = (..., slice(top, top + height), slice(left, left + width))
    return rgb[part], true[part]


def rules(protocol: Protocol) -> dict[str, str]:
    """What results say of the rules that are not the usual ones."""
    texts = {
        "alpha": {
            "binary": "coverage above one half counts as 1, else as 0, in input and true images",
            "ignore": "colors as they are stored, without regard to alpha, in input and true images",
        }.get(protocol.alpha),
        "mask": "where the true image has no coverage, the rendering, too, is background"
        if protocol.mask == "object"
        else None,
        "crop": "of each image, {2} x {3} pixels from row {0}, column {1} on are compared".format(*protocol.crop)
        if protocol.crop
        else None,
    }
    return {name: text for name, text in texts.items() if text}
