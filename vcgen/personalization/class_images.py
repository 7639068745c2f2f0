"""Images of the class for prior preservation (DreamBooth, arXiv 2208.12242, section 3.3), drawn once and kept in the
run's folder.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vcgen.data.images.reading import read_image
from vcgen.diffusion.prompts import fault_of
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.io import read_json, write_bytes
from vcgen.random import seeded
from vcgen.schema import AtLeastOne, NotNegative, check_options
from vcgen.terminal import printable
from vcgen.visualization.images import to_uint8, write_png


@dataclass(frozen=True)
class Preservation:
    """Prior preservation (DreamBooth, arXiv 2208.12242): images of the class keep it as it was.

    Each batch has as many of them, drawn from the untouched prior, as images of the object.

    Args:
        prompts: Of the class, {} for its noun; image i is of prompt i modulo their number.
        count: Number of class images.
        steps: Denoising steps of each.
        guidance_scale: Of classifier-free guidance when they are drawn.
        batch_size: Images that are drawn at once.
        weight: Of the class's loss beside the object's.
    """

    prompts: tuple[str, ...] = ("a photo of a {}",)
    count: AtLeastOne = 100
    steps: AtLeastOne = 25
    guidance_scale: NotNegative = 7.5
    batch_size: AtLeastOne = 4
    weight: NotNegative = 1.0

    def __post_init__(self) -> None:
        check_options(self)
        if not self.prompts:
            raise ValueError("model.preservation.prompts is empty: give the class's")
        if faults := [fault for prompt in self.prompts if (fault := fault_of(prompt, [""]))]:
            raise ValueError(f"model.preservation.prompts: {faults[0]}: the class's noun stands there")

    def prompts_of(self, noun: str, numbers: list[int]) -> list[str]:
        """The prompts of the images of these numbers."""
        return [self.prompts[number % len(self.prompts)].format(noun) for number in numbers]


def draw_class_images(
    prior: TextPrior,
    noun: str,
    options: Preservation,
    folder: Path,
    seed: int,
    device: torch.device,
    rank: int = 0,
    ranks: int = 1,
) -> None:
    """Draw the images that ``folder`` lacks, as NUMBER.png of the prior's size; noise is a function of the seed and the
    number.

    Rank r of n draws every n-th batch. Raises UserError where the folder holds images drawn otherwise.
    """
    made = {
        "prior": prior.name,
        "noun": noun,
        "seed": seed,
        **{k: v for k, v in asdict(options).items() if k not in ("count", "weight")},
    }
    made = json.loads(json.dumps(made))
    note = folder / "made.json"
    if note.is_file() and (found := read_json(note, dict[str, Any], "delete it")) != made:
        names = printable(", ".join(sorted(name for name in made | found if made.get(name) != found.get(name))))
        raise UserError(
            f"{folder}: holds class images made with another {names}; delete that folder, or choose another run folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0 and not note.is_file():
        write_bytes(note, (json.dumps(made, indent=2) + "\n").encode())
    batches = [range(start, start + options.batch_size) for start in range(0, options.count, options.batch_size)]
    for numbers in batches[rank::ranks]:
        if all(path_of(folder, number).is_file() for number in numbers if number < options.count):
            continue
        noise, prompts = seeded(seed, numbers[0], device=device), options.prompts_of(noun, list(numbers))
        images = prior.sample(prompts, noise, options.steps, options.guidance_scale)
        for number, image in zip(numbers, images, strict=False):
            write_png(path_of(folder, number), to_uint8(image))


def read_class_images(folder: Path, count: int) -> Tensor:
    """(count, 3, size, size) uint8. Raises UserError for one that is damaged, or of another size than the first."""
    images = []
    for number in range(count):
        path = path_of(folder, number)
        try:
            images.append(read_image(path)[..., :3])
        except UserError as error:
            raise UserError(f"{path}: cannot be read; delete it, and it is drawn again") from error
        if images[-1].shape != images[0].shape:
            raise UserError(
                f"{path}: has another size than {path_of(folder, 0).name}; delete {folder}, and it is drawn again"
            )
    return torch.from_numpy(np.stack(images)).movedim(-1, 1)


def path_of(folder: Path, number: int) -> Path:
    """Where an image lies."""
    return folder / f"{number:05d}.png"
