"""Code -> light field (LFN, arXiv 2106.02634)."""

from torch import Tensor

from vcgen.encoders.hypernetwork import CodeDecoder, Hypernetwork, Place
from vcgen.fields.light_field import LightField
from vcgen.schema import AtLeastOne


class LightFieldDecoder(CodeDecoder):
    """Light Field Networks (LFN, arXiv 2106.02634): a code -> :class:`LightField`.

    Args:
        code: Numbers that describe an object (published: 256).
        hidden: Units of the hypernetwork's layers, of which there are two (published: 256).
        shared: One such pair of layers for all weights of the light field (ours); false: a pair for each matrix and
            each bias, as published.
        width: Units of the light field's layers (published: 256).
        layers: Its square layers, beside the first and the last (published: 6).
    """

    def __init__(
        self,
        code: AtLeastOne = 256,
        hidden: AtLeastOne = 256,
        shared: bool = False,
        width: AtLeastOne = 256,
        layers: AtLeastOne = 6,
    ):
        super().__init__()
        self.code = code
        self.hypernetwork = Hypernetwork(code, hidden, [6, *[width] * (layers + 1), 4], None if shared else 1)

    def forward(self, code: Tensor, place: Place) -> LightField:
        """See :class:`CodeDecoder`."""
        return LightField(*place, code, self.hypernetwork(code))
