"""Code -> scene representation network (SRN, arXiv 1906.01618)."""

from torch import Tensor, nn

from vcgen.encoders.hypernetwork import CodeDecoder, Hypernetwork, Place, normalized_mlp
from vcgen.fields.srn import RayMarcher, SrnScene
from vcgen.schema import AtLeastOne, Count, Length


class SrnDecoder(CodeDecoder):
    """Scene Representation Networks (SRN, arXiv 1906.01618): a code -> :class:`SrnScene`.

    Args:
        code: Numbers that describe an object (published: 256).
        hidden: Units of the hypernetwork's layers, of which there are two (published: 256).
        shared: One such pair of layers for all weights of the object's network (ours); false: a pair for each layer's,
            as published.
        width: Features of a point, and units of all layers but the hypernetwork's (published: 256).
        layers: Layers of the object's network (published: 4).
        steps: Of the march along a ray (published: 10).
        memory: Units of the marcher's LSTM cell (published: 16).
        color_layers: Hidden layers from features to color (published: 5).
        start: Distance from the camera, in world units, where the march begins (published: 0.05, with noise of 5e-4);
            null: where the ray enters the object's sphere (ours).
    """

    penalties = ("latent", "behind")

    def __init__(
        self,
        code: AtLeastOne = 256,
        hidden: AtLeastOne = 256,
        shared: bool = False,
        width: AtLeastOne = 256,
        layers: AtLeastOne = 4,
        steps: Count = 10,
        memory: AtLeastOne = 16,
        color_layers: Count = 5,
        start: Length | None = None,
    ):
        super().__init__()
        self.code, self.steps, self.start = code, steps, start
        self.hypernetwork = Hypernetwork(code, hidden, [3, *[width] * layers], None if shared else 2)
        self.marcher = RayMarcher(width, memory)
        self.colors = nn.Sequential(normalized_mlp(width, [width] * color_layers), nn.Linear(width, 4))

    def forward(self, code: Tensor, place: Place) -> SrnScene:
        """See :class:`CodeDecoder`."""
        weights = self.hypernetwork(code)
        return SrnScene(*place, code, weights, self.marcher, self.colors, self.steps, self.start)
