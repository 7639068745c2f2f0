"""Whether scenes show their texts: CLIP similarity and R-precision, in color and of the bare shape."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vcgen.cameras import Cameras
from vcgen.checkpoints import model_folder
from vcgen.checkpoints.build import build_system
from vcgen.data.input_camera import InputCamera
from vcgen.data.viewpoints import around
from vcgen.diffusion.clip import Clip
from vcgen.diffusion.text_prior import TextPrior
from vcgen.encoders.base import OptimizedScene
from vcgen.encoders.scene_shown import ShownScene
from vcgen.errors import UserError
from vcgen.evaluation.statistics import bootstrap_interval, mean
from vcgen.metrics.retrieval import ranks
from vcgen.rendering.shading import Kind, Shading, shaded_image
from vcgen.types import Field, FieldModel

#: Of the light that a textureless rendering is lit by, this fraction has no direction; the rest comes from the camera.
AMBIENT = 0.3


@dataclass(frozen=True)
class Score:
    """The average over images of one scene: their similarity to its prompt, the cosine in [-1, 1], and whether it is
    higher than that of every other prompt.
    """

    prompt: str
    similarity: float
    found: bool


def as_read(texts: Iterable[str], clip: Clip) -> dict[str, str]:
    """Each text, and the first of those that CLIP reads as it, as one in capitals: as two prompts they would tie, which
    counts against either.
    """
    first: dict[tuple[int, ...], str] = {}
    return {text: first.setdefault(tuple(clip.tokenizer(text, verbose=False).input_ids), text) for text in texts}


@torch.no_grad()
def score(clip: Clip, images: Tensor, prompt: str, prompts: Sequence[str]) -> Score:
    """images: (n, height, width, 3) in [0, 1], views of what the prompt, one of ``prompts``, should show."""
    similar = (clip.embed_images(images) @ clip.embed_texts(prompts).T).mean(0, keepdim=True)
    own = torch.tensor([list(prompts).index(prompt)], device=similar.device)
    return Score(prompt, float(similar[0, own]), bool(ranks(similar, own) < 1))


@torch.no_grad()
def views_of(system: Any, kind: Kind, count: int, size: int) -> Tensor:
    """A scene from ``count`` sides, evenly spaced from the front, by the input camera that is carried round the scene's
    center and looks at it, over white: (count, size, size, 3). kind: "albedo", or "textureless", white and lit from the
    camera. Raises UserError for a model that makes its scenes of images.
    """
    encoder = getattr(system, "encoder", None)
    if not isinstance(encoder, OptimizedScene | ShownScene):
        raise UserError(
            f"a {type(encoder).__name__} makes its scenes of images; give field/ of a run that fits one scene"
        )
    field, camera = encoder.scene(), InputCamera.of(system.config)
    azimuths = [360 * number / count for number in range(count)]
    cameras = camera.cameras(azimuths, camera.elevation).to(system.device)
    if bool(field.center[0].any()):
        cameras = around(cameras[:1], field.center[0], torch.tensor(azimuths, device=system.device))
    return torch.stack([_view(system, field, cameras[number : number + 1], kind, size) for number in range(count)])


def _view(system: Any, field: Field, camera: Cameras, kind: Kind, size: int) -> Tensor:
    light = None if kind == "albedo" else F.normalize(camera.centers[0] - field.center, dim=-1)
    rendering, _ = shaded_image(field, camera, (size, size), system.render_eval, Shading(kind, light, AMBIENT))
    rgb = rendering.rgb[0, 0]
    if kind != "albedo":  # samples of no weight to speak of are not lit, and keep their color
        rgb = rgb.mean(0, keepdim=True).expand_as(rgb)
    return rgb.movedim(0, -1).clamp(0, 1)


def untrained(system: Any, plugins: Sequence[str] = ()) -> FieldModel:
    """The scene as it was before anything was learned."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = build_system(system.config["class_path"], system.config["init_args"], plugins)
    fresh.config = system.config
    return fresh.to(system.device).eval()


def scores_of(
    scenes: Mapping[str, str],
    prompts: Sequence[str],
    clip: Clip,
    prior: TextPrior | None = None,
    views: int = 8,
    size: int = 64,
    seed: int = 0,
    plugins: Sequence[str] = (),
) -> Iterator[tuple[str, Score]]:
    """("colored", "textureless", "floor" or "ceiling", score) of scenes: folder -> prompt.

    Floor: the scene untrained, in color. Ceiling: as many samples of the prior, under guidance 7.5, as there are views.
    """
    for folder, prompt in scenes.items():
        system = model_folder.load(folder, clip.mean.device, plugins)
        yield "colored", score(clip, views_of(system, "albedo", views, size), prompt, prompts)
        yield "textureless", score(clip, views_of(system, "textureless", views, size), prompt, prompts)
        yield "floor", score(clip, views_of(untrained(system, plugins), "albedo", views, size), prompt, prompts)
    if prior is None:
        return
    for prompt in dict.fromkeys(scenes.values()):
        drawn = prior.sample([prompt] * views, torch.Generator(clip.mean.device).manual_seed(seed))
        yield "ceiling", score(clip, drawn.movedim(1, -1), prompt, prompts)


def summary(found: Sequence[tuple[str, Score]]) -> dict[str, dict[str, Any]]:
    """Name -> means with 95 % intervals over prompts, and the scores themselves."""
    parts: dict[str, list[Score]] = {}
    for name, value in found:
        parts.setdefault(name, []).append(value)

    def of(scores: list[Score]) -> dict[str, Any]:
        groups = [value.prompt for value in scores]
        columns = {"similarity": [s.similarity for s in scores], "r_precision": [float(s.found) for s in scores]}
        means = {name: mean(values) for name, values in columns.items()}
        intervals = {f"{name}_interval": bootstrap_interval(values, groups) for name, values in columns.items()}
        return {**means, **intervals, "scores": [asdict(value) for value in scores]}

    return {name: of(scores) for name, scores in parts.items()}


def table(results: Mapping[str, Mapping[str, Any]], count: int) -> str:
    """The results as a table in Markdown. count: prompts to choose among."""
    lines = [
        f"| views | CLIP similarity | R-precision (chance {1 / count:.3f}) | 95 % interval |",
        "| --- |" + " --- |" * 3,
    ]
    for name, row in results.items():
        interval = row["r_precision_interval"]
        bounds = "one prompt" if interval is None else " to ".join(f"{x:.3f}" for x in interval)
        lines.append(f"| {name} | {row['similarity']:.3f} | {row['r_precision']:.3f} | {bounds} |")
    return "\n".join(lines)
