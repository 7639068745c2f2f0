"""A RealFusion of moments: a red disc, a scene of four levels, a prior with random weights."""

import torch

from text_folder import tiny_prior
from vcgen.cameras import focal_from_fov, orbit, pinhole
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.fields.hashgrid import HashGrid
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.realfusion.options import RealFusionOptions
from vcgen.systems.realfusion.system import RealFusion
from vcgen.types import Example, Views

CONFIG = """
seed_everything: 0
trainer: {max_steps: 4, accelerator: cpu, val_check_interval: 2, check_val_every_n_epoch: null, num_sanity_val_steps: 0,
          log_every_n_steps: 1}
data:
  class_path: PhotoData
  init_args: {image: data/images/taxi.png, size: 16}
model:
  class_path: RealFusion
  init_args:
    prior: unused
    scene: {grid: {levels: 4, log2_size: 10, coarsest: 4, finest: 16}, half_size: 0.75, radius: 0.75, hidden: 8,
            depth: 1, blob: [9.0, 0.2], density_bias: -4.0}
    options: {render_size: 16, reference_rays: 32, guidance_scale: [5.0, 5.0], refresh_every: 3}
    render: {samples: 8}
    render_eval: {samples: 8}
    occupancy: 12
    outcome: {frames: 3, mesh_resolution: 16, views: 4}
ema: {decay: 0.0}
samples: {scenes: 1, turntable: 0}
"""


def photo(size: int = 16) -> Example:
    """A red disc."""
    camera = orbit(torch.zeros(1), torch.full((1,), 15.0), 1.8, pinhole(focal_from_fov(40)), 1.0, 2.6).reshape(1, 1)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    alpha = ((x.square() + y.square()) < 0.6).float()[None, None, None]
    images = torch.tensor([0.9, 0.1, 0.1])[:, None, None].expand(1, 1, 3, size, size).clone()
    view = Views(images, camera, alpha)
    return Example(view, view, ("disc",))


def system(prior=None, steps: int = 10, **changes) -> RealFusion:
    """At step ``at`` of ``steps``, without a trainer."""
    torch.manual_seed(0)
    scene = SceneHashGrid(HashGrid(4, 2, 10, 4, 16), 0.75, 0.75, hidden=16, blob=(9.0, 0.2), density_bias=-4.0)
    options = RealFusionOptions(
        **{"render_size": 16, "reference_rays": 64, "guidance_scale": (5.0, 5.0), **changes.pop("options", {})}
    )
    made = RealFusion(
        "none", scene, options=options, render=RenderOptions(12), render_eval=RenderOptions(12), occupancy=12, **changes
    )
    made.use_reference(photo().context)
    made.use_prior(prior or tiny_prior())
    made.at, made.progress = 0, lambda step: made.at / steps
    return made


def losses(made: RealFusion, seed: int = 0) -> dict[str, torch.Tensor]:
    return made.losses(photo(), torch.Generator().manual_seed(seed))
