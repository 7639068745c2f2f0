"""Codes without an encoder (auto-decoders: DeepSDF, Park et al., CVPR 2019, arXiv 1901.05103): one for each training
scene, learned with the networks, and for a new scene one that is optimized while these stay as they are.
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vcgen.encoders.base import Encoder
from vcgen.encoders.hypernetwork import CodeDecoder
from vcgen.encoders.image_code import canonical
from vcgen.errors import UserError
from vcgen.optim.optimizer import Rows
from vcgen.rendering.ray_batches import ray_losses
from vcgen.rendering.volume import RenderOptions
from vcgen.schema import AtLeastOne, Count, Length, NotNegative
from vcgen.types import Example, Scene, Views


class AutoDecoder(Encoder):
    """The published form of SRN and LFN: objects in canonical poses about the world's origin, with a code each.

    Trained on scenes that it knows by their keys; other scenes are made by Adam on a code, from zero (as LFN; SRN draws
    it), and random rays of the input views, always the same: what it gives does not change from one time to the next.

    Args:
        decoder: LightFieldDecoder (LFN) or SrnDecoder (SRN).
        scenes: How many scenes training has.
        radius: Objects fit this sphere around the world's origin, in world units.
        deviation: Standard deviation of the codes before training (published: 0.01).
        steps: Of the optimization for new input views (published: 100,000 and more).
        lr: Its learning rate (published: SRN 5e-5, LFN 1e-4).
        rays: Rays per input view and step, of pixels that see the sphere (published: all pixels).
        loss_weights: Of the decoder's penalties beside the error of color, in it; 1 / 800 is that of the code's square
            as published, 1 / 80 SRN's of ends behind the camera.
    """

    knows_keys = True

    def __init__(
        self,
        decoder: CodeDecoder,
        scenes: AtLeastOne,
        radius: Length = 0.51,
        deviation: NotNegative = 0.01,
        steps: Count = 1000,
        lr: NotNegative = 1e-3,
        rays: AtLeastOne = 512,
        loss_weights: Mapping[str, NotNegative] = {"latent": 1.25e-3, "behind": 1.25e-2},
    ):
        super().__init__()
        self.decoder, self.penalties = decoder, decoder.penalties
        self.radius, self.steps, self.lr, self.rays = radius, steps, lr, rays
        # the defaults know more penalties than some decoders have
        if unknown := loss_weights.keys() - {*decoder.penalties, "latent", "behind"}:
            known = ", ".join(decoder.penalties)
            raise UserError(
                f"AutoDecoder: loss_weights has {', '.join(sorted(unknown))}; give those of {known} in proportion to"
                " the error of color, which has 1"
            )
        self.loss_weights = {name: loss_weights.get(name, 1.0) for name in decoder.penalties}
        self.codes = Rows(scenes, decoder.code)
        nn.init.normal_(self.codes.weight, std=deviation)
        #: A number for each row's key, so that codes are never taken for those of other scenes.
        self.keys: Tensor
        self.register_buffer("keys", torch.zeros(scenes, dtype=torch.int64))
        self.rows: dict[str, int] = {}

    def forward(self, context: Views) -> Scene:
        """context: (batch, n) views -> scenes of ``batch`` objects, optimized to look so."""
        return self.scene(self.optimized(context, context.images.new_zeros(len(context.images), self.decoder.code)))

    def begin(self, keys: Sequence[str]) -> None:
        """See :meth:`Encoder.begin`. Raises UserError for another number of scenes than there are codes, and for other
        scenes than the codes were learned on.
        """
        if len(keys) != len(self.keys):
            raise UserError(
                f"model.encoder.scenes is {len(self.keys)}, the training data has {len(keys)} scenes, of which each"
                f" gets a code; set it to {len(keys)}"
            )
        numbers = torch.tensor([number_of(key) for key in keys])
        if self.keys.any() and not torch.equal(self.keys.cpu(), numbers):
            raise UserError(
                "model.pretrained has codes of other scenes than data.train gives, or in another order; train on those,"
                " or start afresh"
            )
        self.keys.copy_(numbers)
        self.rows = {key: row for row, key in enumerate(keys)}

    def known(self, example: Example) -> Scene:
        """See :meth:`Encoder.known`: by their codes. Raises UserError for scenes without one."""
        if missing := [key for key in example.keys if key not in self.rows]:
            raise UserError(
                f"scene {missing[0]} has no code: AutoDecoder trains on the scenes of data.train alone; give it there"
            )
        rows = torch.tensor([self.rows[key] for key in example.keys])
        return self.scene(self.codes(rows.to(self.codes.weight.device, non_blocking=True)))

    def scene(self, code: Tensor) -> Scene:
        """Codes (batch, code) -> scenes."""
        return self.decoder(code, canonical(len(code), self.radius, code))

    def optimized(self, context: Views, start: Tensor) -> Tensor:
        """Codes (batch, code) of the objects behind ``context`` (batch, n), from ``start``; works without and inside of
        ``torch.no_grad`` and ``torch.inference_mode``, and leaves all weights and their gradients as they are.

        One after the other, each on the same random rays whatever others there are."""
        scenes = [slice(number, number + 1) for number in range(len(start))]
        with torch.inference_mode(False):
            return torch.cat([self._optimized(context[one], start[one]) for one in scenes])

    def _optimized(self, context: Views, start: Tensor) -> Tensor:
        """The code (1, code) of one object."""
        device = start.device
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            # what was made in inference mode cannot be differentiated, copies can
            context, code = context.to(device, copy=True), start.detach().clone().requires_grad_()
            generator, optimizer = torch.Generator(device).manual_seed(0), torch.optim.Adam([code], self.lr)
            for _ in range(self.steps):
                losses = ray_losses(self.scene(code), context, self.rays, RenderOptions(), generator, "random")
                total = torch.stack([self.loss_weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
                (code.grad,) = torch.autograd.grad(total, [code])
                optimizer.step()
        return code.detach()


def number_of(key: str) -> int:
    """A number for a scene's key, never 0: 62 bits of its SHA-256."""
    return 1 + (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 2)
