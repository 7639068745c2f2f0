"""Choices at random, by name."""

from typing import TypeVar

import numpy as np

Option = TypeVar("Option")


class Draws:
    """What a generator of random numbers decides, one choice after another: the same seed gives the same object."""

    def __init__(self, random: np.random.Generator):
        self.random = random

    def between(self, low: float, high: float) -> float:
        """A number, evenly."""
        return float(self.random.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included, evenly."""
        return int(self.random.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return bool(self.random.uniform() < probability)

    def pick(self, *options: Option) -> Option:
        """One of several, evenly."""
        return options[self.random.integers(len(options))]
