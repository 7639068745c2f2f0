"""A text to 3D of moments: two words, a scene of four levels, a prior with random weights."""

import torch

from small_realfusion import CONFIG as PHOTO_CONFIG, photo
from text_folder import tiny_prior
from vcgen.encoders.base import OptimizedScene
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.fields.hashgrid import HashGrid
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.text_to_3d.options import TextTo3DOptions
from vcgen.systems.text_to_3d.system import TextTo3D

CONFIG = (
    PHOTO_CONFIG.replace("PhotoData", "PromptData")
    .replace("image: data/images/taxi.png", 'prompt: "red car"')
    .replace("RealFusion", "TextTo3D")
    .replace("reference_rays: 32, ", "")
    + "checkpoint: {monitor: val/janus, mode: min}\n"
)


def hash_grid() -> SceneHashGrid:
    torch.manual_seed(0)
    return SceneHashGrid(HashGrid(4, 2, 10, 4, 16), 0.75, 0.75, hidden=16, blob=(9.0, 0.2), density_bias=-4.0)


def system(prior=None, steps: int = 10, scene: OptimizedScene | None = None, **changes) -> TextTo3D:
    """At step ``at`` of ``steps``, without a trainer."""
    options = TextTo3DOptions(**{"render_size": 16, "guidance_scale": (5.0, 5.0), **changes.pop("options", {})})
    given = {"render": RenderOptions(12), "render_eval": RenderOptions(12), "occupancy": 12, **changes}
    made = TextTo3D("none", scene or hash_grid(), options=options, **given)
    made.use_reference(photo().context)
    made.use_prior(prior or tiny_prior())
    made.at, made.progress = 0, lambda step: made.at / steps
    return made


def with_text_on_gpu(made: TextTo3D) -> TextTo3D:
    """With what is neither weight nor buffer moved there."""
    object.__setattr__(made, "text_prior", made.text_prior.to("cuda"))
    made.reference = made.reference.to("cuda")
    made.text, made.negative = ({k: v.to("cuda") for k, v in texts.items()} for texts in (made.text, made.negative))
    return made


def losses(made: TextTo3D, seed: int = 0) -> dict[str, torch.Tensor]:
    return made.losses(photo(), torch.Generator().manual_seed(seed))
