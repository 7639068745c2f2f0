"""The rule of all random draws: they are a function of numbers that say which they are, so that a stopped run goes on
with the draws of an undisturbed one, and no two processes draw the same.
"""

import os
import zlib
from collections.abc import Sequence

import numpy as np
import torch


def run_seed() -> int:
    """What ``--seed_everything`` set."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def seeded(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator that belongs to whole numbers >= 0, the seed first. Zeros at the end may be left out.

    Of a batch that is trained on, in `vcgen fit` and in loops without a Trainer alike, they are seed, optimizer step,
    rank, and the batch's place in an accumulation.
    """
    # Mixed, because PyTorch's generator on CPUs looks at the low 32 bits of its seed alone.
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(mixed[0]) % 2**63)


def of_scenes(keys: Sequence[str], device: torch.device | str = "cpu") -> torch.Generator:
    """The generator that belongs to a validation example, by its scenes' keys: the same each time, and on whichever
    rank it is.
    """
    return torch.Generator(device).manual_seed(zlib.crc32(" ".join(keys).encode()))
