"""What the timings of field_speed.py are about: a system with the data, optimizer and field that its configuration
gives it.
"""

from dataclasses import dataclass
from typing import Any

import torch

from common import ROOT
from timing import load_config, load_system, precision_of
from vcgen.data.datamodules.stream import SceneStream
from vcgen.data.shards.files import read_index
from vcgen.systems.base import System
from vcgen.types import Example, Field

IMAGE = (64, 64)
MODELS = {"triplane": "cars64", "pixelNeRF": "pixelnerf64"}
#: pixelNeRF's image in a quick run: the same camera with fewer rays, its time scaled to the full number.
QUICK_IMAGE = (16, 16)


@dataclass
class Subject:
    """A system with what its configuration trains it on. rendered: the size of the image that is timed, scaled to
    IMAGE.
    """

    config: dict[str, Any]
    system: System
    example: Example
    optimizer: torch.optim.Optimizer
    field: Field
    rendered: tuple[int, int]

    @classmethod
    def build(cls, name: str, quick: bool) -> "Subject":
        """From configs/NAME.yaml; a quick run trains the baseline on one scene instead of its full batch."""
        config = load_config(name)
        small = quick and name == MODELS["pixelNeRF"]
        if small:
            config["data"]["init_args"]["batch_size"] = 1
        if name == MODELS["pixelNeRF"]:
            config["model"]["init_args"]["encoder"]["init_args"]["radius"] = (
                None  # published: every pixel is rendered, from near to far
            )
        system = load_system(config)
        data = config["data"]["init_args"]
        example = SceneStream(read_index(ROOT / data["train"]), data["batch_size"], data["targets"], seed=0).batch()
        optimizer = system.optimizer_options.build(system.parameters())
        subject = cls(config, system, example, optimizer, None, QUICK_IMAGE if small else IMAGE)
        subject.field = subject.encode()
        return subject

    @property
    def rays(self) -> int:
        """Rays supervised in one training step."""
        batch, views = self.example.target.cameras.shape
        return batch * views * self.system.rays_per_view

    @property
    def points(self) -> int:
        """Points queried per supervised ray: of both passes, where there are two."""
        options = self.system.render_options
        kept = options.samples if options.keep_coarse else 0
        return options.samples + (kept + options.importance + options.around_depth if options.importance else 0)

    @property
    def scale(self) -> float:
        """Rays of a full image over rays of the image that is rendered."""
        return IMAGE[0] * IMAGE[1] / (self.rendered[0] * self.rendered[1])

    def train(self) -> None:
        """One optimization step, as the trainer takes it."""
        self.system.train()
        with precision_of(self.config):
            total = torch.stack(list(self.system.losses(self.example, torch.Generator().manual_seed(0)).values())).sum()
        self.optimizer.zero_grad()
        total.backward()
        if clip := self.config["trainer"].get("gradient_clip_val"):
            torch.nn.utils.clip_grad_norm_(self.system.parameters(), clip)
        self.optimizer.step()

    def encode(self) -> Field:
        """The field behind one input view."""
        self.system.eval()
        with torch.inference_mode(), precision_of(self.config):
            return self.system.field(self.example.context[:1])

    def render(self) -> None:
        """One image of the encoded field."""
        self.system.eval()
        with torch.inference_mode(), precision_of(self.config):
            self.system.render(self.field, self.example.target.cameras[:1, :1], self.rendered)
