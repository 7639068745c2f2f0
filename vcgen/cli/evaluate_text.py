"""``vcgen evaluate-text``: whether scenes made of texts show them, as a CLIP model judges."""

import json
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from vcgen.cli import usage
from vcgen.errors import UserError
from vcgen.folders import create_folder
from vcgen.io import read_bytes, read_json, write_bytes
from vcgen.terminal import say

Text = Annotated[str, Meta(min_length=1, max_length=1000)]
#: Bytes of a list of prompts.
MOST_BYTES = 1 << 20


def main(arguments: list[str]) -> None:
    """Entry point of ``vcgen evaluate-text``."""
    usage.run(evaluate_text, arguments, "vcgen evaluate-text")


def evaluate_text(
    scenes: str,
    judge: str,
    out: str,
    prompts: str | None = None,
    prior: str | None = None,
    views: int = 8,
    size: int = 64,
    seed: int = 0,
    device: str = "auto",
    plugins: list[str] | None = None,
) -> None:
    """Measure scenes made of texts: CLIP similarity and R-precision, colored and textureless, with a floor.

    Writes retrieval.json and retrieval.md into out. A scene is scored by the average over views around it. The floor is
    the same scene untrained; the ceiling, with --prior, samples of what guided it. Judge by a CLIP that guided none.

    Args:
        scenes: JSON file, {"FOLDER": "prompt", ...}, of model folders, as a run's field/.
        judge: the CLIP model, a folder in transformers' format.
        out: the folder for the results.
        prompts: text file of a prompt a line, among which each scene's own must be found; those of the scenes count
            always.
        prior: text prior whose samples are the ceiling, a folder in diffusers' format.
        views: views of each scene, evenly spaced on a circle.
        size: of the renderings in pixels.
        seed: of the samples.
        device: cpu, cuda, or auto, which takes a GPU if there is one.
        plugins: packages of your own whose classes the scenes may name, as VCGEN_PLUGINS does; see docs/security.md.
    """
    from vcgen.diffusion.clip import Clip
    from vcgen.diffusion.text_prior import TextPrior
    from vcgen.evaluation.retrieval import as_read, scores_of, summary, table

    usage.within("--views", views, 1)
    usage.within("--size", size, 8, 2048)
    usage.within("--seed", seed, 0, usage.LARGEST_SEED)
    device = usage.choose_device(device)
    named = read_json(Path(scenes), dict[Text, Text], 'give {"FOLDER": "a photo of a red car"}')
    if not named:
        raise UserError(f'{scenes}: names no scenes; give {{"FOLDER": "a photo of a red car"}}')
    target = Path(out)
    create_folder(target)
    others = read_bytes(Path(prompts), MOST_BYTES).decode(errors="replace").splitlines() if prompts else []
    clip = Clip.from_folder(judge).to(device)
    first = as_read([*named.values(), *filter(None, map(str.strip, others))], clip)
    known, named = list(dict.fromkeys(first.values())), {folder: first[prompt] for folder, prompt in named.items()}
    source = TextPrior.load(prior).to(device) if prior else None
    results = summary(list(scores_of(named, known, clip, source, views, size, seed, plugins or ())))
    lines = table(results, len(known))
    content = {"judge": judge, "prior": prior, "views": views, "size": size, "prompts": known, "results": results}
    write_bytes(target / "retrieval.json", (json.dumps(content, indent=1) + "\n").encode())
    write_bytes(target / "retrieval.md", f"{lines}\n".encode())
    for line in lines.splitlines():
        say(line)
